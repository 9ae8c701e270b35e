"""The progress of reading a shard: the messages of topic `checkpoints` and the values of table `checkpoints` (rule T1).

A shard's home is one partition of the topic; the owner of that partition reads the shard. When a shard is finished, a
message says so on every partition, its home last, so that each worker knows the child shards that it may read (rule T5). A
crash in between leaves the home unfinished, and its next owner sends the messages again.

Versions (rule E10): a message is a msgpack array whose tag names its kind and, from version 2 on, its version (`at2`). A
field that a reader does not know makes the message a newer one: the table merges two checkpoints field by field to the
further one, and would drop the new field.
"""

import zlib
from typing import Annotated, Final

import msgspec

from app.core.formats.decoding import read_tagged

MESSAGE_VERSION: Final = 1
_MAX_DIGITS: Final = 128
Sequence = Annotated[str, msgspec.Meta(pattern=rf"^[0-9]{{1,{_MAX_DIGITS}}}\Z")]
"""Digits only: they are compared as numbers."""


class Checkpoint(msgspec.Struct, frozen=True, tag="at", array_like=True):
    """The progress of reading one shard."""

    shard: str
    sequence: Sequence | None = None
    """Sequence number of the last record that Kafka acknowledged; None before the first."""
    watermark_ms: int = 0
    """The shard's watermark before slack, ms since the epoch; 0 while it has none."""
    finished: bool = False
    """Read to its end, and every partition of `blocks` has its END."""
    announced: bool = False
    """Every other partition of `checkpoints` has the `finished` message; only the home's message has this field set."""


class Barrier(msgspec.Struct, frozen=True, tag="barrier", array_like=True):
    """An owner's question whether it has read its partition of the topic up to here."""

    token: str


Message = Checkpoint | Barrier
"""The kinds of messages on topic `checkpoints`."""
_decoder: Final[msgspec.msgpack.Decoder[Checkpoint | Barrier]] = msgspec.msgpack.Decoder(Checkpoint | Barrier)


def encode(message: Message) -> bytes:
    """The Kafka message, and the table's value, of a checkpoint or barrier."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes | None) -> Message:
    """The checkpoint or barrier in `data`.

    Raises:
        FormatInvalid: `data` is neither.
        NewerFormat: it is one of a newer version.
    """
    return read_tagged(_decoder, data, "message on checkpoints", MESSAGE_VERSION)


def order_of(sequence: str | None) -> int:
    """A sequence number as a number to compare: they are decimal integers of up to 186 bits; -1 for None."""
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
    """The partition of topic `checkpoints` (of `partitions`) whose owner reads `shard`; the same in every process."""
    return zlib.crc32(shard.encode()) % partitions
