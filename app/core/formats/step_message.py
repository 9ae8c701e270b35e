"""The messages on topic `rows`: one for each step, both the output and the state's changelog (rule E1).

A message is the 4 magic bytes, then a msgpack array. Rows travel as Arrow IPC streams, one a flow, with the flow's columns
less `txn_id`; changes to the state as packed columns, one a state table.

Versions (rule E10): the fourth magic byte is the version, a digit. A field, a flow or a state table that a reader does not
know makes the message a newer one, because everything in it counts, once; so does a value in an unknown column. A column of
NULLs is passed over. If a stream lacks a column, the column was added later, and its values are NULL.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import itemgetter, sub
from typing import Final, NamedTuple, TypeVar

import msgspec
from xxhash import xxh3_128_digest

from app.core.formats.decoding import NO_MESSAGE, Count, Integer, Moment, read, refuse_longer, refuse_newer
from app.errors import StepMessageInvalid

StepT = TypeVar("StepT", bound="StepMessage")

STEP_VERSION: Final = 1
_NAME: Final = b"STP"
MAGIC: Final = b"%s%d" % (_NAME, STEP_VERSION)
_VERSIONS: Final = frozenset(b"%d" % version for version in range(1, 10))
NO_PREDECESSOR: Final = -1


class LedgerEntry(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of some lines of one batch."""

    batch_id: str
    outcome: str
    """One of `app.core.formats.flows.OUTCOMES`."""
    lines: Count
    line_set: bytes
    """The lines' 0-based numbers in the batch: a Roaring bitmap in the portable serialisation, `lines` members."""


class Replay(msgspec.Struct, frozen=True, array_like=True):
    """A block that the state knew already: dropped whole, without ledger entries (rule E7)."""

    batch_id: str
    block: Count
    attempt: Count


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """A source message that cannot be read: set aside whole, without ledger entries (rule E8)."""

    offset: Count
    """Its offset on `blocks`."""
    reason: str
    batch_id: str | None = None
    """None if it is no envelope; block and attempt too."""
    block: Count | None = None
    attempt: Count | None = None


