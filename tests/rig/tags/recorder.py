"""A proxy between a browser and a collector: it keeps what it passes on, and loses one answer."""

import base64
from typing import Any, Final

import aiohttp
from aiohttp import web

KEPT_HEADERS: Final = ("Content-Type", "Authorization", "SP-Anonymous")
_PASSED_ON: Final = (*KEPT_HEADERS, "Origin", "User-Agent", "Cookie", "X-Retry-Count", "Access-Control-Request-Headers")
_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "transfer-encoding", "date", "server", "content-encoding"})
LOST: Final = "/com.snowplowanalytics.snowplow/tp2"
"""The first answer of this path is lost: its events are kept, and the tracker is told 503."""


class Recorder:
    """Passes requests on to a collector."""

    def __init__(self, collector: str) -> None:
        self._collector = collector
        self.requests: list[dict[str, Any]] = []
        """Each request but preflights: page, method, path, headers, body, status."""
        self.lost = 0

    async def pass_on(self, request: web.Request) -> web.Response:
        """One request and its answer."""
        body = await request.read()
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self._collector + str(request.rel_url), data=body, headers=headers, allow_redirects=False
            ) as answer,
        ):
            content = await answer.read()
            told = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            status = answer.status
        if request.method != "OPTIONS":
            self.requests.append(
                {
                    "method": request.method,
                    "path": str(request.rel_url),
                    "headers": {name: headers[name] for name in KEPT_HEADERS if name in headers},
                    "body": body.decode() if body.isascii() else base64.b64encode(body).decode(),
                    "status": status,
                }
            )
            if request.path == LOST and status == 200 and not self.lost:
                self.lost += 1
                status = 503
        return web.Response(body=content, status=status, headers=told)
