"""The visitor's id in a cookie that the collector sets itself, and when it must not (VISITOR_COOKIE; off unless it is set).

Browsers cut the life of a cookie that a script sets to seven days; one that a server of the same site sets stays. The cookie
is `Secure`, `SameSite=Lax` and not `HttpOnly`: the page's own tracker reads the id and sends it in its events as
`visitor_id`, so an event is the same on every retry. The collector itself fills in the id only where no script of ours runs:
in events of other tags, and of a pixel, that name no visitor. The id says nothing but "the same browser". A script that
reads it learns no more than from the events that it sends.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from aiohttp import web

from app.settings import Settings

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO: Final = frozenset({"0", "false", "no", "denied"})
_ID_BYTES: Final = 16


class Visit(NamedTuple):
    """The visitor of one request."""

    visitor_id: str | None = None
    """The id in the cookie, or a new one; None if there may be none."""
    is_new: bool = False
    """Whether the answer sets the cookie."""
    is_withdrawn: bool = False
    """Whether the answer removes the cookie."""


class VisitorCookie:
    """Reads the cookie of requests, and sets and removes it in answers."""

    def __init__(self, settings: Settings, random_bytes: Callable[[int], bytes]) -> None:
        self._name = settings.visitor_cookie or ""
        self._domain = settings.visitor_cookie_domain
        self._max_age_s = settings.visitor_cookie_days * 24 * 3600
        self._random_bytes = random_bytes

    def visit(self, request: web.Request) -> Visit:
        """The visitor of a request; nobody if the cookie is off, or if the request refuses to be known."""
        if not self._name:
            return Visit()
        found = request.cookies.get(self._name)
        if refuses_ids(request):
            return Visit(is_withdrawn=found is not None)
        if found is not None and _ID.fullmatch(found):
            return Visit(found)
        return Visit(self._random_bytes(_ID_BYTES).hex(), is_new=True)

    def answer(self, visit: Visit, response: web.Response) -> web.Response:
        """The answer with what it says of the cookie. A later visit never prolongs the cookie's life."""
        if visit.is_new and visit.visitor_id is not None:
            self._set(response, visit.visitor_id, self._max_age_s)
        elif visit.is_withdrawn:
            self._set(response, "", 0)
        return response

    def _set(self, response: web.Response, value: str, max_age_s: int) -> None:
        response.set_cookie(
            self._name, value, max_age=max_age_s, domain=self._domain, path="/", secure=True, httponly=False, samesite="Lax"
        )


def refuses_ids(request: web.Request) -> bool:
    """Whether a request says that its visitor gets no id: by GPC, DNT, Snowplow's anonymous mode, or `consent=0`."""
    headers = request.headers
    return (
        headers.get("Sec-GPC") == "1"
        or headers.get("DNT") == "1"
        or is_anonymous(request)
        or request.query.get("consent", "").lower() in _NO
    )


def is_anonymous(request: web.Request) -> bool:
    """Whether a Snowplow tracker asks that neither the address nor an id of its visitor is kept."""
    return "SP-Anonymous" in request.headers
