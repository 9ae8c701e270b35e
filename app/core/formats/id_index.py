"""The index of ids: from the id of an event, or of a page view, to the lines of raw files that carry it.

A segment is one object. It covers some batches of one hour of raw files:

    byte    0      4        8       12      16       24
            IDX1   batches  events  views   digest   batch ids     events          views
            magic  count    count   count   of what  16 bytes      8 bytes each,   8 bytes each,
                                            follows  each          ascending       ascending

An entry is 64 bits: 32 bits of the id's hash, 16 bits that number a batch in the segment's list, 16 bits of line. All
integers are little-endian. Events and page views are apart, and their hashes differ: an event may have its page view's id.

Hashes are uniform, so the place of an id in its section is known within some kilobytes: the search reads those alone
(`app.core.audit.trace.search`). It needs the counts beforehand, and so the object's key has them
(`app.core.formats.object_keys`). An entry is a hint: two ids may share a hash, and the line itself decides.

Versions (rule E10): the fourth byte of the magic and the ending of the key. A segment is written once and never changed; it
can be made again from the raw files at any time.
"""

import struct
import sys
import uuid
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import polars as pl
from xxhash import xxh3_64_intdigest

from app.core.formats.decoding import NO_MESSAGE, refuse_newer
from app.errors import FormatInvalid

Entries: TypeAlias = "array[int]"
"""Entries of one kind, ascending."""

INDEX_VERSION: Final = 1
_NAME: Final = b"IDX"
_VERSIONS: Final = frozenset(b"%d" % version for version in range(1, 10))
_HEAD: Final = struct.Struct("<4sIIIQ")
HEAD_BYTES: Final = _HEAD.size
BATCH_BYTES: Final = 16
ENTRY_BYTES: Final = 8
HASH_BITS: Final = 32
_PLACE_BITS: Final = 64 - HASH_BITS
_LINE_BITS: Final = 16
_HIGH: Final = ((1 << HASH_BITS) - 1) << _PLACE_BITS
MOST_BATCHES: Final = 1 << (_PLACE_BITS - _LINE_BITS)
"""Batches in one segment."""
_SEED_EVENT: Final = 1
_SEED_VIEW: Final = 2


class Counts(NamedTuple):
    """The numbers that say where the parts of a segment lie."""

    batches: int
    events: int
    views: int

    @property
    def size_bytes(self) -> int:
        """The size of the object."""
        return HEAD_BYTES + BATCH_BYTES * self.batches + ENTRY_BYTES * (self.events + self.views)

    @property
    def events_at(self) -> int:
        """The byte at which the entries of events begin."""
        return HEAD_BYTES + BATCH_BYTES * self.batches

    @property
    def views_at(self) -> int:
        """The byte at which the entries of page views begin."""
        return self.events_at + ENTRY_BYTES * self.events


class Segment(NamedTuple):
    """The content of a segment."""

    batch_ids: list[str]
    """The number of a batch is its place here."""
    events: Entries
    """Entries of event ids, ascending."""
    views: Entries
    """Entries of page view ids, ascending."""

    @property
    def counts(self) -> Counts:
        """The numbers of its parts."""
        return Counts(len(self.batch_ids), len(self.events), len(self.views))


class IndexedLine(NamedTuple):
    """A batch, by its number in a segment, and a line of it."""

    batch: int
    line: int


def hash_of_event(event_id: str) -> int:
    """The 32 bits that stand for an event's id."""
    return xxh3_64_intdigest(event_id.encode(), _SEED_EVENT) >> _PLACE_BITS


def hash_of_view(page_view_id: str) -> int:
    """The 32 bits that stand for a page view's id."""
    return xxh3_64_intdigest(page_view_id.encode(), _SEED_VIEW) >> _PLACE_BITS


def hash_in(entry: int) -> int:
    """The hash in an entry."""
    return entry >> _PLACE_BITS


def place_in(entry: int) -> IndexedLine:
    """The place in an entry."""
    return IndexedLine(entry >> _LINE_BITS & (MOST_BATCHES - 1), entry & ((1 << _LINE_BITS) - 1))


class IdsOfBatch(NamedTuple):
    """The ids in a batch's lines; None for a line that has no such id."""

    batch_id: str
    event_ids: Sequence[str | None]
    page_view_ids: Sequence[str | None]


def build(batches: Sequence[IdsOfBatch]) -> Segment:
    """The segment of some batches, at most `MOST_BATCHES`.

    Guarantees: the same batches in any order give the same segment.
    """
    ordered = sorted(batches, key=lambda batch: batch.batch_id)
    events, views = _Column(_SEED_EVENT), _Column(_SEED_VIEW)
    for number, batch in enumerate(ordered):
        events.add(number, batch.event_ids)
        views.add(number, batch.page_view_ids)
    return Segment([batch.batch_id for batch in ordered], events.entries(), views.entries())


