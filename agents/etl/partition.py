"""One partition of the ETL: gather waiting messages, let the core decide, make the step durable (rules E1 to E6, E8).

Ordered effects of a step, one step in flight a partition (rule E3):

0. Copies of unreadable messages go to topic `dead-letters`, and the broker acknowledges them. A crash here: the copies are
   there and no step names them; the next owner decides the same from the same bytes, and sends them again. Partition and
   offset identify each copy, so the second one is no other message.
1. The step goes to `rows` and the broker acknowledges it. A crash here: recovery reads the log and finds whether the message
   counts. Nothing else has happened.
2. The store takes the step with all its changes, if its offset is the next one; otherwise another worker wrote
   (StepConflict): this worker ends and recovers. A crash after it: recovery follows the steps in the log that are not on
   disk yet; the source is read again, and dropped as applied.
3. The core goes on from the step, and the source messages are acknowledged. The commits are a hint only (rule E4).

A newer version's message is no failure: the messages before it become a step, and then the partition waits for the
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
from app.shell.inbox import Inbox
from tables.store.position import StorePosition

log = structlog.get_logger(__name__)

HOLD_S: Final = 5.0
"""Longest time that watermark messages alone wait for other messages, if they close nothing (rule E6)."""
COMPANY_S: Final = 0.02
"""A few small messages wait so long for more, if they come less than this time after a step."""
SMALL_BYTES: Final = 64 * 1024
"""Together these messages are smaller than this."""
WAITING_LIMIT: Final = 256
"""Most source messages in hand; a step takes the first of them."""
WAITING_BYTES: Final = 16 * 1024 * 1024
"""Most bytes in hand before one more message."""

STEPS: Final = Counter("instream_etl_steps_total", "Steps that counted")
STEP_SECONDS: Final = Histogram(
    "instream_etl_step_seconds", "Duration of a step's parts", ["part"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
STEP_BYTES: Final = Counter("instream_etl_step_bytes_total", "Bytes of step messages")
LINES: Final = Counter("instream_etl_lines_total", "Lines decided, by what became of them", ["outcome"])
DEAD_LETTERS: Final = Counter("instream_etl_dead_letters_total", "Source messages that cannot be read, set aside")
REPLAYS: Final = Counter("instream_etl_replays_total", "Blocks met again and dropped whole")
ALARMS: Final = Counter("instream_etl_alarms_total", "Alarms for an operator")
CAREFUL: Final = Counter("instream_etl_careful_steps_total", "Steps that failed twice and were taken line by line")
STREAM_TIME: Final = Gauge("instream_etl_stream_time_seconds", "A partition's stream time", ["partition"])


class StepCore(Protocol):
    """The core that decides: `app.core.etl.step.PartitionEtl`."""

    @property
    def leftover(self) -> bool:
        """Whether the last step left closings that are due: the next step follows at once and takes no messages."""

    def take(self, waiting: Sequence[SourceMessage]) -> int:
        """Number of waiting messages that the next step takes; 0 while `leftover`."""

    def decide(
        self, messages: Sequence[SourceMessage], number: int, predecessor: int, *, careful: bool = False
    ) -> StepDecision:
        """The step of these messages; changes nothing."""

    def declare_gap(self, first_available: int, number: int, predecessor: int) -> StepDecision:
        """The step that passes over source messages that are gone."""

    def advance(self, step: StepMessage) -> None:
        """Go on from a step that is durable."""


class StepState(Protocol):
    """The stores of a worker's partitions; they follow topic `rows`."""

    def position(self, partition: int) -> StorePosition:
        """The last step in the partition's store."""

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Apply the owner's own step, stored by the broker at `offset` (rule E3, 2). Raises StepConflict."""


class StepPorts(Protocol):
    """The ports that make the steps of partitions durable."""

    @property
    def state(self) -> StepState:
        """The stores."""

    @property
    def clock(self) -> Clock:
        """The clock for waits and metrics."""

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
        ports: Make steps durable.
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
            STREAM_TIME.remove(self._inbox.partition)  # the next owner reports it

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
        """Pass over source messages that retention has deleted, with an alarm (rule E4)."""
        accepted = self._accepted()
        await self._make_durable(self._core.declare_gap(first_available, accepted.number + 1, accepted.offset))

    def _accepted(self) -> Accepted:
        """The last message that counted."""
        return self._ports.state.position(self._inbox.partition).accepted

    async def _gather(self) -> None:
        """Add new messages to the waiting ones; wait only for the first, and for company (`HOLD_S`, `COMPANY_S`)."""
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
        """Add new messages while there is room."""
        if not self._is_full():
            room = WAITING_LIMIT - len(self._waiting)
            self._waiting += [_source(event) for event in await self._inbox.take(timeout_s, limit=room)]

    def _is_crowded(self) -> bool:
        """Whether small messages come so fast that a short wait for the next ones saves time.

        A step alone costs some 2 ms.
        """
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
        """Whether a step of watermark messages alone that closes nothing may wait for more; starts the wait."""
        if taken < len(self._waiting) or self._is_full():
            return False
        now_s = self._clock.monotonic_s()
        if self._held_since_s is None:
            self._held_since_s = now_s
        return now_s - self._held_since_s < HOLD_S

    def _next_step(self) -> tuple[int, StepDecision]:
        """The step of the waiting messages, and the number that it takes: those before a newer version's message.

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
                readable = readable[: len(readable) // 2]  # a few tries find it: it may be any message, or a line in one

    def _decide(self, messages: Sequence[SourceMessage]) -> StepDecision:
        """Ask the core; a step that fails twice is decided line by line (rule E6)."""
        accepted = self._accepted()
        with STEP_SECONDS.labels("decide").time():
            for attempt in (1, 2):
                try:
                    return self._core.decide(messages, accepted.number + 1, accepted.offset)
                except (HistoryBroken, DeadLettersExceeded, NewerFormat, MemoryError):
                    raise  # another try does not help
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
    return SourceMessage(message.offset, round(message.timestamp * 1000), event.value or b"")  # a null is no block, too


def _observe(step: StepMessage, message: bytes) -> None:
    """Count a durable step in the metrics."""
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
