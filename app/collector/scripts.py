"""`GET /t.js` and `GET /t-ads.js`: the tracker, from memory, in gzip for whoever takes it; and a page that shows it."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import ETag, hdrs, web
from aiohttp.helpers import ETAG_ANY

from app.tracker import EXAMPLE, Script, read_script

SCRIPT_PATHS: Final = ("/t.js", "/t-ads.js")
CACHE_CONTROL: Final = "public, max-age=3600, stale-while-revalidate=86400"
"""A browser uses a script for an hour without asking, and for a day more while it asks."""
CONTENT_TYPE: Final = "text/javascript"
_FOR_ANY_PAGE: Final = {
    hdrs.CACHE_CONTROL: CACHE_CONTROL,
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


def script_routes() -> list[web.RouteDef]:
    """The routes of the scripts; HEAD too."""
    return [web.get(path, _handler(read_script(path[1:]))) for path in SCRIPT_PATHS]


def example_routes() -> list[web.RouteDef]:
    """The route of the example page, which only the local stack serves."""
    page = (EXAMPLE / "index.html").read_bytes()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/html", charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-cache"})

    return [web.get("/example/", answer)]


def _handler(script: Script) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        is_zipped = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
        # Another representation is another entity: RFC 9110, section 8.8.1.
        etag = ETag(f"{script.etag}-gzip" if is_zipped else script.etag)
        known = request.if_none_match or ()
        if any(each.value in {etag.value, ETAG_ANY} for each in known):
            answer = web.Response(status=304, headers=_FOR_ANY_PAGE)
        else:
            body = script.zipped if is_zipped else script.text
            answer = web.Response(body=body, content_type=CONTENT_TYPE, charset="utf-8", headers=_FOR_ANY_PAGE)
            if is_zipped:
                answer.headers[hdrs.CONTENT_ENCODING] = "gzip"
        answer.etag = etag
        return answer

    return answer
