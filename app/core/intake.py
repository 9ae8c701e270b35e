"""What a step takes from the log: how many messages, and what they are (rules E1, E6, E7, T4)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import zstandard

from app.core.block import HEADER_BYTES, MAX_RAW_BYTES, decode_control, decode_header, is_control, raw_bytes_of
from app.core.decode import AcceptedBlock, open_block
from app.core.fate import pack_time
from app.core.meta import Meta
from app.core.state import StateReader
from app.core.step_message import Replay
from app.core.stream_time import ShardMarks, moved_time
from app.errors import EnvelopeInvalid, EpochMismatch, FrameInvalid
from app.settings import JoinRules

STEP_BYTES: Final = 2 * 1024 * 1024
_ROOM: Final = 4
"""A step takes at most this part of a message in raw lines: the rest is for its rows' other columns and the state."""


class SourceMessage(NamedTuple):
    """A message of topic `blocks`."""

    offset: int
    timestamp_ms: int
    """The broker's append time."""
    value: bytes
    """A block's envelope or a control message."""


class EtlRules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides in the ETL and is set from outside."""

    epoch: int
    partitions: int
    join: JoinRules
    dedup_window_ms: int
    message_bytes: int
    """Largest step message."""
    step_bytes: int = STEP_BYTES
    """A step takes blocks until they have this many raw bytes."""


class Intake(NamedTuple):
    """What the messages of a step are."""

    blocks: list[AcceptedBlock]
    replays: list[Replay]
    alarms: list[str]
    stream_time_ms: int
    shards: ShardMarks
    raw_bytes: int


def how_many(waiting: Sequence[SourceMessage], meta: Meta, rules: EtlRules) -> int:
    """How many of `waiting` one step may take: at least one, if any is waiting.

    A step ends where its blocks have `step_bytes` raw bytes (or a quarter of a message), and before a block that was
    received before stream time, if stream time moved inside the step or an earlier block of it brings what is due on
    arrival; and before any block, if stream time moved so far that state forgets page views which the step began with
    open: see `app.core.join` for why.
    """
    limit = min(rules.step_bytes, rules.message_bytes // _ROOM)
    span = rules.join.window_ms + rules.join.grace_ms
    soonest = min(rules.join.reorder_ms, span)
    now, shards = meta.stream_time_ms, meta.shards.copy()
    far = now + rules.dedup_window_ms - span
    moved = due = False
    raw = 0
    for n, message in enumerate(waiting):
        if is_control(message.value):
            shards.observe(decode_control(message.value))
            moment = moved_time(now, shards, message.timestamp_ms)
            moved, now = moved or moment > now, moment
            continue
        received = decode_header(message.value).received_at_ms
        if (received < now and (moved or due)) or (moved and now > far):
            return n
        raw += raw_size(message.value)
        if n and raw > limit:
            return n
        due = due or received + soonest < now
    return len(waiting)


def take_in(  # noqa: PLR0913  (each is something of its own)
    messages: Sequence[SourceMessage], partition: int, meta: Meta, rules: EtlRules, state: StateReader, *,
    careful: bool = False,
) -> Intake:  # fmt: skip
    """What `messages` are, each at its own stream time.

    A block that the state knows is a replay (rule E7); one that is older than the dedup window is refused with an alarm:
    nobody remembers whether it has been here. With `careful` so is one whose frame cannot be read: it must not stop its
    partition for ever, and nothing of it is remembered, so that the audit's copy, cut anew from the raw file, is taken.

    Raises:
        EpochMismatch: a block of another epoch.
        EnvelopeInvalid: a block of another partition, or no block and no control message.
    """
    now, shards = meta.stream_time_ms, meta.shards.copy()
    found: list[AcceptedBlock] = []
    unreadable: list[str] = []
    for message in messages:
        if is_control(message.value):
            shards.observe(decode_control(message.value))
            now = moved_time(now, shards, message.timestamp_ms)
            continue
        header = decode_header(message.value)
        if header.epoch != rules.epoch:
            raise EpochMismatch(f"offset {message.offset}: block of epoch {header.epoch} on a topic of epoch {rules.epoch}")
        if header.partition != partition:
            raise EnvelopeInvalid(f"offset {message.offset}: block of partition {header.partition} on partition {partition}")
        block = AcceptedBlock(header, message.offset, message.value, now)
        if careful and (reason := _unreadable(block)):
            unreadable.append(reason)
        else:
            found.append(block)
    blocks, replays, alarms = _tell_replays(found, rules.dedup_window_ms, state)
    return Intake(blocks, replays, [*unreadable, *alarms], now, shards, sum(raw_size(block.value) for block in blocks))


def _unreadable(block: AcceptedBlock) -> str | None:
    """Why a block's frame cannot be read; None where it can."""
    try:
        open_block(block)
    except FrameInvalid as exc:
        header = block.header
        return f"block refused: batch {header.batch_id} block {header.block} attempt {header.attempt}: {exc}"
    return None


def _tell_replays(
    found: list[AcceptedBlock], dedup_window_ms: int, state: StateReader
) -> tuple[list[AcceptedBlock], list[Replay], list[str]]:
    keys = [block.header.key for block in found]
    known = dict(zip(keys, state.get("blocks", keys), strict=True))
    blocks: list[AcceptedBlock] = []
    replays: list[Replay] = []
    alarms: list[str] = []
    for key, block in zip(keys, found, strict=True):
        header, oldest = block.header, max(0, block.stream_time_ms - dedup_window_ms)
        stored = known[key]
        if stored is not None and stored >= pack_time(oldest):
            replays.append(Replay(header.batch_id, header.block, header.attempt))
        elif header.received_at_ms < oldest:
            alarms.append(
                f"block refused: batch {header.batch_id} block {header.block} attempt {header.attempt} was received at "
                f"{header.received_at_ms}, before the dedup window of stream time {block.stream_time_ms}"
            )
        else:
            blocks.append(block)
            known[key] = pack_time(block.stored_ms)
    return blocks, replays, alarms


def raw_size(message: bytes) -> int:
    """How many bytes of lines a block's envelope holds, as far as its frame's head says; never more than a frame may."""
    try:
        stated = raw_bytes_of(message[HEADER_BYTES : HEADER_BYTES + 18])
    except zstandard.ZstdError:
        stated = None  # no frame: the step that takes it says so
    return MAX_RAW_BYTES if stated is None else min(stated, MAX_RAW_BYTES)
