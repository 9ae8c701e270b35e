"""The campaign in a page's URL (rule J5).

URLs come from browsers and bots, so any text may be in them. No function here raises on any text.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from app.core.events.canonical_json import cut_text, storable_text

MAX_CAMPAIGN_BYTES: Final = 128
_NAME: Final = "utm_campaign"
_VALUE: Final = re.compile(r"(?:^|[?&])(?:amp;)?utm_campaign=([^&#]+)", re.IGNORECASE)
"""A value of the parameter. People write its name in both cases; `amp;` stands before it if a link was escaped twice."""
_ONLY: Final = re.compile(r"(?:utm_(?!c)[a-z]+=[^&#]*&)*utm_campaign=([^&#%+]+)")
"""The parameters of nearly every link with a campaign; the search takes a quarter of the time."""
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"


def campaign_of(url: str | None) -> str | None:
    """The first value of `utm_campaign` in `url` that is not blank, percent-decoded and trimmed; None if there is none.

    The query comes first, then the part behind `#`: link builders have an option that puts the parameters there.
    """
    if url is None or "=" not in url or _NAME not in url.lower():
        return None
    address, _, fragment = url.partition("#")
    query = address.partition("?")[2]
    campaign = _campaign_in(query) if query else None
    return _campaign_in(fragment) if campaign is None and fragment else campaign


def _campaign_in(parameters: str) -> str | None:
    found = _ONLY.fullmatch(parameters)
    if found:
        return _decode(found[1])
    campaigns = (_decode(value) for value in _VALUE.findall(parameters))
    return next((campaign for campaign in campaigns if campaign is not None), None)


@lru_cache(maxsize=4096)
def _decode(value: str) -> str | None:
    text = _text_of(unquote_to_bytes(storable_text(value.replace("+", " "))))
    return cut_text(storable_text(text.strip()), MAX_CAMPAIGN_BYTES).strip() or None


def _text_of(raw: bytes) -> str:
    """The text in `raw`: UTF-8, also damaged, or the Windows code page of old pages (`caf%E9`)."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("utf-8", "replace")
    is_damaged = any(character > "\x7f" and character != _REPLACED for character in text)
    return text if is_damaged else raw.decode("cp1252", "replace")
