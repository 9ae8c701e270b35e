"""One request: its key is checked, its body is read within bounds, its lines are parsed."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import aiohttp
from aiohttp import web

from app.collector.budget import Reservation
from app.collector.tags import Translation, WorkBounds
from app.collector.write_keys import KEY_HEADER
from app.core.events.client_lines import Bounds, LineReader, ReadLines
from app.core.events.fields import KeyKind
from app.core.events.gzip_body import gunzip, is_gzip
from app.core.events.parse import Sender, parse_line_of
from app.core.events.request_body import (
    WORK_OF_FAULT,
    WORK_PER_LINE,
    WorkLimit,
    check_count,
    count_values,
    media_type,
    split_body,
    too_complex,
)
from app.core.formats.stored_line import LinePacker, PackedLines, StoredLine
from app.errors import RequestRejected

LINE_OVERHEAD_BYTES: Final = 16
"""Memory that a packed line needs beside its text: its size and its checksum."""
REQUEST_OVERHEAD_BYTES: Final = 1024
"""Memory of the objects that hold a request's packed lines."""
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
    translation: Translation | None = None
    """For events in the form of another tag; the key that it finds decides the kind."""

    @property
    def sender(self) -> Sender:
        """The sender of each line."""
        return Sender.of(self.kind, self.received_at_ms, self.ip, self.user_agent)

    @property
    def is_gzip(self) -> bool:
        """Whether the body is compressed, whatever its header says."""
        return is_gzip(self.body)


class BodyLimits(NamedTuple):
    """The operator's limits of one request."""

    content_bytes: int
    lines: int


class BegunLines(NamedTuple):
    """A request's content, and its lines as far as the kernels could read them."""

    content: bytes
    limit: WorkLimit
    read: ReadLines | None
    """None: the content is to be read line by line."""

    def is_small(self, most_bytes: int, most_units: int) -> bool:
        """Whether what is left to do is small: so many bytes are parsed line by line, at the cost of so many units."""
        if self.read is None:
            return is_little(self.content, most_bytes, most_units)
        return is_little(b"\n".join(self.read.doubts), most_bytes, most_units)


def is_little(content: bytes, most_bytes: int, most_units: int) -> bool:
    """Whether lines are at most so many bytes, and cost at most so many units (`WorkLimit`)."""
    return len(content) <= most_bytes and count_values(content) + WORK_PER_LINE * content.count(b"\n") <= most_units


def read_lines(
    sent: RequestBody,
    held: Reservation,
    limits: BodyLimits,
    check: Callable[[], None] = lambda: None,
    reader: LineReader | None = None,
) -> PackedLines:
    """The request's lines in their stored form.

    While it works, `held` counts the body, its content and the stored lines, as all of them are in memory; afterwards it
    counts the stored lines alone.

    Args:
        sent: the request.
        held: the memory of the request.
        limits: the operator's limits; those of `WorkLimit` hold too.
        check: called again and again; it raises to stop.
        reader: reads lines by kernels; None reads them one by one.

    Raises:
        RequestRejected: 400, 413, 415 as `gunzip` and `split_body`; 413, too many faults; 503, no room; and as `check`.
    """
    return finish_lines(begin_lines(sent, held, limits, check, reader), sent, held, limits, check)


def begin_lines(
    sent: RequestBody, held: Reservation, limits: BodyLimits, check: Callable[[], None], reader: LineReader | None
) -> BegunLines:
    """The part of `read_lines` that is done without an object for each line."""
    check()
    limit = WorkLimit.of(len(sent.body), limits.content_bytes)
    content = gunzip(sent.body, limit.content_bytes, lambda size: held.grow(2 * size)) if sent.is_gzip else sent.body
    if len(content) > limits.content_bytes:
        raise RequestRejected(413, "too_large", f"the body is longer than {limits.content_bytes} bytes")
    if not sent.is_gzip:
        held.grow(len(content))
    check()
    if reader is None or sent.translation is not None:
        return BegunLines(content, limit, None)

    def take(added_bytes: int) -> None:
        check()
        held.grow(added_bytes)

    name = media_type(sent.content_type)
    return BegunLines(content, limit, reader.read(name, content, sent.sender, Bounds(limits.lines, limit.units, take)))


def finish_lines(
    begun: BegunLines, sent: RequestBody, held: Reservation, limits: BodyLimits, check: Callable[[], None]
) -> PackedLines:
    """The part of `read_lines` that goes line by line."""
    content, limit, read = begun
    if sent.translation is not None:
        cut = sent.translation.cut(content, WorkBounds(limits.lines, limit.units), held, check)
        parser = _LineParser(sent._replace(kind=cut.kind).sender, cut.units_left, held, check)
        return _packed((sent.translation.name(each, parser.parse(each.line)) for each in cut.events), sent, held)
    if read is None:
        lines = split_body(sent.content_type, content, limits.lines, limit.units)
        count, values = len(lines), count_values(content)
    else:
        lines, count = read.doubts, read.line_count
        values = count_values(content) if read.values is None else read.values
        check_count(count, values, limits.lines, limit.units)
    parser = _LineParser(sent.sender, limit.units - values - WORK_PER_LINE * count, held, check)
    if read is None:
        return _packed(map(parser.parse, lines), sent, held)
    packed = read.pack(sent.received_at_ms, parser.parse)
    held.become(packed.held_bytes + REQUEST_OVERHEAD_BYTES)
    return packed


def _packed(lines: Iterable[StoredLine], sent: RequestBody, held: Reservation) -> PackedLines:
    """The stored lines of a request in one text, which is all that `held` counts then."""
    packer = LinePacker()
    for line in lines:
        packer.add(line)
    packed = packer.pack(sent.received_at_ms)
    held.become(packed.held_bytes + REQUEST_OVERHEAD_BYTES)
    return packed


class _LineParser:
    """Parses the lines of one request, within its work and its memory."""

    def __init__(self, sender: Sender, units: int, held: Reservation, check: Callable[[], None]) -> None:
        self._sender = sender
        self._left = units
        self._held = held
        self._check = check
        self._uncounted_bytes = 0

    def parse(self, line: bytes) -> StoredLine:
        """The stored form of one line; raises as `read_lines`."""
        stored = parse_line_of(line, self._sender)
        if stored.is_mended or not stored.valid:
            self._left -= WORK_OF_FAULT
            if self._left < 0:
                raise too_complex()
        self._uncounted_bytes += len(stored.data) + LINE_OVERHEAD_BYTES
        if self._uncounted_bytes > _COUNT_EVERY_BYTES:
            self._check()
            self._held.grow(self._uncounted_bytes)
            self._uncounted_bytes = 0
        return stored