class Changes(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """Puts and deletes in one state table, packed: fixed-width keys, values of any width."""

    table: str
    key_bytes: int
    """Width of every key."""
    keys: bytes = b""
    """Keys to put, one after the other."""
    value_ends: bytes = b""
    """For each put the end of its value in `values`: little-endian unsigned 32 bit, ascending."""
    values: bytes = b""
    deletes: bytes = b""
    """Keys to delete, one after the other; applied before the puts."""

    @classmethod
    def pack(
        cls, table: str, key_bytes: int, puts: Iterable[tuple[bytes, bytes]] = (), deletes: Iterable[bytes] = ()
    ) -> "Changes":
        """The changes that put every (key, value) of `puts`, in the order of the keys, and delete every key of `deletes`.

        Stores take sorted keys faster. The keys are sorted here, once, and not by every reader of the log.
        """
        pairs = sorted(puts, key=itemgetter(0))
        values = [value for _, value in pairs]
        ends = _ends_of_all(values)
        keys = [key for key, _ in pairs]
        packed = cls(table, key_bytes, b"".join(keys), ends, b"".join(values), b"".join(deletes))
        vars(packed)["columns"] = keys, values  # the packing worker reads them again when the step is durable
        return packed

    def verify(self) -> None:
        """Check that the columns fit each other.

        Raises:
            StepMessageInvalid: they do not.
        """
        width, ends = self.key_bytes, self.value_ends
        fits = width > 0 and not len(self.keys) % width and not len(self.deletes) % width and not len(ends) % _END.size
        if not fits or len(self.keys) // width != len(ends) // _END.size:
            raise StepMessageInvalid(f"changes of table {self.table!r}: keys and values do not fit each other")
        last = _END.unpack(ends[-_END.size :])[0] if ends else 0
        if last != len(self.values) or not (self.value_bytes or self._ends == sorted(self._ends)):
            raise StepMessageInvalid(f"changes of table {self.table!r}: the ends of values do not ascend to the last one")

    @property
    def size_bytes(self) -> int:
        """The packed size."""
        return len(self.keys) + len(self.value_ends) + len(self.values) + len(self.deletes)

    def puts(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) to put, in order."""
        return zip(*self.columns, strict=True)

    @cached_property
    def columns(self) -> tuple[list[bytes], list[bytes]]:
        """The keys to put, and their values, in order."""
        keys, values = cut_evenly(self.keys, self.key_bytes), self.values
        if self.value_bytes:
            return keys, cut_evenly(values, self.value_bytes)
        ends = self._ends
        return keys, [values[start:end] for start, end in zip([0, *ends][:-1], ends, strict=True)]

    @cached_property
    def _ends(self) -> list[int]:
        return memoryview(self.value_ends).cast("I").tolist()

    @cached_property
    def value_bytes(self) -> int:
        """Width of every value to put; 0 if widths differ, or if values are empty or missing."""
        count = len(self.value_ends) // 4
        width = len(self.values) // count if count else 0
        even = _ends_of(width, 1 << count.bit_length())
        return width if even.startswith(self.value_ends) else 0

    @property
    def narrowest_bytes(self) -> int:
        """Width of the narrowest value to put; that of a key if none is put."""
        widths = map(sub, self._ends, [0, *self._ends])
        return self.value_bytes or min(widths, default=self.key_bytes)

    def value(self, at: int) -> bytes:
        """The value of put `at`."""
        if width := self.value_bytes:
            return self.values[at * width : (at + 1) * width]
        return self.values[self._ends[at - 1] if at else 0 : self._ends[at]]

    def deleted(self) -> Iterator[bytes]:
        """Every key to delete, in order."""
        for start in range(0, len(self.deletes), self.key_bytes):
            yield self.deletes[start : start + self.key_bytes]


class StepMessage(msgspec.Struct, frozen=True, array_like=True):
    """One step of one partition: the emitted rows, the ledger, and every mutation of the state."""

    epoch: Count
    partition: Count
    number: Count
    """1 for a partition's first step, then without a gap among the messages that count."""
    predecessor: Integer
    """Offset on `rows` of the last message that counted; `NO_PREDECESSOR` for the first."""
    source_first: Integer
    source_last: Integer
    """Offsets on `blocks` that this step took, both included; source_last = source_first - 1 if it took none."""
    stream_time_ms: Moment
    """The partition's stream time after this step; 0 while it is not known. Everything that was due before it is emitted by
    this step or an earlier one: if a step leaves due closings over, its stream time goes only up to the closings that it
    made."""
    meta: bytes
    """The ETL's own state between steps (msgpack of `app.core.etl.meta.EtlMeta`)."""
    rows: dict[str, bytes]
    """Flow -> Arrow IPC stream of its rows; a flow without rows is absent."""
    row_counts: dict[str, int]
    ledger: list[LedgerEntry]
    replays: list[Replay]
    changes: list[Changes]
    alarms: list[str] = []
    """Alarms for an operator: a declared gap, a refused block."""
    dead_letters: list[DeadLetter] = []

    @property
    def emits(self) -> bool:
        """Whether the sink must write something for it."""
        return bool(self.rows or self.ledger or self.replays or self.dead_letters)


class FollowedStep(StepMessage, frozen=True, array_like=True):
    """A step decoded without its rows.

    Recovery and standbys need only the state changes, and the rows are half of the message.
    """

    rows: msgspec.Raw  # type: ignore[assignment]


@lru_cache(maxsize=16)
def _ends_of(width: int, count: int) -> bytes:
    """The `value_ends` of `count` values of one width."""
    return struct.pack(f"<{count}I", *range(width, width * count + 1, width)) if width else b""


def _ends_of_all(values: Sequence[bytes]) -> bytes:
    """The `value_ends` of `values`."""
    count, widths = len(values), set(map(len, values))
    if len(widths) == 1 and (width := widths.pop()):
        return _ends_of(width, 1 << count.bit_length())[: 4 * count]
    return struct.pack(f"<{count}I", *accumulate(map(len, values)))


_END: Final = struct.Struct("<I")
_CUT_AT_ONCE: Final = 64


@lru_cache(maxsize=64)
def _cutter(width: int) -> struct.Struct:
    return struct.Struct(f"{width}s" * _CUT_AT_ONCE)


def cut_evenly(packed: bytes, width: int) -> list[bytes]:
    """The pieces of `width` bytes, one after the other, that `packed` consists of; a fifth of the time that slicing takes.

    Source: tuples of bytes come out of `struct` in one call; a format of any length would be compiled anew for each.
    """
    cutter = _cutter(width)
    whole = len(packed) // cutter.size * cutter.size
    pieces: list[bytes] = []
    for some in cutter.iter_unpack(memoryview(packed)[:whole]):
        pieces += some
    pieces += [packed[at : at + width] for at in range(whole, len(packed), width)]
    return pieces


_decoder = msgspec.msgpack.Decoder(StepMessage)
_followed_decoder = msgspec.msgpack.Decoder(FollowedStep)
_encoder = msgspec.msgpack.Encoder()


def encode_step(step: StepMessage) -> bytes:
    """The Kafka message of `step`."""
    return MAGIC + _encoder.encode(step)


class StepLog(NamedTuple):
    """The partition of `rows` that a reader reads."""

    topic: str
    partition: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def decode_step(message: bytes | None, log: StepLog | None = None) -> StepMessage:
    """The step in `message`.

    Args:
        message: from topic `rows`; None for a null value.
        log: the place of the message; None if steps of any epoch and partition are wanted.

    Raises:
        StepMessageInvalid: the message is no step of this log: every reader passes it over (rule E2).
        NewerFormat: it is a step of a newer version.
    """
    return _decoded(message, _decoder, log)


def decode_followed(message: bytes | None, log: StepLog | None = None) -> FollowedStep:
    """The step in `message` without its rows, for a reader that follows only the state; otherwise like `decode_step`."""
    return _decoded(message, _followed_decoder, log)


def _decoded(message: bytes | None, decoder: msgspec.msgpack.Decoder[StepT], log: StepLog | None) -> StepT:
    if message is None:
        raise StepMessageInvalid(f"step message: {NO_MESSAGE}")
    if message[: len(_NAME)] != _NAME or message[len(_NAME) : len(MAGIC)] not in _VERSIONS:
        raise StepMessageInvalid(f"not a step message: starts {message[:4].hex()}")
    refuse_newer("step message", int(message[len(_NAME) : len(MAGIC)]), STEP_VERSION)
    body = memoryview(message)[len(MAGIC) :]
    step = read(decoder, body, "step message", StepMessageInvalid)
    refuse_longer("step message", body, len(step.__struct_fields__))
    if log is not None and (step.epoch, step.partition) != (log.epoch, log.partition):
        raise StepMessageInvalid(f"a step of epoch {step.epoch} and partition {step.partition}, not of {log}")
    for change in step.changes:
        change.verify()
    return step


def digest_of(message: bytes) -> bytes:
    """16 bytes that identify a message on `rows` (rules E5, S5): XXH3, 128 bits; it finds mistakes, not attackers."""
    return xxh3_128_digest(message)
