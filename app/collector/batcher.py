"""Gathers the lines of many requests into one batch and makes it durable before any of them is answered."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final, NamedTuple

import structlog

from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.clock import Clock
from app.collector import metrics
from app.collector.budget import MemoryBudget, Reservation
from app.collector.clock_guard import ClockGuard
from app.collector.resender import Resender, put_blocks
from app.collector.storage_health import NAMES
from app.core.backoff import Backoff
from app.core.formats.batch import (
    ID_RANDOM_BYTES,
    MAX_BATCH_LINES,
    SealedBatch,
    group_plainly,
    new_batch_id,
    seal_packed,
)
from app.core.formats.line_groups import group_by_kernel
from app.core.formats.stored_line import PackedLines
from app.errors import OutsideError, RequestRejected
from app.settings import Settings

log = structlog.get_logger(__name__)

BACKOFF: Final = Backoff(first_s=0.05, longest_s=2.0)
RETRY_AFTER_S: Final = 2
SEAL_INLINE_BYTES: Final = 64 * 1024
"""A smaller batch is sealed in less time than a thread takes to wake."""


class CollectorPorts(NamedTuple):
    """The services that the collector calls."""

    store: ObjectStore
    registry: Registry
    stream: BlockStream
    clock: Clock
    random_bytes: Callable[[int], bytes]


class _Gathering:
    """A batch that still takes requests."""

    def __init__(self, deadline_s: float) -> None:
        self.requests: list[PackedLines] = []
        self.lines = 0
        self.bytes = 0
        self.held: list[Reservation] = []
        self.deadline_s = deadline_s
        """Time on the event loop's clock when the oldest request's answer is due."""
        self._waiting: list[asyncio.Future[str]] = []
        """One future for each request. If a client goes away, only its own future is cancelled. A shared future would need a
        shield for each request, and every request would take two more turns of the loop."""
        self.timer: asyncio.TimerHandle | None = None

    def wait(self) -> "asyncio.Future[str]":
        """The future of one request: the batch's id once it is durable, or the reason why it is not."""
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return waiting

    def answer(self, batch_id: str) -> None:
        """The batch is durable; requests are answered in the order in which they came. A second call changes nothing."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(batch_id)

    def refuse(self, refusal: RequestRejected) -> None:
        """The batch is not known to be durable."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(refusal)

    def release(self) -> None:
        """Forget the lines and give back their memory."""
        self.requests = []
        for reservation in self.held:
            reservation.release()


