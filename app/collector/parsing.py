"""Parses request bodies: small ones at once, others one after the other in a thread of their own.

Batches are sealed in other threads (`app.collector.batcher`), so hostile bodies delay no batch that is already gathered. The
queue is short: a client that is told 503 comes again, and one that waits for minutes holds memory.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from app.clock import Clock
from app.collector.budget import Reservation
from app.collector.metrics import PARSING
from app.collector.requests import BodyLimits, RequestBody, begin_lines, finish_lines, is_little, read_lines
from app.core.events.client_lines import LineReader
from app.core.formats.stored_line import PackedLines
from app.errors import RequestRejected
from app.settings import Settings

INLINE_BYTES: Final = 16 * 1024
INLINE_UNITS: Final = 5_000
"""A body of more units (`WorkLimit`) is read in the thread: it would hold up the event loop for milliseconds."""
QUICK_BYTES: Final = 64 * 1024
"""A body that kernels read in a fraction of a millisecond."""
MOST_WAITING: Final = 64
RETRY_AFTER_S: Final = 2


class _Readers(NamedTuple):
    of_loop: LineReader
    of_thread: LineReader


class Parsing:
    """The queue of bodies, and its one thread: a second one would only compete for the interpreter."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._limits = BodyLimits(settings.max_decompressed_bytes, settings.max_lines)
        self._timeout_s = settings.parse_timeout_s
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._waiting = 0
        self._kernels = _Readers(LineReader(), LineReader()) if settings.kernels else None

    async def read(self, sent: RequestBody, held: Reservation) -> PackedLines:
        """The request's lines in their stored form.

        Raises:
            RequestRejected: as `read_lines`; 503 if too many requests wait, or if this one is not parsed in time.
        """
        if self._kernels is None:
            if _is_small(sent):
                return read_lines(sent, held, self._limits)
            return await self._in_thread(read_lines, sent, held, self._limits)
        if not _is_quick(sent):
            return await self._in_thread(read_lines, sent, held, self._limits, reader=self._kernels.of_thread)
        begun = begin_lines(sent, held, self._limits, _no_check, self._kernels.of_loop)
        if begun.is_small(INLINE_BYTES, INLINE_UNITS):
            return finish_lines(begun, sent, held, self._limits, _no_check)
        return await self._in_thread(partial(finish_lines, begun), sent, held, self._limits)

    async def _in_thread(self, read: Callable[..., PackedLines], *arguments: object, **more: object) -> PackedLines:
        """Run `read` in the thread, with the check of the deadline as its last argument."""
        if self._waiting > MOST_WAITING:
            raise RequestRejected(503, "overloaded", "too many requests wait for the parser", RETRY_AFTER_S)
        self._count(1)
        deadline_s = self._clock.monotonic_s() + self._timeout_s

        def check() -> None:
            if self._clock.monotonic_s() > deadline_s:
                raise RequestRejected(503, "overloaded", "the parser is busy; the request was not read", RETRY_AFTER_S)

        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, partial(read, *arguments, check, **more))
        finally:
            self._count(-1)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _count(self, by: int) -> None:
        self._waiting += by
        PARSING.set(self._waiting)


def _is_small(sent: RequestBody) -> bool:
    """Whether a body is read at once, line by line."""
    return not sent.is_gzip and is_little(sent.body, INLINE_BYTES, INLINE_UNITS)


def _is_quick(sent: RequestBody) -> bool:
    """Whether a body is read at once by kernels, and what they doubt then as `_is_small` says."""
    return not sent.is_gzip and len(sent.body) <= QUICK_BYTES


def _no_check() -> None:
    """A body that is read at once has no deadline."""
