"""One partition of the ETL: gather what waits, let the core decide, make the step durable (rules E1 to E6, E8).

Ordered effects of a step, one step in flight a partition (rule E3):

0. Copies of what it sets aside go to topic `dead-letters`, and the broker acknowledges them. A crash here: they are there
   and no step says so; the next owner decides the same from the same bytes, and sends them again. Each is known by its
   partition and offset, so that nobody takes the second for another one.
1. The step goes to `rows` and the broker acknowledges it. A crash here: the message counts or it does not; recovery reads
   the log and knows. Nothing else has happened.
2. The store takes it with everything it changes in one batch, if its offset is the next one; otherwise somebody else wrote
   (StepConflict): the worker ends and recovers. A crash after it: the source is read again, and dropped as applied.
3. The core goes on from it, and the source messages are acknowledged. The commits are a hint only (rule E4).

A message that a newer version wrote is no failure: what comes before it is stepped, and then the partition waits for the
ETL's upgrade (rule E10).
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from app.clock import Clock
from app.core.etl.decode import ANY_FAILURE
from app.core.etl.step import StepDecision
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import StepMessage, encode_step
from app.errors import DeadLettersExceeded, HistoryBroken, NewerFormat
from app.shell.runners import Inbox
from tables.store.position import StorePosition

log = structlog.get_logger(__name__)

HOLD_S: Final = 5.0
"""Longest time that ticks alone, closing nothing, wait for company (rule E6)."""
COMPANY_S: Final = 0.02
"""How long a few small messages wait for more, if they come less than that behind a step."""
SMALL_BYTES: Final = 64 * 1024
"""... and together are smaller than this."""
WAITING_LIMIT: Final = 256
"""Source messages in hand; a step takes the first of them."""
WAITING_BYTES: Final = 16 * 1024 * 1024
"""... and no more are taken in hand while these are as many bytes."""

STEPS: Final = Counter("instream_etl_steps_total", "Steps that counted")
STEP_SECONDS: Final = Histogram(
    "instream_etl_step_seconds", "Duration of a step's parts", ["part"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
STEP_BYTES: Final = Counter("instream_etl_step_bytes_total", "Bytes of step messages")
LINES: Final = Counter("instream_etl_lines_total", "Lines decided, by what became of them", ["outcome"])
DEAD_LETTERS: Final = Counter("instream_etl_dead_letters_total", "Source messages that cannot be read, set aside")
REPLAYS: Final = Counter("instream_etl_replays_total", "Blocks met again and dropped whole")
ALARMS: Final = Counter("instream_etl_alarms_total", "What an operator must hear of")
CAREFUL: Final = Counter("instream_etl_careful_steps_total", "Steps that failed twice and were taken line by line")
STREAM_TIME: Final = Gauge("instream_etl_stream_time_seconds", "A partition's stream time", ["partition"])


class StepCore(Protocol):
    """What decides: `app.core.etl.step.PartitionEtl`."""

    @property
    def leftover(self) -> bool:
        """Whether the last step left something due: the next one takes no messages, at once."""

    def take(self, waiting: Sequence[SourceMessage]) -> int:
        """How many of the waiting messages the next step takes; 0 while `leftover`."""

    def decide(
        self, messages: Sequence[SourceMessage], number: int, predecessor: int, *, careful: bool = False
    ) -> StepDecision:
        """The step that these messages make; changes nothing."""

    def declare_gap(self, first_available: int, number: int, predecessor: int) -> StepDecision:
        """The step that passes over source messages that are gone."""

    def advance(self, step: StepMessage) -> None:
        """Go on from a step that is durable."""


class StepState(Protocol):
    """The stores that follow topic `rows`, of a worker's partitions."""

    def position(self, partition: int) -> StorePosition:
        """How far the partition's store goes."""

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Apply the owner's own step, stored by the broker at `offset` (rule E3, 2). Raises StepConflict."""


class StepPorts(Protocol):
    """What makes the steps of partitions durable."""

    @property
    def state(self) -> StepState:
        """The stores."""

    @property
    def clock(self) -> Clock:
        """For how long ticks are held, and metrics."""

    def append(self, partition: int, message: bytes, /) -> Awaitable[int]:
        """Send a message to `rows`; its offset once every replica in sync has it.

        Raises:
            OutcomeUnknown: it may yet appear; recovery will know.
        """

    def send_dead_letters(self, partition: int, letters: Sequence[bytes], /) -> Awaitable[None]:
        """Send dead letters to their topic; returns once every replica in sync has them.

        Raises:
            OutcomeUnknown: the next owner sends them again.
        """


