"""The ETL's decisions for one partition: the messages that a step takes, and the step (rules E1, E4, E6, E7, J1).

The shell's loop, with the log deciding in between (rule E3):

    etl = PartitionEtl.load(...)                       after recovery
    count = etl.take(waiting)                          0 while something due is left over: then step without messages
    decision = etl.decide(waiting[:count], number, predecessor)
    ... send decision.message, wait for the broker, write its changes to the tables ...
    etl.advance(decision.message)

Rows and ledger do not depend on how messages were grouped into steps: `app.core.join.join` says why.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from app.core.enrich.enrich import Enricher
from app.core.etl.meta import EtlMeta, decode_meta, encode_meta
from app.core.etl.on_cells.path import CellPath
from app.core.etl.path import StepParts, StepPath
from app.core.etl.plain import PlainPath
from app.core.etl.source import Intake, how_many, take_in
from app.core.formats.dead_letter import encode_letter, head_of
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import DeadLetter, StepMessage
from app.core.rules import EtlRules
from app.core.state.tables import StateReader
from app.errors import IllegalMove, SourceGap

__all__ = ["EtlRules", "PartitionEtl", "SourceMessage", "StepDecision"]

GAP_DECLARED: Final = "gap declared: "
"""The start of the alarm of a step that gives source messages up."""
OVERHEAD_BYTES: Final = 64 * 1024
"""Room in a step message for everything but rows and changes: meta, names, the ledger."""


class StepDecision(NamedTuple):
    """A step, ready to be sent."""

    message: StepMessage
    pressing: bool
    """False if it only moves time: the shell may wait for more, up to 5 s (rule E6)."""
    more: bool
    """Whether something due is left over: the next step takes no messages, at once."""
    letters: Sequence[bytes] = ()
    """Copies of the messages that the step sets aside, for topic `dead-letters`. They are sent before the step."""


class Applied(NamedTuple):
    """The position of a partition after its last applied step."""

    meta: EtlMeta
    source_offset: int


class PartitionEtl:
    """Decides for one partition. Holds `EtlMeta` and the path of its lines; everything else is in the tables."""

    def __init__(self, partition: int, rules: EtlRules, enricher: Enricher, state: StateReader, applied: Applied) -> None:
        self._partition = partition
        self._rules = rules
        self._state = state
        self._meta = applied.meta
        self._applied = applied.source_offset
        self._path: StepPath = (CellPath if rules.kernels else PlainPath)(rules, enricher, state, applied.meta.closed)

    @classmethod
    def load(  # noqa: PLR0913, PLR0917  (each is something of its own)
        cls,
        partition: int,
        rules: EtlRules,
        enricher: Enricher,
        state: StateReader,
        meta: bytes | None,
        applied_source: int,
    ) -> "PartitionEtl":
        """Begin behind the last applied step.

        Args:
            partition: its number.
            rules: bounds and limits.
            enricher: look-ups, shared by the partitions of a worker.
            state: the partition's tables, read at every step; `pending` and `seconds` are read whole now.
            meta: `StepMessage.meta` of the last applied step; None before the first.
            applied_source: offset on `blocks` of the last message that an applied step took; -1 before the first.

        Raises:
            StepMessageInvalid: `meta` cannot be read.
        """
        return cls(partition, rules, enricher, state, Applied(decode_meta(meta), applied_source))

    @property
    def stream_time_ms(self) -> int:
        """The partition's stream time; 0 while it is not known."""
        return self._meta.stream_time_ms

    @property
    def applied_source(self) -> int:
        """Offset on `blocks` of the last message that an applied step took."""
        return self._applied

    @property
    def leftover(self) -> bool:
        """Whether the last step left something over that is due, because its message was full."""
        return self._path.is_left_over(self._meta.stream_time_ms)

    def holds_open(self, first: int, last: int) -> bool:
        """Whether events of a step whose first block is one of the source messages `first` to `last` wait in the window."""
        return self._path.holds_open(first, last)

    def take(self, waiting: Sequence[SourceMessage]) -> int:
        """How many of `waiting`, the messages behind the applied ones, the next step takes.

        Returns: at least 1 if any is waiting; 0 while `leftover`: then the next step is `decide` without messages.
        """
        return 0 if self.leftover else how_many(waiting, self._meta, self._rules)

    def decide(
        self, messages: Sequence[SourceMessage], number: int, predecessor: int, *, careful: bool = False
    ) -> StepDecision:
        """The step that takes `messages`. It is pure: this object answers as before, and the tables do not change.

        Args:
            messages: the first `take` of the waiting ones; none while `leftover`.
            number: the step's number, the applied one + 1.
            predecessor: offset on `rows` of the last message that counted.
            careful: a step with these messages failed twice: take their lines one by one (rule E6).

        Raises:
            SourceGap: the messages do not follow the applied one without a hole.
            IllegalMove: messages were given while something due is left over.
            EpochMismatch: a block of another epoch.
            DeadLettersExceeded: too many of the partition's last messages are unreadable.
        """
        self._check(messages)
        intake = take_in(messages, self._partition, self._meta, self._rules, self._state)
        close = self._path.decide(intake, careful=careful)
        budget = self._rules.message_bytes - OVERHEAD_BYTES - 2 * intake.raw_bytes
        while True:
            parts = close(budget)
            message = self._compose(messages, intake, parts, (number, predecessor))
            # Estimates of compressed sizes can be wrong; the budget is halved until the message fits.
            if budget <= 1 or size_of(message) <= self._rules.message_bytes:
                break
            budget //= 2
        more = parts.more
        pressing = more or not messages or bool(intake.blocks or intake.replays or intake.alarms or message.emits)
        return StepDecision(message, pressing, more, self._letters(message.dead_letters, messages))

    def declare_gap(self, first_available: int, number: int, predecessor: int) -> StepDecision:
        """The step that gives up every source message before `first_available`: retention deleted them (rule E4).

        The audit misses the blocks among them and sends them again. An END is not sent again, so the step forgets which
        shards are open.
        """
        lost = f"source offsets {self._applied + 1} to {first_available - 1} are gone by retention: the audit repairs them"
        meta = msgspec.structs.replace(self._meta, shards=self._meta.shards.behind_a_gap())
        closed_ms = meta.closed.due_ms if self.leftover else meta.stream_time_ms
        message = StepMessage(
            epoch=self._rules.epoch, partition=self._partition, number=number, predecessor=predecessor,
            source_first=self._applied + 1, source_last=first_available - 1, stream_time_ms=closed_ms,
            meta=encode_meta(meta), rows={}, row_counts={}, ledger=[], replays=[], changes=[],
            alarms=[GAP_DECLARED + lost],
        )  # fmt: skip
        return StepDecision(message, pressing=True, more=self.leftover)

    def advance(self, step: StepMessage) -> None:
        """Follow a step that counts, whichever owner decided it. Its changes are in the tables already."""
        self._meta = decode_meta(step.meta)
        self._path.learn(self._meta.closed, step.changes)
        self._applied = step.source_last

    def _check(self, messages: Sequence[SourceMessage]) -> None:
        if messages and self.leftover:
            raise IllegalMove("what is due must close before more messages are taken: decide a step without messages")
        for n, message in enumerate(messages, self._applied + 1):
            if message.offset != n:
                raise SourceGap(f"source offset {message.offset} where {n} follows")

    def _compose(
        self, messages: Sequence[SourceMessage], intake: Intake, parts: StepParts, place: tuple[int, int]
    ) -> StepMessage:
        """The step's message."""
        meta = EtlMeta(
            stream_time_ms=intake.stream_time_ms, shards=intake.shards, closed=parts.closed, tally=intake.tally
        )  # fmt: skip
        return StepMessage(
            epoch=self._rules.epoch, partition=self._partition, number=place[0], predecessor=place[1],
            source_first=self._applied + 1, source_last=self._applied + len(messages),
            stream_time_ms=parts.closed.due_ms if parts.more else intake.stream_time_ms, meta=encode_meta(meta),
            rows=parts.rows, row_counts=parts.row_counts, ledger=parts.ledger, replays=intake.replays, changes=parts.changes,
            alarms=intake.alarms, dead_letters=intake.dead_letters,
        )  # fmt: skip

    def _letters(self, dead: Sequence[DeadLetter], messages: Sequence[SourceMessage]) -> list[bytes]:
        """The messages for topic `dead-letters`."""
        letters = []
        for letter in dead:
            source = messages[letter.offset - self._applied - 1]
            head = head_of(letter, self._rules.epoch, self._partition, source.timestamp_ms, len(source.value))
            letters.append(encode_letter(head, source.value))
        return letters


def size_of(step: StepMessage) -> int:
    """An estimate of the bytes of a step's message, rather too large than too small."""
    rows = sum(len(packed) for packed in step.rows.values())
    ledger = sum(len(entry.line_set) + len(entry.batch_id) + len(entry.outcome) + 16 for entry in step.ledger)
    changes = sum(len(c.keys) + len(c.value_ends) + len(c.values) + len(c.deletes) + 32 for c in step.changes)
    letters = sum(len(letter.reason) * 4 + 128 for letter in step.dead_letters)
    alarms = sum(map(len, step.alarms)) * 4
    return rows + ledger + changes + len(step.meta) + 64 * len(step.replays) + letters + alarms + 1024
