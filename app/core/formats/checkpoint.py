"""How far a shard has been read: what travels on topic `checkpoints` and what table `checkpoints` keeps (rule T1).

A shard's home is one partition of the topic; whoever owns that partition pumps the shard. That a shard is finished is told
to every partition, so that each worker knows which children it may pump (rule T5), its home last: a crash in between leaves
the home unfinished, and its next owner tells everybody again.
"""

import zlib
from typing import Final

import msgspec

from app.errors import FormatInvalid


class Checkpoint(msgspec.Struct, frozen=True, tag="at", array_like=True):
    """How far one shard has been read."""

    shard: str
    sequence: str | None = None
    """Sequence number of the last record that Kafka acknowledged; None before the first."""
    watermark_ms: int = 0
    """The shard's mark before slack, ms since the epoch; 0 while it has none."""
    finished: bool = False
    """Read to its end, and every partition of `blocks` has its END."""
    announced: bool = False
    """Every other partition of `checkpoints` has heard that it is finished; only its home says so."""


class Barrier(msgspec.Struct, frozen=True, tag="barrier", array_like=True):
    """An owner's question whether it has read its partition of the topic up to here."""

    token: str


Message = Checkpoint | Barrier
"""What a message on topic `checkpoints` can be."""
_decoder: Final[msgspec.msgpack.Decoder[Checkpoint | Barrier]] = msgspec.msgpack.Decoder(Checkpoint | Barrier)


def encode(message: Message) -> bytes:
    """The Kafka message, and the table's value, of a checkpoint or barrier."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes) -> Message:
    """The checkpoint or barrier in `data`.

    Raises:
        FormatInvalid: `data` is neither.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as exc:
        raise FormatInvalid(f"message on checkpoints cannot be read: {exc}") from exc


def order_of(sequence: str | None) -> int:
    """A sequence number as something to compare: they are decimal integers of up to 186 bits; -1 for None."""
    return -1 if sequence is None else int(sequence)


def further(known: Checkpoint | None, new: Checkpoint) -> Checkpoint:
    """The further of two checkpoints of one shard, field by field: checkpoints never go back, finished stays (rule T1).

    Guarantees: commutative, associative and idempotent, so that repeated and reordered messages do no harm.
    """
    if known is None:
        return new
    return Checkpoint(
        new.shard,
        max(known.sequence, new.sequence, key=order_of),
        max(known.watermark_ms, new.watermark_ms),
        known.finished or new.finished,
        known.announced or new.announced,
    )


def home_of(shard: str, partitions: int) -> int:
    """The partition of topic `checkpoints` (of `partitions`) whose owner pumps `shard`; the same in every process."""
    return zlib.crc32(shard.encode()) % partitions
