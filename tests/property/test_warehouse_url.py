"""Any password: a URL is either refused without a word of it, or libpq reads exactly this password and nothing shows it."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from app.errors import ConfigurationError
from app.settings import Settings
from app.warehouse_url import REMEDY, redacted_url

TRICKY = "@:/?#%&=,[]+;'\"\\ \t\n"
RAW = st.text(
    st.sampled_from(TRICKY + "aZ09é") | st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12
)
AROUND = (("postgresql://u:", "@127.0.0.1:1/db"), ("postgres://u@h/d?password=", "&sslmode=disable"))


@pytest.mark.parametrize(("before", "behind"), AROUND)
@given(password=RAW)
@example(password="a@b")
@example(password="12/a")
@example(password="%41")
@example(password="%")
@example(password="a&user=b")
@example(password="?x#y")
def test_a_password_as_it_is(before: str, behind: str, password: str) -> None:
    assume("&" not in password or behind.startswith("@"))  # behind the `?` it begins another option
    url = before + password + behind
    if redacted_url(url) == "postgresql://***":
        with pytest.raises(ConfigurationError) as caught:
            Settings(warehouse_url=url)
        assert str(caught.value) == f"settings do not fit: INSTREAM_WAREHOUSE_URL: {REMEDY}"
        return
    assert Settings(warehouse_url=url).warehouse_url == url
    found = conninfo_to_dict(url)
    assert redacted_url(url) == before + "***" + behind
    assert found.get("password", "") == unquote(password)
    assert (found["host"], found["user"]) in {("127.0.0.1", "u"), ("h", "u")}


@pytest.mark.parametrize(("before", "behind"), AROUND)
@given(password=RAW.filter(bool))
def test_a_password_that_is_percent_encoded_is_always_taken(before: str, behind: str, password: str) -> None:
    url = before + quote(password, safe="") + behind
    assert Settings(warehouse_url=url).warehouse_url == url
    assert conninfo_to_dict(url)["password"] == password
    assert redacted_url(url) == before + "***" + behind
