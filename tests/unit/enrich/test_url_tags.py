"""The tags in a URL (rule J5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.enrich.url_tags import CLICK_ID_SOURCES, NO_TAGS, Tags, tags_in


@pytest.mark.parametrize(("url", "expected"), [
    ("https://n.example/a?utm_source=x&utm_campaign=summer+sale%21&z=1#f", "summer sale!"),
    ("https://n.example/a?my_utm_campaign=b", None),
    ("https://n.example/utm_campaign=b", None),
    ("utm_campaign=b", None),
    ("data:text/html,<p>hi?utm_source=x", None),
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
def test_campaigns_in_urls(url: str, expected: str | None) -> None:
    assert tags_in(url).campaign == expected


@pytest.mark.parametrize(("url", "expected"), [
    ("https://n.example/a", NO_TAGS),
    ("https://n.example/a?q=1#b=2", NO_TAGS),
    ("https://n.example/a?utm_\N{LATIN SMALL LETTER LONG S}ource=a", NO_TAGS),
    ("https://n.example/a?utm_source=mail&utm_medium=email&utm_campaign=c&utm_term=shoes+red&utm_content=top%20banner",
     Tags("c", "mail", "email", "shoes red", "top banner")),
    ("https://n.example/a?UTM_SOURCE=News&Utm_Medium=%20CPC%20", Tags(source="News", medium="CPC")),
    ("https://n.example/a?utm_source=a&utm_source=b&utm_term=&utm_term=+&utm_term=t", Tags(source="a", term="t")),
    ("https://n.example/a?utm_source=query#utm_source=fragment&utm_medium=m", Tags(source="query", medium="m")),
    ("https://n.example/a?x=1&amp;utm_source=s&amp;utm_content=c", Tags(source="s", content="c")),
    ("https://n.example/a?my_utm_source=s&utm_sourcery=s&utm_id=7", NO_TAGS),
    ("?utm_content=" + "ü" * 200, Tags(content="ü" * 128)),
    # ids of clicks
    ("https://n.example/a?gclid=Cj0K_x-Y", Tags(click_id="Cj0K_x-Y", click_id_source="google")),
    ("https://n.example/a?utm_source=fb&fbclid=IwAR1", Tags(source="fb", click_id="IwAR1", click_id_source="facebook")),
    ("https://n.example/a#MSCLKID=m1", Tags(click_id="m1", click_id_source="microsoft")),
    ("https://n.example/a?gclid=&ttclid=t1", Tags(click_id="t1", click_id_source="tiktok")),
    ("https://n.example/a?fbclid=f1&gclid=g1", Tags(click_id="f1", click_id_source="facebook")),
    ("https://n.example/a?wbraid=w1#fbclid=f1", Tags(click_id="w1", click_id_source="google")),
    ("https://n.example/a?xgclid=g1&gclids=g2", NO_TAGS),
    ("?gclid=" + "g" * 600, Tags(click_id="g" * 512, click_id_source="google")),
])  # fmt: skip
def test_tags_in_urls(url: str, expected: Tags) -> None:
    assert tags_in(url) == expected


@pytest.mark.parametrize("name", CLICK_ID_SOURCES)
def test_every_click_id_is_found_in_both_cases(name: str) -> None:
    for written in (name, name.upper()):
        assert tags_in(f"https://n.example/?a=1&{written}=id")[-2:] == ("id", CLICK_ID_SOURCES[name])


@given(st.text())
def test_no_url_raises(text: str) -> None:
    names = ("utm_campaign", "utm_source", "gclid")
    for odd in (text, "https://" + text, *(f"{mark}{name}={text}" for mark in "?#" for name in names)):
        for tag in tags_in(odd):
            assert tag is None or (0 < len(tag.encode()) <= 512 and "\0" not in tag and tag == tag.strip())


def test_half_a_character_of_utf_16_is_replaced() -> None:
    assert tags_in("?utm_campaign=a\ud83d").campaign == "a\N{REPLACEMENT CHARACTER}"
