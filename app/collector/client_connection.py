"""One connection of a client, as aiohttp's protocol with bounds: on the head, on the waits, and on what is logged.

aiohttp bounds one header, not their sum; it keeps a connection that sends nothing for an hour, and logs each request that it
cannot read with a traceback and the bytes. `app.collector.connections` has the bounds and the states of a connection.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from app.collector.answers import error_answer, raw_error_answer
from app.collector.connections import Connections
from app.collector.cors import cors_headers
from app.collector.metrics import CONNECTIONS_CLOSED, REQUESTS

MAX_HEAD_BYTES: Final = 16 * 1024
"""Longest request line with all headers. Each is in memory twice, as bytes and as text."""
MAX_HEADERS: Final = 100
MAX_FIELD_BYTES: Final = 8 * 1024
MAX_PIPELINED: Final = 8
"""Most requests of one connection that wait behind the one in hand. Browsers do not pipeline."""
_SLICE_BYTES: Final = 16 * 1024
"""The parser gets so much at once. It keeps what it does not read yet, and an event loop reads 256 KiB at once."""
_TOO_LARGE: Final = (
    "headers_too_large",
    f"the request's head is longer than {MAX_HEAD_BYTES} bytes or has too many headers",
)
_BAD: Final = ("bad_request", "the request is not HTTP/1.1 as this server reads it")
_INTERNAL: Final = ("internal", "the request could not be handled; send the same events again")


class HeadTooLarge(LineTooLong):
    """The head, or the heads that wait, are longer than they may be."""


class ClientConnection(RequestHandler):
    """aiohttp's connection with bounds on its head, on its waits, and on what it logs."""

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._connections = connections
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._head_bytes = 0
        self._answered = 0
        self._is_deaf = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # --- aiohttp's events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it with 503."""
        if self._connections.admit(self):
            super().connection_made(transport)
            self._await_head()
            return
        self._is_deaf = self._force_close = True
        refusing = cast(asyncio.Transport, transport)
        cors = cors_headers(self._connections.bounds.allowed_origins, None)
        refusing.write(raw_error_answer("overloaded", "too many connections; try again", cors))
        refusing.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.forget(self)
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give the parser a slice at a time; stop at a head that is too long, or at too many requests at once."""
        if len(data) <= _SLICE_BYTES:
            self._receive(data)
            return
        for at in range(0, len(data), _SLICE_BYTES):
            self._receive(data[at : at + _SLICE_BYTES])

    def pause_writing(self) -> None:
        """The client does not read: it has some time to begin."""
        super().pause_writing()
        self._unread_timer = self._loop.call_later(self._connections.bounds.unread_timeout_s, self.end, "unread")

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def end(self, reason: str) -> None:
        """Cut the connection off; what it has sent and what it has not read is gone."""
        CONNECTIONS_CLOSED.labels(reason).inc()
        self._is_deaf = True
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    # --- the head

    def _receive(self, data: bytes) -> None:
        if self._is_deaf:
            return
        count, is_head = self._request_count, self._payload.is_eof()
        super().data_received(data)
        if come := self._request_count - count:
            self._take(come)
            self._move()
        elif is_head:
            if data:
                self._grow_head(len(data))
        elif self._payload.is_eof():
            self._move()

    def _take(self, come: int) -> None:
        """Look at the heads of the requests that have just come."""
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        for message, payload in list(self._messages)[-come:]:
            if isinstance(message, _ErrInfo):
                self._is_deaf = True
                if not self._payload.is_eof():  # aiohttp's parser drops a body with bad chunks; its reader would wait
                    self._payload.set_exception(RequestPayloadError("the body's chunks cannot be read"))
                return
            head_bytes = len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)
            if head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
                return
            self._payload = payload
        if len(self._messages) > MAX_PIPELINED:
            self._refuse_head()

    def _grow_head(self, by_bytes: int) -> None:
        self._head_bytes += by_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._connections.bounds.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        self.end("slow_head" if self._head_bytes else "silent")

    def _refuse_head(self) -> None:
        """Answer 400 behind the request in hand; the requests that wait, and what else comes, are not read."""
        self._is_deaf = True
        error = HeadTooLarge(b"", MAX_HEAD_BYTES)
        self._messages.clear()
        self._messages.append((_ErrInfo(400, error, error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _move(self) -> None:
        is_handling = self._request_count > self._answered
        self._connections.moves(self, idle=not is_handling, sending=is_handling and not self._payload.is_eof())

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._unread_timer = None

    # --- requests and their errors

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self._answered += 1
            self._move()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that cannot be read; nothing of its content is logged or answered."""
        del message
        if status == 400:
            too_large = isinstance(exc, LineTooLong) or "Too many headers" in getattr(exc, "message", "")
            code, detail = _TOO_LARGE if too_large else _BAD
        else:
            status, (code, detail) = 503, _INTERNAL
        self._connections.faults.note(code, "see the client's address at the load balancer; nothing was kept")
        if request.writer.output_size > 0:
            raise ConnectionError("a part of an answer is already sent")
        REQUESTS.labels("other", status).inc()
        cors = cors_headers(self._connections.bounds.allowed_origins, request.headers.get("Origin"))
        answer = error_answer(status, code, detail, cors)
        answer.force_close()
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line now and then in the place of a traceback with the client's bytes."""
        del args
        error = kw.get("exc_info")
        kind = (
            "connection" if isinstance(error, OSError | web.RequestPayloadError | web.PayloadAccessError) else "unforeseen"
        )
        self._connections.faults.note(kind, f"last: {type(error).__name__}")


class _Server(web.Server):
    def __init__(self, connections: Connections, inner: web.Server) -> None:
        super().__init__(inner.request_handler, request_factory=inner.request_factory, **inner._kwargs)
        self._guard = connections

    def __call__(self) -> RequestHandler:
        return ClientConnection(self._guard, self, loop=self._loop, **self._kwargs)


class CollectorRunner(web.AppRunner):
    """Runs an application behind bounded connections."""

    def __init__(self, app: web.Application, connections: Connections, **options: Any) -> None:
        super().__init__(
            app, max_line_size=MAX_FIELD_BYTES, max_field_size=MAX_FIELD_BYTES, max_headers=MAX_HEADERS, **options
        )
        self.connections = connections

    async def _make_server(self) -> web.Server:
        return _Server(self.connections, await super()._make_server())
