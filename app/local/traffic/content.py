"""Texts and values that visitors, pages and hostile clients send."""

import random
from typing import Final, NamedTuple
from urllib.parse import quote


class Browser(NamedTuple):
    """A user agent with its expected browser, system and device."""

    text: str
    browser: str | None
    """None for a bot."""
    device: str | None
    version: str | None = None
    os_version: str | None = None

    @property
    def is_bot(self) -> bool:
        """Whether it belongs to a crawler."""
        return self.browser is None


_WINDOWS_CHROME: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)
_APPLE: Final = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3"
HUMANS: Final = (
    Browser(_WINDOWS_CHROME, "Chrome", "desktop", "141.0.0.0", "10"),
    Browser(f"{_WINDOWS_CHROME} Edg/141.0.0.0", "Edge", "desktop", "141.0.0.0", "10"),
    Browser(
        f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_APPLE} Safari/605.1.15", "Safari", "desktop", "18.3", "10.15.7"
    ),
    Browser("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox", "desktop", "140.0"),
    Browser(
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) {_APPLE} Mobile/15E148 Safari/604.1",
        "Mobile Safari", "mobile", "18.3", "18.3",
    ),
    Browser(
        "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile"
        " Safari/537.36",
        "Chrome Mobile", "mobile", "140.0.0.0", "14",
    ),
)  # fmt: skip
BOTS: Final = (
    Browser("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", None, None),
    Browser("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", None, None),
    Browser("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", None, None),
    Browser("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", None, None),
)

NASTY: Final = (
    "tab\there", 'say "quoted" twice ""', "it's; -- DROP TABLE page_views", "back\\slash \\t \\N end\\", "line\nfeed",
    "cr\r\nlf", "\\N", "NULL", "null", "\\", '"', "\t", "  spaces kept  ", "comma, semicolon; pipe|", "emoji 🚀👩‍👩‍👧 fin",
    "עברית مرحبا \u202eright to left", "zero\u0000byte", "lone \ud83d surrogate", "\u2028separators\u2029", "\ufeffmark",
    "Zürich — ”日本語”", "%00%0a", "\x1funit\x7f", "NaN", "1e309", "0x00", "true", "{}", "[]",
)  # fmt: skip
"""Texts that have broken loaders; each has at most 48 bytes of UTF-8, so it fits every field."""

_SECTIONS: Final = ("politics", "sport", "culture", "science", "business", "opinion", "travel")
_REFERRERS: Final = (
    "https://www.google.com/", "https://www.bing.com/search?q=news", "https://t.co/Xy12", "https://www.facebook.com/",
    "https://news.ycombinator.com/", "https://duckduckgo.com/", "",
)  # fmt: skip
_TAGS: Final = (
    "utm_source=mail&utm_medium=email", "utm_source=mail&utm_medium=email&utm_content=top%20story",
    "UTM_SOURCE=News&utm_medium=cpc&utm_term=late+news", "utm_source=social&utm_term=",
)  # fmt: skip
_CLICK_IDS: Final = ("gclid", "fbclid", "msclkid", "ttclid")
_LANGUAGES: Final = ("en-GB", "en-US", "de-CH", "fr", "zh-Hant-TW")
_TIME_ZONES: Final = ("Europe/London", "America/New_York", "Europe/Zurich", "Asia/Taipei")
_SCREENS: Final = (390, 412, 820, 1440, 1920, 2560)
CURRENCIES: Final = ("EUR", "EUR", "EUR", "USD", "gbp")
CAMPAIGNS: Final = ("autumn-launch", "retarget-eu", "newsletter-43", "video-test", "brand_always_on")


def address(rng: random.Random) -> str:
    """A visitor's address, from the networks set aside for documentation: no crawler lives there."""
    if rng.random() < 0.15:
        return f"2001:db8:{rng.randrange(65536):x}::{rng.randrange(1, 65536):x}"
    return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}"


def text_or_nasty(rng: random.Random, text: str, nasty_share: float = 0.03) -> str:
    """Mostly `text`, sometimes a text that breaks loaders."""
    return rng.choice(NASTY) if rng.random() < nasty_share else text


def article(rng: random.Random) -> dict[str, object]:
    """article_id, author_id and section of a page; some are popular, some fields are missing.

    One page in twenty is nasty throughout, so that the others read in the views like a publisher's.
    """
    number = int(rng.paretovariate(1.1)) % 5000
    usual = (f"article-{number}", f"author-{number % 97}", _SECTIONS[number % len(_SECTIONS)])
    texts = [rng.choice(NASTY) for _ in usual] if rng.random() < 0.05 else usual
    fields: dict[str, object] = dict(zip(("article_id", "author_id", "section"), texts, strict=True))
    if rng.random() < 0.05:
        fields.pop(rng.choice(list(fields)))
    return fields


def page_url(rng: random.Random) -> tuple[str, str | None]:
    """A page's URL and the campaign that its utm_campaign names; one in two hundred is as long as a URL may be.

    Some links of campaigns have an id of the click, and some have it alone.
    """
    base = f"https://www.example.com/{rng.choice(_SECTIONS)}/{rng.randrange(100_000)}"
    campaign = rng.choice(CAMPAIGNS) if rng.random() < 0.25 else None
    if campaign:
        base += f"?{rng.choice(_TAGS)}&utm_campaign={campaign}"
    if rng.random() < 0.1:
        base += f"{'&' if campaign else '?'}{rng.choice(_CLICK_IDS)}={rng.getrandbits(120):030x}"
    kind = rng.random()
    if kind < 0.005:
        base += ("&" if "?" in base else "?") + "pad="
        base += "x" * (4096 - len(base))
    elif kind < 0.03:
        base += ("&" if "?" in base else "?") + "q=" + quote(rng.choice(NASTY).encode(errors="replace"))
    return base, campaign


def screen(rng: random.Random) -> dict[str, object]:
    """What a page's script knows of the page and of the browser; a script of old sends nothing."""
    if rng.random() < 0.1:
        return {}
    width = rng.choice(_SCREENS)
    return {
        "title": text_or_nasty(rng, f"Story {rng.randrange(5000)} \u2013 The Daily Example"),
        "language": rng.choice(_LANGUAGES), "time_zone": rng.choice(_TIME_ZONES),
        "session_id": f"s-{rng.randrange(1_000_000)}", "screen_width": width, "viewport_width": rng.randrange(width + 1),
    }  # fmt: skip


def referrer(rng: random.Random) -> str:
    """The visitor's referrer; may be empty."""
    return rng.choice(_REFERRERS)


def properties(rng: random.Random) -> dict[str, object]:
    """An event's own object: numbers of every kind, nesting, nasty keys and values."""
    found: dict[str, object] = {"layout": rng.choice(("wide", "narrow")), "experiment": rng.randrange(20)}
    if rng.random() < 0.3:
        found["ratio"] = rng.random()
        found["deep"] = {"list": [1, None, True, "x"], "empty": {}}
    if rng.random() < 0.1:
        found[rng.choice(NASTY)] = rng.choice(NASTY)
    return found
