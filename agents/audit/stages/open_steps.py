"""The steps on topic `rows` that no transaction covers yet: the lines that they have, and how far the etl has come."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pyroaring import BitMap

from app.adapters.ports import LogSearch
from app.core.audit.stages import NO_STEP, EtlPosition
from app.core.formats.decoding import read_bitmap
from app.core.formats.step_history import StepVerdict
from app.core.formats.step_message import FollowedStep, StepLog, decode_followed
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainEnd
from app.errors import FormatInvalid, NewerFormat, StepMessageInvalid

READ_MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of steps that are read of one partition: a sink that keeps up leaves less."""
LOOKED_BACK: Final = 50
"""Messages before the end of the log among which its last step is looked for."""


class OpenSteps(NamedTuple):
    """The steps of one partition behind the chain's end."""

    lines: Mapping[int, Mapping[str, BitMap]]
    """Offset of a step -> batch -> the lines in its ledger."""
    dead_letters: Mapping[str, Mapping[int, str]]
    """Batch -> block -> the reason why a copy of it could not be read."""
    position: EtlPosition
    emitted_at_ms: int | None = None
    """The broker's append time of the first step that the sink must write; None if there is none."""


class RowsPartition(NamedTuple):
    """A partition of `rows`, and the replacements of its damaged steps."""

    logs: LogSearch
    log: StepLog
    replaced: Replacements

    def step(self, offset: int, message: bytes | None) -> FollowedStep | None:
        """The step in the message at `offset`; None for every other message, which counts for no reader."""
        try:
            return decode_followed(self.replaced.at(offset, message), self.log)
        except (StepMessageInvalid, NewerFormat):
            return None

    async def step_at(self, offset: int) -> FollowedStep | None:
        """The step at `offset`."""
        return self.step(offset, await self.logs.message_at(self.log.topic, self.log.partition, offset))


async def read_open_steps(
    rows: RowsPartition, end: ChainEnd, batch_ids: Iterable[str], most_bytes: int = READ_MOST_BYTES
) -> OpenSteps:
    """Read behind the chain's end, by the rule of every reader (rule E2).

    Args:
        rows: the log.
        end: of the sink's chain.
        batch_ids: the lines of these batches are wanted.
        most_bytes: where the log is longer, only the first steps and the last one are read.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    wanted, accepted = frozenset(batch_ids), end.accepted
    first, last = await rows.logs.bounds(rows.log.topic, rows.log.partition)
    start = max(first, end.next_offset)
    lines: dict[int, dict[str, BitMap]] = {}
    dead_letters: dict[str, dict[int, str]] = {}
    step: FollowedStep | None = None
    size, unread = 0, 0
    emitted_at_ms: int | None = None
    async for message in rows.logs.scan(rows.log.topic, rows.log.partition, start, last):
        found = rows.step(message.offset, message.value)
        verdict = None if found is None else accepted.judge(found.number, found.predecessor)
        if found is not None and verdict is StepVerdict.ACCEPT:
            accepted, step = accepted.advance(message.offset), found
            if emitted_at_ms is None and _emits(found):
                emitted_at_ms = message.timestamp_ms
            taken = _lines(found, wanted)
            if taken:
                lines[message.offset] = taken
            for letter in found.dead_letters:
                if letter.batch_id in wanted and letter.block is not None:
                    dead_letters.setdefault(letter.batch_id, {})[letter.block] = letter.reason
        size += len(message.value)
        if size > most_bytes or verdict is StepVerdict.GAP:
            unread = last - message.offset - 1
            emitted_at_ms = message.timestamp_ms if emitted_at_ms is None else emitted_at_ms  # the sink stops at a gap
            break
    if unread or step is None:
        step = await _last_step(rows, accepted.offset, last if unread else 0) or step
    position = EtlPosition(NO_STEP, end.stream_time_ms, unread)
    if step is not None:
        position = EtlPosition(step.source_last, step.stream_time_ms, unread)
    return OpenSteps(lines, dead_letters, position, emitted_at_ms)


async def _last_step(rows: RowsPartition, accepted: int, end: int) -> FollowedStep | None:
    """The last step before `end`, or the accepted one; None if the log has neither."""
    for offset in range(end - 1, max(accepted, end - 1 - LOOKED_BACK), -1):
        if (found := await rows.step_at(offset)) is not None:
            return found
    return await rows.step_at(accepted) if accepted >= 0 else None


def _emits(step: FollowedStep) -> bool:
    """As `StepMessage.emits`, of a step without its rows."""
    return bool(step.row_counts or step.ledger or step.replays or step.dead_letters)


def _lines(step: FollowedStep, wanted: frozenset[str]) -> dict[str, BitMap]:
    found: dict[str, BitMap] = {}
    for entry in step.ledger:
        if entry.batch_id in wanted:
            try:
                lines = read_bitmap(entry.line_set, "line set")
            except FormatInvalid:
                continue
            found[entry.batch_id] = found.get(entry.batch_id, BitMap()) | lines
    return found
