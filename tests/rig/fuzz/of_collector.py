"""Targets: whole HTTP requests against the real collector, in this process, over the twins in memory."""

import asyncio
import base64
import contextlib
import gzip
import json
import logging
from typing import Any, Final
from urllib.parse import urlencode

from tests.builders.foreign import base64url, payload_data, segment, self_describing, snowplow
from tests.rig.fuzz.of_lines import ARRAY, LINES, NDJSON
from tests.rig.fuzz.target import Target, Wrong
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import HANGS_S

REQUESTS_OF_A_WORLD: Final = 300
"""The twins keep everything, so a collector is replaced from time to time."""
_HEAD_ENDS: Final = b"\r\n\r\n"
_BASIC: Final = "Authorization: Basic " + base64.b64encode(b"demo:").decode()


def _request(
    body: bytes, content_type: str, *fields: str, target: str = "/v1/events?key=demo", method: str = "POST"
) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Type: {content_type}", "User-Agent: Mozilla/5.0 X", *fields]
    return "\r\n".join(head).encode() + _HEAD_ENDS + body


REQUESTS: Final = (
    _request(ARRAY, "application/json; charset=utf-8", "Origin: https://news.example"),
    _request(
        LINES[0], "application/json", "X-Write-Key: back", "X-Forwarded-For: 203.0.113.9, [2001:db8::1]:443",
        target="/v1/events",
    ),
    _request(NDJSON, "application/x-ndjson", "X-Write-Key: demo", target="/v1/events"),
    _request(NDJSON, "text/plain"),
    _request(gzip.compress(NDJSON, mtime=0), "text/plain", "Content-Encoding: gzip"),
    _request(b"", "text/plain", "Access-Control-Request-Method: POST", "Origin: null", method="OPTIONS"),
    _request(b"", "text/plain", target="/ready", method="GET"),
    _request(
        payload_data(snowplow("pv"), snowplow("pp"), snowplow("ue", ue_px=base64url(self_describing("ad_click", {})))),
        "application/json", target="/com.snowplowanalytics.snowplow/tp2",
    ),
    _request(b"", "text/plain", "Cookie: vid=v", target=f"/i?{urlencode(snowplow('pv'))}", method="GET"),
    _request(b"", "text/plain", target="/v1/p.gif?key=demo&url=https%3A%2F%2Fa.example&page_view_id=v", method="GET"),
    _request(json.dumps({"batch": [segment("page"), segment("alias")]}).encode(), "text/plain", target="/v1/b"),
    _request(json.dumps(segment("track", event="Ad Viewed")).encode(), "text/plain", _BASIC, target="/v1/t"),
)  # fmt: skip
"""Without a length: it is put in when the bytes are sent, so that damage to a body is no damage to the request."""
FRAMED: Final = (
    *(request.replace(_HEAD_ENDS, b"\r\nContent-Length: %d" % len(request.partition(_HEAD_ENDS)[2]) + _HEAD_ENDS, 1)
      for request in REQUESTS[:5]),
    _request(b"5\r\n{\"a\":\r\n2;x=y\r\n1}\r\n0\r\n\r\n", "application/json", "Transfer-Encoding: chunked"),
    _request(b"", "text/plain", "Expect: 100-continue", "Content-Length: 2") + b"{}",
    _request(b"", "text/plain", "Connection: Upgrade", "Upgrade: websocket"),
)  # fmt: skip
"""Whole requests, byte by byte."""


class _Errors(logging.Handler):
    """Keeps what aiohttp and asyncio log as an error: both pass an exception over that nobody handled."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()}: {type(exc).__name__}: {exc}")


class _Served:
    """A collector that runs as long as cases are played; made at the first case, replaced from time to time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = contextlib.AsyncExitStack()
        self._served = 0
        self._world: CollectorWorld | None = None
        self._errors = _Errors()

    def whole(self, data: bytes) -> None:
        """A request of the right length; it must be answered, and not with "internal"."""
        head, ends, body = data.partition(_HEAD_ENDS)
        head = b"\r\n".join(
            line for line in head.split(b"\r\n") if not line.lower().startswith((b"content-length", b"expect"))
        )
        self._serve(
            head + b"\r\nConnection: close\r\nContent-Length: %d" % len(body) + (ends or _HEAD_ENDS) + body, is_whole=True
        )

    def framed(self, data: bytes) -> None:
        """Any bytes; the connection ends behind them, and the next client is served."""
        self._serve(data, is_whole=False)

    def _serve(self, data: bytes, *, is_whole: bool) -> None:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        try:
            self._loop.run_until_complete(self._play(data, is_whole=is_whole))
        except Wrong:
            raise
        except BaseException:  # the loop may stand anywhere, so the next case gets another one
            self._loop, self._world, self._running = None, None, contextlib.AsyncExitStack()
            raise

    async def _play(self, data: bytes, *, is_whole: bool) -> None:
        world = await self._fresh_world()
        self._errors.found.clear()
        answer = await _exchange(world.port, data, is_whole=is_whole)
        if is_whole and not answer.startswith(b"HTTP/"):
            raise Wrong(f"answered with {answer[:100]!r}")
        _judge(answer)
        if not is_whole:
            _judge(await _exchange(world.port, _HONEST, is_whole=True), must_be=b"200")
        if self._errors.found:
            raise Wrong("; ".join(self._errors.found[:3]))

    async def _fresh_world(self) -> CollectorWorld:
        self._served += 1
        if self._world is None or self._served % REQUESTS_OF_A_WORLD == 0:
            await self._running.aclose()
            asyncio.get_running_loop().set_exception_handler(lambda _, context: self._errors.found.append(str(context)))
            for name in ("aiohttp", "asyncio"):
                logging.getLogger(name).addHandler(self._errors)
            self._world = CollectorWorld(
                linger_ms=0, trusted_proxies=["127.0.0.1/32"], allowed_origins=["https://news.example"], visitor_cookie="vid"
            )
            await self._running.enter_async_context(self._world.running())
        return self._world


_HONEST: Final = FRAMED[2].replace(b"Host: x", b"Host: x\r\nConnection: close")


async def _exchange(port: int, data: bytes, *, is_whole: bool) -> bytes:
    """Everything that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if not is_whole:
            writer.write_eof()
        async with asyncio.timeout(HANGS_S):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _judge(answer: bytes, must_be: bytes = b"") -> None:
    head, _, body = answer.partition(_HEAD_ENDS)
    status = head[9:12]
    told: Any = None
    with contextlib.suppress(ValueError):
        told = json.loads(body)
    if (isinstance(told, dict) and told.get("error") == "internal") or status == b"500" or must_be not in status:
        raise Wrong(f"answered with {answer[:300]!r}")


_SERVED: Final = _Served()

TARGETS = (
    Target("collector.requests", REQUESTS, _SERVED.whole, weight=6),
    Target("collector.bytes", FRAMED, _SERVED.framed, weight=3),
)
