"""One request: its key is checked, its body is read within bounds, its lines are parsed."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

import aiohttp
from aiohttp import web

from app.collector.budget import Reservation
from app.collector.write_keys import KEY_HEADER
from app.core.events.fields import KeyKind
from app.core.events.gzip_body import gunzip, is_gzip
from app.core.events.parse import parse_line
from app.core.events.request_body import (
    WORK_OF_FAULT,
    WORK_PER_LINE,
    WorkLimit,
    count_values,
    split_body,
    too_complex,
)
from app.core.formats.stored_line import StoredLine
from app.errors import RequestRejected

LINE_OVERHEAD_BYTES: Final = 256
"""Memory that Python needs for a line beside its bytes."""
_COUNT_EVERY_BYTES: Final = 32 * 1024
_RETRY_AFTER_S: Final = 1


def shown_key(request: web.Request) -> str:
    """The write key that a client shows, or an empty text."""
    return request.headers.get(KEY_HEADER) or request.query.get("key") or ""


def check_encoding(request: web.Request) -> None:
    """See that a body is not compressed by anything but gzip; its first bytes say whether it is.

    Raises:
        RequestRejected: 415.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise RequestRejected(415, "unsupported_encoding", f"Content-Encoding {encoding!r}; send gzip or none")


def is_validation(request: web.Request) -> bool:
    """Whether the client asks for the answer alone, with `?validate=1`.

    Raises:
        RequestRejected: 400 for another value: the client may believe that nothing is kept.
    """
    value = request.query.get("validate", "0")
    if value not in ("0", "1"):
        raise RequestRejected(400, "invalid_query", "validate must be 1, or 0 for a request that is kept")
    return value == "1"


async def read_body(request: web.Request, held: Reservation, max_bytes: int, timeout_s: float) -> bytes:
    """The body as sent, still compressed; counted in `held` while it arrives.

    Raises:
        RequestRejected: 413 too long, 400 broken off, 503 too slow or no room for it.
    """
    too_large = RequestRejected(413, "too_large", f"the body is longer than {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > max_bytes:
                    raise too_large
                held.grow(2 * len(piece))  # the pieces, and the whole that they are joined to
                pieces.append(piece)
    except TimeoutError as exc:
        raise RequestRejected(503, "slow_body", f"the body took longer than {timeout_s:g} s", _RETRY_AFTER_S) from exc
    except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError) as exc:
        raise RequestRejected(400, "incomplete_body", f"the body broke off: {exc}") from exc
    body = b"".join(pieces)
    pieces.clear()
    held.become(size)
    return body


class RequestBody(NamedTuple):
    """A request's body, with its client and its time."""

    body: bytes
    content_type: str
    kind: KeyKind
    received_at_ms: int
    ip: str | None
    user_agent: str | None

    @property
    def is_gzip(self) -> bool:
        """Whether the body is compressed, whatever its header says."""
        return is_gzip(self.body)


class BodyLimits(NamedTuple):
    """The operator's limits of one request."""

    content_bytes: int
    lines: int


def read_lines(
    sent: RequestBody, held: Reservation, limits: BodyLimits, check: Callable[[], None] = lambda: None
) -> list[StoredLine]:
    """The request's lines in their stored form.

    While it works, `held` counts the body, its content, the cut lines and the stored lines, as all of them are in memory;
    afterwards it counts the stored lines alone.

    Args:
        sent: the request.
        held: the memory of the request.
        limits: the operator's limits; those of `WorkLimit` hold too.
        check: called again and again; it raises to stop.

    Raises:
        RequestRejected: 400, 413, 415 as `gunzip` and `split_body`; 413, too many faults; 503, no room; and as `check`.
    """
    check()
    limit = WorkLimit.of(len(sent.body), limits.content_bytes)
    body = gunzip(sent.body, limit.content_bytes, lambda size: held.grow(2 * size)) if sent.is_gzip else sent.body
    if len(body) > limits.content_bytes:
        raise RequestRejected(413, "too_large", f"the body is longer than {limits.content_bytes} bytes")
    if not sent.is_gzip:
        held.grow(len(body))
    check()
    lines: list[StoredLine] = []
    stored_bytes = uncounted_bytes = 0
    cut = split_body(sent.content_type, body, limits.lines, limit.units)
    left = limit.units - count_values(body) - WORK_PER_LINE * len(cut)
    for line in cut:
        stored = parse_line(line, sent.kind, sent.received_at_ms, sent.ip, sent.user_agent)
        if stored.is_mended or not stored.valid:
            left -= WORK_OF_FAULT
            if left < 0:
                raise too_complex()
        lines.append(stored)
        uncounted_bytes += len(stored.data) + len(stored.key) + LINE_OVERHEAD_BYTES
        if uncounted_bytes > _COUNT_EVERY_BYTES:
            check()
            held.grow(uncounted_bytes)
            stored_bytes, uncounted_bytes = stored_bytes + uncounted_bytes, 0
    held.become(stored_bytes + uncounted_bytes)
    return lines
