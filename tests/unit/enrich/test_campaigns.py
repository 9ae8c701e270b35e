"""The campaign in a URL (rule J5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.enrich.campaigns import campaign_of


@pytest.mark.parametrize(("url", "expected"), [
    ("https://n.example/a?utm_source=x&utm_campaign=summer+sale%21&z=1#f", "summer sale!"),
    ("https://n.example/a?my_utm_campaign=b", None),
    ("https://n.example/utm_campaign=b", None),
    ("utm_campaign=b", None),
    ("data:text/html,<p>hi?utm_source=x", None),
    (None, None),
    # names in both cases, values as they are
    ("https://n.example/a?UTM_SOURCE=News&UTM_CAMPAIGN=Spring", "Spring"),
    ("https://n.example/a?Utm_Campaign=SomethingWithCaps", "SomethingWithCaps"),
    # the first that is not blank, wherever the parameters stand
    ("https://n.example/a?utm_campaign=first&utm_campaign=second", "first"),
    ("https://n.example/a?x=1&utm_campaign=first&y=2&utm_campaign=second", "first"),
    ("https://n.example/a?utm_campaign=&utm_campaign=b", "b"),
    ("https://n.example/a?utm_campaign=%20+&utm_campaign=b", "b"),
    ("https://n.example/a?utm_campaign=+", None),
    ("https://n.example/a?utm_campaign=spring%20&utm_source=x", "spring"),
    # behind #
    ("https://jobs.example/r/#utm_source=facebook&utm_medium=sponsored&utm_campaign=traffic", "traffic"),
    ("https://n.example/#/route?utm_campaign=b", "b"),
    ("https://n.example/a?utm_campaign=query#utm_campaign=fragment", "query"),
    # escaped twice
    ("https://n.example/a?utm_source=mail&amp;utm_campaign=spring", "spring"),
    # percent codes that are none, or of another encoding
    ("https://n.example/a?utm_campaign=save+20%", "save 20%"),
    ("https://n.example/a?utm_campaign=caf%E9", "café"),
    ("https://n.example/a?utm_campaign=caf%C3%A9", "café"),
    ("https://n.example/a?utm_campaign=%C3%A9t%E9", "ét\N{REPLACEMENT CHARACTER}"),
    ("?utm_campaign=%00x%ff", "\N{REPLACEMENT CHARACTER}xÿ"),
    ("?utm_campaign=" + "ü" * 100, "ü" * 64),
    ("?utm_campaign=" + "a" * 127 + "%F0%9F%8E%89tail", "a" * 127),
])  # fmt: skip
def test_campaigns_in_urls(url: str | None, expected: str | None) -> None:
    assert campaign_of(url) == expected


@given(st.text())
def test_no_url_raises(text: str) -> None:
    for odd in (text, "https://" + text, "?utm_campaign=" + text, "#utm_campaign=" + text):
        campaign = campaign_of(odd)
        assert campaign is None or (0 < len(campaign.encode()) <= 128 and "\0" not in campaign)
        assert campaign is None or campaign == campaign.strip()


def test_half_a_character_of_utf_16_is_replaced() -> None:
    assert campaign_of("?utm_campaign=a\ud83d") == "a\N{REPLACEMENT CHARACTER}"