class EtlPartition:
    """The loop of one owned partition.

    Args:
        core: Decides; loaded from the partition's store.
        inbox: Source messages from the applied offset + 1 on.
        ports: Where steps go.
    """

    def __init__(self, core: StepCore, inbox: Inbox, ports: StepPorts) -> None:
        self._core = core
        self._inbox = inbox
        self._ports = ports
        self._clock = ports.clock
        self._waiting: list[SourceMessage] = []
        self._held_since_s: float | None = None
        self._stepped_at_s = float("-inf")

    async def run(self) -> None:
        """Step after step until the inbox closes."""
        try:
            await self._run()
        finally:
            STREAM_TIME.remove(self._inbox.partition)  # the next owner tells it

    async def _run(self) -> None:
        while not self._inbox.closing:
            if not self._core.leftover:
                await self._gather()
                if self._inbox.closing or not self._waiting:
                    continue
            taken, decision = self._next_step()
            if not decision.pressing and self._may_hold(taken):
                continue
            await self._make_durable(decision)

    async def declare_gap(self, first_available: int) -> None:
        """Step over source messages that retention has taken, with an alarm (rule E4)."""
        accepted = self._accepted()
        await self._make_durable(self._core.declare_gap(first_available, accepted.number + 1, accepted.offset))

    def _accepted(self) -> Accepted:
        """The last message that counted."""
        return self._ports.state.position(self._inbox.partition).accepted

    async def _gather(self) -> None:
        """Add what has come to what waits; wait only for the first message, and for company (`HOLD_S`, `COMPANY_S`)."""
        timeout_s: float | None = None
        if self._held_since_s is not None:
            timeout_s = max(0.0, self._held_since_s + HOLD_S - self._clock.monotonic_s())
        elif self._waiting:
            timeout_s = 0.0
        await self._take(timeout_s)
        if self._is_crowded():
            await asyncio.sleep(COMPANY_S)
            await self._take(0.0)

    async def _take(self, timeout_s: float | None) -> None:
        """Add what has come, as far as there is room."""
        if not self._is_full():
            room = WAITING_LIMIT - len(self._waiting)
            self._waiting += [_source(event) for event in await self._inbox.take(timeout_s, limit=room)]

    def _is_crowded(self) -> bool:
        """Whether small messages come so fast that the next are worth a short wait: a step by itself costs some 2 ms."""
        return (
            0 < len(self._waiting) < WAITING_LIMIT
            and self._clock.monotonic_s() - self._stepped_at_s < COMPANY_S
            and self._waiting_bytes() < SMALL_BYTES
        )

    def _is_full(self) -> bool:
        """Whether no more may be taken in hand."""
        return len(self._waiting) >= WAITING_LIMIT or self._waiting_bytes() >= WAITING_BYTES

    def _waiting_bytes(self) -> int:
        return sum(len(message.value) for message in self._waiting)

    def _may_hold(self, taken: int) -> bool:
        """Whether a step of ticks alone that closes nothing may wait for more; starts the wait."""
        if taken < len(self._waiting) or self._is_full():
            return False
        now_s = self._clock.monotonic_s()
        if self._held_since_s is None:
            self._held_since_s = now_s
        return now_s - self._held_since_s < HOLD_S

    def _next_step(self) -> tuple[int, StepDecision]:
        """The step that the waiting messages make, and how many of them it takes: those before a newer version's.

        Raises:
            NewerFormat: the first of them, or the state, is of a newer version.
        """
        readable: Sequence[SourceMessage] = self._waiting
        while True:
            taken = readable[:1]
            try:
                taken = readable[: self._core.take(readable)]
                return len(taken), self._decide(taken)
            except NewerFormat as exc:
                if len(readable) <= 1 or not taken:
                    tp = self._inbox.tp
                    place = f"{tp.topic}[{tp.partition}]"
                    raise NewerFormat(f"{place}@{taken[0].offset}: {exc}" if taken else f"state of {place}: {exc}") from exc
                readable = readable[: len(readable) // 2]  # found in a few tries: it may be any, or a line in one

    def _decide(self, messages: Sequence[SourceMessage]) -> StepDecision:
        """Ask the core; a step that fails twice is decided line by line (rule E6)."""
        accepted = self._accepted()
        with STEP_SECONDS.labels("decide").time():
            for attempt in (1, 2):
                try:
                    return self._core.decide(messages, accepted.number + 1, accepted.offset)
                except (HistoryBroken, DeadLettersExceeded, NewerFormat, MemoryError):
                    raise  # not to be mended by trying again
                except ANY_FAILURE:
                    log.exception("step failed", partition=self._inbox.partition, attempt=attempt, messages=len(messages))
            CAREFUL.inc()
            return self._core.decide(messages, accepted.number + 1, accepted.offset, careful=True)

    async def _make_durable(self, decision: StepDecision) -> None:
        """The effects, in order (module docstring)."""
        step = decision.message
        if decision.letters:
            await self._ports.send_dead_letters(self._inbox.partition, decision.letters)
        message = encode_step(step)
        with STEP_SECONDS.labels("append").time():
            offset = await self._ports.append(self._inbox.partition, message)
        with STEP_SECONDS.labels("commit").time():
            self._ports.state.commit(step, message, offset)
        self._core.advance(step)
        self._inbox.ack(step.source_last)
        self._waiting = [waiting for waiting in self._waiting if waiting.offset > step.source_last]
        self._held_since_s = None
        self._stepped_at_s = self._clock.monotonic_s()
        _observe(step, message)


def _source(event: Any) -> SourceMessage:
    message = event.message
    return SourceMessage(message.offset, round(message.timestamp * 1000), event.value or b"")  # a null is no block either


def _observe(step: StepMessage, message: bytes) -> None:
    """Count what a durable step was."""
    STEPS.inc()
    STEP_BYTES.inc(len(message))
    STREAM_TIME.labels(step.partition).set(step.stream_time_ms / 1000)
    decided: dict[str, int] = {}
    for entry in step.ledger:
        decided[entry.outcome] = decided.get(entry.outcome, 0) + entry.lines
    for outcome, lines in decided.items():
        LINES.labels(outcome).inc(lines)
    REPLAYS.inc(len(step.replays))
    for letter in step.dead_letters:
        DEAD_LETTERS.inc()
        log.error(
            "dead letter", partition=step.partition, step=step.number, offset=letter.offset, reason=letter.reason,
            batch_id=letter.batch_id, block=letter.block, attempt=letter.attempt,
        )  # fmt: skip
    for alarm in step.alarms:
        ALARMS.inc()
        log.error("alarm", partition=step.partition, step=step.number, alarm=alarm)
    log.debug("step", partition=step.partition, number=step.number, source_last=step.source_last, bytes=len(message))
