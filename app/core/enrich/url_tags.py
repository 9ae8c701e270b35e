"""The tags in a page's URL: its campaign, and the id of the click that led to it (rule J5).

URLs come from browsers and bots, so any text may be in them. No function here raises on any text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from app.core.events.canonical_json import cut_text, storable_text

CLICK_ID_SOURCES: Final[Mapping[str, str]] = MappingProxyType({
    "gclid": "google", "gbraid": "google", "wbraid": "google", "dclid": "google", "fbclid": "facebook",
    "msclkid": "microsoft", "ttclid": "tiktok", "twclid": "x", "li_fat_id": "linkedin", "yclid": "yandex",
    "epik": "pinterest", "rdt_cid": "reddit", "sccid": "snapchat", "tblci": "taboola", "dicbo": "outbrain",
})  # fmt: skip
"""Parameter -> the service that adds it to the address of each click.

Source: the help pages of Google Ads, Meta, Microsoft Advertising, TikTok, X, LinkedIn, Yandex, Pinterest, Reddit, Snapchat,
Taboola and Outbrain about their click ids.
"""
MAX_CLICK_ID_BYTES: Final = 512
MAX_TAG_BYTES: Final[Mapping[str, int]] = MappingProxyType({
    "utm_campaign": 128, "utm_source": 256, "utm_medium": 256, "utm_term": 256, "utm_content": 256,
    **dict.fromkeys(CLICK_ID_SOURCES, MAX_CLICK_ID_BYTES),
})  # fmt: skip
"""Parameter -> the length of its column."""
_TAG: Final = re.compile(rf"(?:^|[?&])(?:amp;)?({'|'.join(MAX_TAG_BYTES)})=([^&#]+)", re.IGNORECASE | re.ASCII)
"""A tag and its value. People write its name in both cases; `amp;` stands before it if a link was escaped twice.

Without ASCII, `utm_\N{LATIN SMALL LETTER LONG S}ource` would be a name that no table has.
"""
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"


class Tags(NamedTuple):
    """The tags of a URL, percent-decoded and trimmed; None for one that the URL lacks or leaves blank."""

    campaign: str | None = None
    source: str | None = None
    medium: str | None = None
    term: str | None = None
    content: str | None = None
    click_id: str | None = None
    click_id_source: str | None = None
    """The service that made the click id, see `CLICK_ID_SOURCES`."""


NO_TAGS: Final = Tags()


def tags_in(url: str) -> Tags:
    """The first value of each tag in `url` that is not blank; of several click ids, the first.

    The query comes first, then the part behind `#`: link builders have an option that puts the parameters there.
    """
    if "=" not in url:
        return NO_TAGS
    address, _, fragment = url.partition("#")
    found: dict[str, str] = {}
    for parameters in (address.partition("?")[2], fragment):
        for written, value in _TAG.findall(parameters):
            name = written.lower()
            if name not in found and (text := _decode(value, MAX_TAG_BYTES[name])) is not None:
                found[name] = text
    if not found:
        return NO_TAGS
    get = found.get
    click = next((name for name in found if name in CLICK_ID_SOURCES), "")
    return Tags(
        get("utm_campaign"), get("utm_source"), get("utm_medium"), get("utm_term"), get("utm_content"), get(click),
        CLICK_ID_SOURCES.get(click),
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _decode(value: str, max_bytes: int) -> str | None:
    text = _text_of(unquote_to_bytes(storable_text(value.replace("+", " "))))
    return cut_text(storable_text(text.strip()), max_bytes).strip() or None


def _text_of(raw: bytes) -> str:
    """The text in `raw`: UTF-8, also damaged, or the Windows code page of old pages (`caf%E9`)."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
    is_damaged = any(character > "\x7f" and character != _REPLACED for character in text)
    return text if is_damaged else raw.decode("cp1252", "replace")