class _Column:
    """Gathers the entries of one kind of id."""

    def __init__(self, seed: int) -> None:
        self._hash = partial(xxh3_64_intdigest, seed=seed)
        self._hashes: list[int] = []
        self._places: list[int] = []

    def add(self, batch: int, ids: Sequence[str | None]) -> None:
        """Add an entry for each id of a batch."""
        first = batch << _LINE_BITS
        if None in ids:
            lines = [line for line, name in enumerate(ids) if name is not None]
            self._places += [first + line for line in lines]
        else:
            self._places += range(first, first + len(ids))
        self._hashes += map(self._hash, [name.encode() for name in ids if name is not None])

    def entries(self) -> Entries:
        """The entries, ascending."""
        hashes = pl.Series(self._hashes, dtype=pl.UInt64)
        return _ascending((hashes & _HIGH) | pl.Series(self._places, dtype=pl.UInt64))


def merge(segments: Sequence[Segment]) -> Segment:
    """One segment with everything that some segments hold; together they have at most `MOST_BATCHES` batches.

    A batch that two of them hold is listed twice, and its entries are there twice: the reader sees the same lines twice.
    """
    firsts = [sum(len(segment.batch_ids) for segment in segments[:n]) for n in range(len(segments))]

    def moved(columns: Iterable[Entries]) -> Entries:
        parts = [
            pl.Series(column, dtype=pl.UInt64) + (first << _LINE_BITS) for column, first in zip(columns, firsts, strict=True)
        ]
        return _ascending(pl.concat(parts)) if parts else array("Q")

    return Segment(
        [batch_id for segment in segments for batch_id in segment.batch_ids],
        moved(segment.events for segment in segments),
        moved(segment.views for segment in segments),
    )


def _ascending(entries: pl.Series) -> Entries:
    return array("Q", entries.sort().to_list())


def encode_segment(segment: Segment) -> bytes:
    """The object of a segment."""
    table = b"".join(uuid.UUID(batch_id).bytes for batch_id in segment.batch_ids)
    body = table + _packed(segment.events) + _packed(segment.views)
    return _HEAD.pack(b"%s%d" % (_NAME, INDEX_VERSION), *segment.counts, xxh3_64_intdigest(body)) + body


def digest_in(data: bytes) -> int:
    """The digest in the head of a segment's object."""
    digest: int = _HEAD.unpack_from(data)[-1]
    return digest


def decode_segment(data: bytes) -> Segment:
    """The segment in an object.

    Raises:
        FormatInvalid: the bytes are no segment, or are damaged.
        NewerFormat: it is one of a newer version.
    """
    counts, digest = _read_head(data)
    body = memoryview(data)[HEAD_BYTES:]
    if len(data) != counts.size_bytes or xxh3_64_intdigest(body) != digest:
        raise FormatInvalid(f"index segment: {len(data)} bytes are not the {counts.size_bytes} that were written")
    return Segment(
        batches_in(data[HEAD_BYTES : counts.events_at]),
        entries_in(data[counts.events_at : counts.views_at]),
        entries_in(data[counts.views_at :]),
    )


def _read_head(data: bytes) -> tuple[Counts, int]:
    if len(data) < HEAD_BYTES or data[:3] != _NAME or data[3:4] not in _VERSIONS:
        raise FormatInvalid(f"index segment: {NO_MESSAGE if not data else f'starts {data[:4].hex()}'}")
    refuse_newer("index segment", int(data[3:4]), INDEX_VERSION)
    _, batches, events, views, digest = _HEAD.unpack_from(data)
    return Counts(batches, events, views), digest


def batches_in(packed: bytes) -> list[str]:
    """The batch ids in a part of a segment's list."""
    if len(packed) % BATCH_BYTES:
        raise FormatInvalid(f"index segment: {len(packed)} bytes are no list of batch ids")
    return [str(uuid.UUID(bytes=packed[at : at + BATCH_BYTES])) for at in range(0, len(packed), BATCH_BYTES)]


def entries_in(packed: bytes) -> Entries:
    """The entries in a part of a section.

    Raises:
        FormatInvalid: the bytes are no whole number of entries.
    """
    if len(packed) % ENTRY_BYTES:
        raise FormatInvalid(f"index segment: {len(packed)} bytes are no entries")
    entries: Entries = array("Q")
    entries.frombytes(packed)
    return _in_order(entries)


def _packed(entries: Entries) -> bytes:
    return _in_order(entries[:] if sys.byteorder == "big" else entries).tobytes()


def _in_order(entries: Entries) -> Entries:
    """The entries with their bytes in the order of the file."""
    if sys.byteorder == "big":
        entries.byteswap()
    return entries
