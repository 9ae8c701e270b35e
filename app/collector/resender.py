"""Puts blocks that Kinesis refused again; in the background, within bounds of bytes and age.

The batch is in S3 and in the registry by then, so a block that is dropped here is found and sent again by the audit.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

import structlog

from app.adapters.ports import BlockStream
from app.clock import Clock
from app.collector.metrics import PUT_FAILURES, RESEND_BYTES, RESEND_DROPPED
from app.core.backoff import Backoff

log = structlog.get_logger(__name__)

BACKOFF: Final = Backoff(first_s=0.1, longest_s=10.0)
"""Before each put; grows while Kinesis takes nothing at all."""
RECORDS_PER_PUT: Final = 100


class _WaitingBlock(NamedTuple):
    block: bytes
    since_s: float


class Resender:
    """A bounded queue of blocks and the one loop that puts them."""

    def __init__(self, stream: BlockStream, clock: Clock, random_bytes: Callable[[int], bytes], bounds: tuple[int, float]):
        """Bound the queue by bytes and by age in seconds."""
        self._stream = stream
        self._clock = clock
        self._random_bytes = random_bytes
        self._max_bytes, self._max_age_s = bounds
        self._queue: deque[_WaitingBlock] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of blocks that wait."""
        return self._bytes

    def add(self, blocks: Sequence[bytes]) -> None:
        """Queue blocks that Kinesis did not take; those beyond the bound are dropped, with a log and a count."""
        since_s = self._clock.monotonic_s()
        for number, block in enumerate(blocks):
            if self._bytes + len(block) > self._max_bytes:
                self._drop("full", len(blocks) - number)
                break
            self._bytes += len(block)
            self._queue.append(_WaitingBlock(block, since_s))
        RESEND_BYTES.set(self._bytes)
        if self._queue:
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Put waiting blocks, for ever; only failed records again, with backoff and jitter."""
        fruitless = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(BACKOFF.pause_s(fruitless + 1, self._random_bytes(1)[0] / 255))
            fruitless = 0 if await self._put_once() else fruitless + 1
            if not self._queue:
                self._wake.clear()
                self._idle.set()

    async def _put_once(self) -> bool:
        """One put of the oldest blocks; whether Kinesis took any of them."""
        oldest_s = self._clock.monotonic_s() - self._max_age_s
        expired = 0
        while self._queue and self._queue[0].since_s < oldest_s:
            self._bytes -= len(self._queue.popleft().block)
            expired += 1
        if expired:
            self._drop("old", expired)
        head = list(islice(self._queue, RECORDS_PER_PUT))
        failed = await put_blocks(self._stream, [waiting.block for waiting in head])
        for _ in head:
            self._queue.popleft()
        self._queue.extendleft(head[number] for number in reversed(failed))
        taken = len(head) - len(failed)
        self._bytes = sum(len(waiting.block) for waiting in self._queue)
        RESEND_BYTES.set(self._bytes)
        return taken > 0

    async def drain(self, timeout_s: float) -> None:
        """Wait until the queue is empty, but no longer than the given time; the rest is left to the audit."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            self._drop("shutdown", len(self._queue))

    def _drop(self, reason: str, blocks: int) -> None:
        RESEND_DROPPED.labels(reason).inc(blocks)
        log.warning("blocks left to the audit", reason=reason, blocks=blocks)


async def put_blocks(stream: BlockStream, blocks: Sequence[bytes]) -> list[int]:
    """One put; the numbers of the blocks that Kinesis did not take."""
    if not blocks:
        return []
    try:
        outcomes = await stream.put(blocks)
    except Exception:  # the batch is durable and its client must get a 200: any error is tried again like a refusal
        log.exception("kinesis put failed", blocks=len(blocks))
        failed = list(range(len(blocks)))
    else:
        failed = [number for number, outcome in enumerate(outcomes) if outcome.error is not None]
        if failed:
            log.warning("kinesis refused blocks", refused=len(failed), of=len(blocks), error=outcomes[failed[0]].error)
    PUT_FAILURES.labels("kinesis").inc(len(failed))
    return failed
