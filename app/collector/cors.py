"""The CORS headers of every answer: without them a page cannot see the status, and a browser may drop the request."""

import re
from collections.abc import Collection, Mapping
from typing import Final

from app.collector.write_keys import KEY_HEADER

_HEADERS: Final = f"Content-Type, {KEY_HEADER}, Content-Encoding"
PREFLIGHT: Final[Mapping[str, str]] = {
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": _HEADERS,
    "Access-Control-Max-Age": "86400",
}
TAG_PREFLIGHT: Final[Mapping[str, str]] = {
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
    "Access-Control-Allow-Headers": f"{_HEADERS}, Authorization, SP-Anonymous, X-Retry-Count",
    "Access-Control-Max-Age": "86400",
}
"""For the paths of other tags: with the headers that their trackers send."""
_ANY: Final = "*"
_EXPOSED: Final = "Retry-After"
_ORIGIN: Final = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]{1,255}")


def cors_headers(allowed: Collection[str], origin: str | None) -> dict[str, str]:
    """The headers that let a page of `origin` read an answer.

    `navigator.sendBeacon` and `fetch` with `credentials: "include"` send a request with credentials. A browser then refuses
    `*` and wants the origin itself, with Access-Control-Allow-Credentials; at a preflight it refuses before the events are
    sent. No answer depends on a cookie, so an answer with credentials tells a page nothing more.

    Args:
        allowed: ALLOWED_ORIGINS.
        origin: the request's Origin header; None without one, or if the request could not be read.

    Source: Fetch standard, "CORS check" and "HTTP responses".
    """
    headers = {"Vary": "Origin", "Access-Control-Expose-Headers": _EXPOSED}
    if origin is None:
        return {**headers, "Access-Control-Allow-Origin": _ANY} if _ANY in allowed else headers
    if _ORIGIN.fullmatch(origin) and (origin in allowed or _ANY in allowed):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers
