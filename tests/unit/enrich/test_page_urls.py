"""Host and path of a URL (rule J5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.enrich.page_urls import NO_URL, PageUrl, read_url


@pytest.mark.parametrize(("url", "host", "path"), [
    ("https://www.daily.example/sport/story-1?utm_source=x#top", "www.daily.example", "/sport/story-1"),
    ("HTTPS://User:pass@Daily.Example:8443/A%20b/", "daily.example", "/A%20b/"),
    ("https://daily.example", "daily.example", "/"),
    ("https://daily.example?x=1", "daily.example", "/"),
    ("https://daily.example#x/y", "daily.example", "/"),
    ("//daily.example/a//b", "daily.example", "/a//b"),
    ("https://b\u00fccher.example/\u00fc", "xn--bcher-kva.example", "/\u00fc"),
    ("https://[2001:db8::1]:80/a", "2001:db8::1", "/a"),
    ("android-app://com.reader/https/daily.example/a", "com.reader", "/https/daily.example/a"),
    ("file:///C:/page.html", None, "/C:/page.html"),
    ("/story?x=https://other.example/", None, "/story"),
    ("about:blank", None, None),
    ("data:text/html,<p>hi//there", None, None),
    ("story", None, None),
])  # fmt: skip
def test_host_and_path(url: str, host: str | None, path: str | None) -> None:
    assert read_url(url)[:2] == (host, path)


def test_a_url_and_its_tags() -> None:
    url = "https://daily.example/a?utm_source=s&utm_medium=m&utm_campaign=c&utm_term=t&utm_content=o&gclid=g"
    assert read_url(url) == PageUrl("daily.example", "/a", "c", "s", "m", "t", "o", "g", "google")
    assert read_url(None) == NO_URL


@given(st.text())
def test_no_url_raises_and_all_facts_fit_their_columns(text: str) -> None:
    for odd in (text, "https://" + text, "//" + text, "https://n.example/" + text):
        host, path, *_ = read_url(odd)
        assert len((host or "").encode()) <= 256
        assert path is None or (path.startswith(("/", "\\")) and len(path) <= max(1, len(odd)))
