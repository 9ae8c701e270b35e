"""The input of a step: how many messages it takes, and of which kind each is (rules E1, E6, E7, E8, J1, T4)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import zstandard

from app.core.etl.decode import open_block
from app.core.etl.meta import EtlMeta
from app.core.etl.stream_time import ShardWatermarks, moved_time
from app.core.formats.block import (
    HEADER_BYTES,
    MAX_RAW_BYTES,
    BlockHeader,
    Control,
    decode_control,
    decode_header,
    decode_refused,
    frame_reader,
    is_control,
    raw_bytes_of,
)
from app.core.formats.dead_letter import REASON_CHARACTERS, DeadLetterLimit, Tally
from app.core.formats.source import AcceptedBlock, SourceMessage
from app.core.formats.step_message import DeadLetter, Replay
from app.core.rules import EtlRules
from app.core.state.encoding import pack_time
from app.core.state.tables import StateReader
from app.errors import ConservationBroken, DeadLettersExceeded, EnvelopeInvalid, EpochMismatch, FrameInvalid

_ROOM: Final = 4
"""The raw lines of a step take at most this part of a message; its other columns and the state need the rest."""


class Intake(NamedTuple):
    """The messages of a step, by kind."""

    blocks: list[AcceptedBlock]
    replays: list[Replay]
    dead_letters: list[DeadLetter]
    """In order of their offsets."""
    alarms: list[str]
    stream_time_ms: int
    shards: ShardWatermarks
    tally: Tally
    raw_bytes: int


class _Placed(NamedTuple):
    """A block and the partition's time at its place in the log."""

    header: BlockHeader
    message: SourceMessage
    stream_time_ms: int


