"""The facts in a page's URL: host, path and tags (rule J5).

URLs come from browsers and bots, so any text may be in them. No function here raises on any text.
"""

import re
from typing import Final, NamedTuple

from app.core.enrich.referrers import full_host
from app.core.enrich.text import clean
from app.core.enrich.url_tags import NO_TAGS, tags_in

MAX_HOST_BYTES: Final = 256
_PLACE: Final = re.compile(r"[^/?#\\]*//([^/?#\\]*)([^?#]*)")
"""The authority and the path of an address."""
_PATH: Final = re.compile(r"/[^?#]*")
"""The path of an address that names no host."""


class PageUrl(NamedTuple):
    """The facts in a URL; None for each that it lacks."""

    host: str | None = None
    """In lower case and ASCII, without user and port."""
    path: str | None = None
    """As the URL has it, without query and fragment; `/` if the URL ends behind its host."""
    campaign: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    click_id: str | None = None
    click_id_source: str | None = None


NO_URL: Final = PageUrl()


def read_url(url: str | None) -> PageUrl:
    """The facts in `url`; none in a missing one."""
    if url is None:
        return NO_URL
    tags = tags_in(url) if "=" in url else NO_TAGS
    if found := _PLACE.match(url):
        return PageUrl(clean(full_host(found[1]), MAX_HOST_BYTES), found[2] or "/", *tags)
    path = _PATH.match(url)
    return PageUrl(None, path and path[0], *tags)