class Batcher:
    """The open batch, and the batches on their way to storage; several may be in flight."""

    def __init__(
        self, settings: Settings, ports: CollectorPorts, budget: MemoryBudget, guard: ClockGuard, threads: Executor
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._budget = budget
        self._guard = guard
        self._threads = threads
        bounds = (settings.max_buffered_bytes // 4, settings.audit_grace_s)
        self.resender = Resender(ports.stream, ports.clock, ports.random_bytes, bounds)
        self._open: _Gathering | None = None
        self._last_id = ""
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, lines: PackedLines, held: Reservation) -> str:
        """Put all lines of a request into one batch and wait until it is durable; the batch's id.

        Args:
            lines: at most `MAX_BATCH_LINES`.
            held: the reserved memory of the lines; released with them.

        Raises:
            RequestRejected: 503, the batch may or may not have been kept.
        """
        if self._open is not None and self._open.lines + lines.line_count > MAX_BATCH_LINES:
            self.flush()
        if self._open is None:
            loop = asyncio.get_running_loop()
            self._open = _Gathering(loop.time() + self._settings.request_timeout_s)
            self._open.timer = loop.call_later(self._settings.linger_ms / 1000, self.flush)
        batch = self._open
        batch.requests.append(lines)
        batch.lines += lines.line_count
        batch.bytes += len(lines.text)
        batch.held.append(held)
        del lines  # this frame lives until the answer, the lines only until they are sealed
        answer = batch.wait()
        if self._is_draining or batch.bytes >= self._settings.batch_bytes:
            self.flush()
        return await answer

    def flush(self) -> None:
        """Close the open batch and start storing it."""
        batch, self._open = self._open, None
        if batch is not None:
            if batch.timer is not None:
                batch.timer.cancel()
            self._start(self._store(batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def drain(self) -> None:
        """From now on no batch lingers: requests still under way are stored as they come."""
        self._is_draining = True
        self.flush()

    async def close(self) -> None:
        """Finish every batch in flight, then give Kinesis some last seconds; the audit finds the blocks that it refuses."""
        self.drain()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.resender.drain(min(5.0, self._settings.request_timeout_s))

    async def _store(self, batch: _Gathering) -> None:
        """Make one batch durable and have its requests answered.

        The effects, in this order:

        1. PUT the raw file. A crash after it leaves a file that no registry item names and no answer mentioned: the audit
           reports it, never replays it; clients send again.
        2. Register. A crash after it leaves an open batch whose blocks never reached Kinesis: the audit puts them once
           AUDIT_GRACE_S has passed. Clients send again, and dedup drops the second copies.
        3. Put every block to Kinesis once, to the put's end. A crash after it leaves clients without an answer: they send
           again, dedup drops it. Refused blocks are put again in the background, and by the audit after a crash.
        4. Answer 200 with the batch's id.

        1 and 2 are repeated until the request timeout; repeating them does no harm. A 503 therefore says "may have been
        kept". When 3 takes longer than the timeout, 4 does not wait for it: the batch is durable.
        """
        held = self._budget.reserve()
        service = ""
        try:
            async with asyncio.timeout_at(batch.deadline_s):
                sealed = await self._seal(batch)
                batch.release()
                held.become(2 * len(sealed.raw))
                service = "s3"
                await self._insist("s3", held, lambda: self._ports.store.put(sealed.item.raw_key, sealed.raw))  # 1
                self._guard.check()  # the PUT's answer may be the first to show that the id's time is wrong
                service = "registry"
                await self._insist("registry", held, lambda: self._ports.registry.register(sealed.item))  # 2
        except Exception as exc:
            batch.release()
            held.release()
            batch.refuse(self._refusal(exc, service))
            metrics.BATCHES.labels("refused").inc()
            return
        _count(sealed)
        self._start(self._put(batch, sealed, held))  # 3 and 4

    async def _seal(self, batch: _Gathering) -> SealedBatch:
        clock, random_bytes = self._ports.clock, self._ports.random_bytes
        self._guard.check()
        batch_id = self._last_id = new_batch_id(clock.now_ms(), random_bytes(ID_RANDOM_BYTES), self._last_id)
        group = group_by_kernel if self._settings.kernels else group_plainly
        arguments = (batch_id, self._settings.epoch, self._settings.partitions, batch.requests, group)
        if batch.bytes <= SEAL_INLINE_BYTES:
            return seal_packed(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, seal_packed, *arguments)

    async def _insist(self, service: str, held: Reservation, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeat a harmless call with backoff until it succeeds; the caller's timeout ends it.

        A call that has begun in a thread goes on behind the timeout, and its bytes stay in memory and in `held`.
        """
        failures = 0
        while True:
            self._guard.health.asks(service, "write")
            calling = asyncio.create_task(call())
            try:
                await asyncio.shield(calling)
            except asyncio.CancelledError:
                calling.add_done_callback(partial(_end_late, held.hand_over()))
                raise
            except OutsideError as exc:
                failures += 1
                self._guard.health.failed(service, "write", exc.kind)
                metrics.PUT_FAILURES.labels(service).inc()
                log.warning("batch not stored yet", service=service, error=str(exc), retriable=exc.retriable)
                if not exc.retriable:
                    raise
            else:
                self._guard.health.succeeded(service, "write")
                return
            await asyncio.sleep(BACKOFF.pause_s(failures, self._ports.random_bytes(1)[0] / 255))

    def _refusal(self, exc: Exception, service: str) -> RequestRejected:
        """The answer to the waiting requests when their batch could not be made durable; it names the kind of failure."""
        if isinstance(exc, RequestRejected):
            return exc
        if isinstance(exc, TimeoutError | OutsideError):
            kind = exc.kind if isinstance(exc, OutsideError) else self._guard.health.gives_up(service)
            log.warning("batch refused", service=service, kind=kind, error=str(exc) or "timeout")
            detail = f"{NAMES[service]} fails: {kind}; send the same events again"
            return RequestRejected(503, "storage_unavailable", detail, RETRY_AFTER_S)
        log.error("batch failed", exc_info=exc)
        self._guard.health.failed(service, "write", type(exc).__name__)
        return RequestRejected(503, "internal", "the batch could not be stored; send the same events again", RETRY_AFTER_S)

    async def _put(self, batch: _Gathering, sealed: SealedBatch, held: Reservation) -> None:
        """Put the blocks to Kinesis and answer when the put has ended, well or badly.

        Answer at the deadline at the latest.
        """
        late = asyncio.get_running_loop().call_at(batch.deadline_s, batch.answer, sealed.batch_id)
        try:
            with held:
                failed = await put_blocks(self._ports.stream, sealed.blocks)
        finally:
            late.cancel()
            batch.answer(sealed.batch_id)
        if failed:
            self.resender.add([sealed.blocks[number] for number in failed])


def _end_late(held: Reservation, calling: "asyncio.Task[None]") -> None:
    """The call has ended, after its batch was given up: its memory is free. Its outcome no longer matters."""
    held.release()
    if not calling.cancelled():
        calling.exception()


def _count(sealed: SealedBatch) -> None:
    metrics.BATCHES.labels("durable").inc()
    metrics.BLOCKS.inc(len(sealed.blocks))
    metrics.BLOCKS_PER_BATCH.observe(len(sealed.blocks))
    for place in sealed.item.blocks:
        metrics.LINES_PER_BLOCK.observe(place.lines)