def how_many(waiting: Sequence[SourceMessage], meta: EtlMeta, rules: EtlRules) -> int:
    """How many of `waiting` one step may take: at least one, if any is waiting.

    A step ends in three cases. Its blocks have `step_bytes` raw bytes, or a quarter of a message. The next block was
    received before stream time, and stream time moved inside the step, or an earlier block of the step has events that are
    due on arrival. Or stream time moved so far that state has forgotten page views that were open when the step began.
    `app.core.join.join` says why.
    """
    limit = min(rules.step_bytes, rules.message_bytes // _ROOM)
    span = rules.join.upper_ms
    soonest = min(rules.join.lower_ms, span)
    now, shards = meta.stream_time_ms, meta.shards.copy()
    far = now + rules.dedup_window_ms - span
    moved = due = False
    raw = 0
    for n, message in enumerate(waiting):
        try:
            read = _read(message.value)
        except EnvelopeInvalid:
            continue  # a dead letter moves neither time nor rows
        if not isinstance(read, BlockHeader):
            shards.observe(read)
            moment = moved_time(now, shards, message.timestamp_ms)
            moved, now = moved or moment > now, moment
            continue
        received = read.received_at_ms
        if (received < now and (moved or due)) or (moved and now > far):
            return n
        raw += raw_size(message.value)
        if n and raw > limit:
            return n
        due = due or received + soonest < now
    return len(waiting)


def take_in(messages: Sequence[SourceMessage], partition: int, meta: EtlMeta, rules: EtlRules, state: StateReader) -> Intake:
    """Sort `messages` by kind, each at its own stream time.

    A block that the state knows is a replay (rule E7). A block that is older than the dedup window is refused with an alarm,
    because the state no longer remembers whether it was taken. An unreadable message is a dead letter (rule E8): the
    partition goes on, and state remembers nothing of it, so that the copy which the audit cuts from the raw file is taken.

    Raises:
        EpochMismatch: a block of another epoch.
        DeadLettersExceeded: too many of the partition's last messages are unreadable.
    """
    now, shards = meta.stream_time_ms, meta.shards.copy()
    placed: list[_Placed] = []
    dead: list[DeadLetter] = []
    refused: list[DeadLetter] = []
    for message in messages:
        if (record := decode_refused(message.value)) is not None:
            why = f"Kinesis record {record.shard}@{record.sequence}: {record.reason}"
            refused.append(DeadLetter(message.offset, why[:REASON_CHARACTERS]))
            continue
        try:
            read = _read(message.value)
        except EnvelopeInvalid as exc:
            dead.append(_dead_letter(message.offset, exc))
            continue
        if isinstance(read, BlockHeader):
            if read.epoch != rules.epoch:
                raise EpochMismatch(
                    f"offset {message.offset}: block of epoch {read.epoch} on a topic of epoch {rules.epoch}"
                )
            placed.append(_Placed(read, message, now))
        else:
            shards.observe(read)
            now = moved_time(now, shards, message.timestamp_ms)
    blocks, replays, unreadable, alarms = _tell_apart(placed, partition, rules.dedup_window_ms, state)
    dead = sorted([*dead, *unreadable], key=lambda letter: letter.offset)
    tally = _count(meta.tally, placed, dead, rules.dead_letters)  # refused records are other programs', not our own bytes
    dead = sorted([*dead, *refused], key=lambda letter: letter.offset)
    return Intake(blocks, replays, dead, alarms, now, shards, tally, sum(len(block.text) for block in blocks))


def _read(value: bytes) -> Control | BlockHeader:
    """The control message or block header in a message. Raises EnvelopeInvalid for any other message."""
    return decode_control(value) if is_control(value) else decode_header(value)


def _tell_apart(
    placed: Sequence[_Placed], partition: int, dedup_window_ms: int, state: StateReader
) -> tuple[list[AcceptedBlock], list[Replay], list[DeadLetter], list[str]]:
    """The blocks to take, opened; the replays, the dead letters, and the alarms on refused blocks."""
    keys = [header.key for header, _, _ in placed]
    known = dict(zip(keys, state.get("blocks", keys), strict=True))
    blocks: list[AcceptedBlock] = []
    replays: list[Replay] = []
    dead: list[DeadLetter] = []
    alarms: list[str] = []
    reader = frame_reader()
    for key, (header, message, now) in zip(keys, placed, strict=True):
        oldest, stored = max(0, now - dedup_window_ms), known[key]
        if stored is not None and stored >= pack_time(oldest):
            replays.append(Replay(header.batch_id, header.block, header.attempt))
        elif header.received_at_ms < oldest:
            alarms.append(
                f"block refused: batch {header.batch_id} block {header.block} attempt {header.attempt} was received at "
                f"{header.received_at_ms}, before the dedup window of stream time {now}"
            )
        else:
            try:
                if header.partition != partition:
                    raise EnvelopeInvalid(f"block of partition {header.partition} on partition {partition}")
                block = AcceptedBlock(header, message.offset, open_block(header, message.value, reader), now)
            except (EnvelopeInvalid, FrameInvalid) as exc:
                dead.append(_dead_letter(message.offset, exc, header))
            else:
                blocks.append(block)
                known[key] = pack_time(block.stored_ms)
    if (found := len(blocks) + len(replays) + len(dead) + len(alarms)) != len(placed):
        raise ConservationBroken(f"of {len(placed)} blocks {found} were taken, dropped, set aside or refused")
    return blocks, replays, dead, alarms


def _dead_letter(offset: int, exc: Exception, header: BlockHeader | None = None) -> DeadLetter:
    reason = f"{type(exc).__name__}: {exc}"[:REASON_CHARACTERS]
    if header is None:
        return DeadLetter(offset, reason)
    return DeadLetter(offset, reason, header.batch_id, header.block, header.attempt)


def _count(tally: Tally, placed: Sequence[_Placed], dead: Sequence[DeadLetter], limit: DeadLetterLimit) -> Tally:
    """The tally after these messages, in their order. An unreadable copy from the audit counts as met, not as unreadable."""
    letters = {letter.offset: letter for letter in dead}
    for offset in sorted({*letters, *(message.offset for _, message, _ in placed)}):
        letter = letters.get(offset)
        tally = tally.after(dead=letter is not None and not letter.attempt)
        if letter is not None and limit.is_exceeded(tally):
            raise DeadLettersExceeded(
                f"{tally.dead} of the last {tally.blocks} blocks cannot be read, this one at offset {offset}: "
                f"{letter.reason}; the log keeps them: mend what writes or what reads them, or pass over them with a higher "
                "INSTREAM_DEAD_LETTER_SHARE"
            )
    return tally


def raw_size(message: bytes) -> int:
    """The bytes of lines in a block's envelope, by the head of its frame; at most the largest size of a frame."""
    try:
        stated = raw_bytes_of(message[HEADER_BYTES : HEADER_BYTES + 18])
    except zstandard.ZstdError:
        stated = None  # no frame: the step that takes the message says so
    return MAX_RAW_BYTES if stated is None else min(stated, MAX_RAW_BYTES)
