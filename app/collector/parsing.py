"""Parses request bodies: small ones at once, others one after the other in a thread of their own.

Batches are sealed in other threads (`app.collector.batcher`), so hostile bodies delay no batch that is already gathered. The
queue is short: a client that is told 503 comes again, and one that waits for minutes holds memory.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from app.clock import Clock
from app.collector.budget import Reservation
from app.collector.metrics import PARSING
from app.collector.requests import BodyLimits, RequestBody, read_lines
from app.core.events.request_body import WORK_PER_LINE, count_values
from app.core.formats.stored_line import StoredLine
from app.errors import RequestRejected
from app.settings import Settings

INLINE_BYTES: Final = 16 * 1024
INLINE_UNITS: Final = 5_000
"""A body of more units (`WorkLimit`) is read in the thread: it would hold up the event loop for milliseconds."""
MOST_WAITING: Final = 64
RETRY_AFTER_S: Final = 2


class Parsing:
    """The queue of bodies, and its one thread: a second one would only compete for the interpreter."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._limits = BodyLimits(settings.max_decompressed_bytes, settings.max_lines)
        self._timeout_s = settings.parse_timeout_s
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parse")
        self._waiting = 0

    async def read(self, sent: RequestBody, held: Reservation) -> list[StoredLine]:
        """The request's lines in their stored form.

        Raises:
            RequestRejected: as `read_lines`; 503 if too many requests wait, or if this one is not parsed in time.
        """
        if _is_small(sent):
            return read_lines(sent, held, self._limits)
        if self._waiting > MOST_WAITING:
            raise RequestRejected(503, "overloaded", "too many requests wait for the parser", RETRY_AFTER_S)
        self._count(1)
        deadline_s = self._clock.monotonic_s() + self._timeout_s

        def check() -> None:
            if self._clock.monotonic_s() > deadline_s:
                raise RequestRejected(503, "overloaded", "the parser is busy; the request was not read", RETRY_AFTER_S)

        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, read_lines, sent, held, self._limits, check)
        finally:
            self._count(-1)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _count(self, by: int) -> None:
        self._waiting += by
        PARSING.set(self._waiting)


def _is_small(sent: RequestBody) -> bool:
    body = sent.body
    if sent.is_gzip or len(body) > INLINE_BYTES:
        return False
    return count_values(body) + WORK_PER_LINE * body.count(b"\n") <= INLINE_UNITS
