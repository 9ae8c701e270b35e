"""The changes of one or many steps as entries of a store: keys tagged with their table, each key once.

Entries that go to disk as a file of their own are sorted here, by columns; no work is done for a single key.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import polars as pl

from app.core.formats.step_message import Changes
from app.core.state.tables import KEY_BYTES

TAGS: Final = {"seen": b"s", "blocks": b"b", "views": b"v", "pending": b"p", "seconds": b"e"}
"""State table -> the tag with which its keys start; tables share families."""
TIME_BYTES: Final = 8
"""Width of the stored time with which an expiring entry's value starts."""
_NUMBER_BYTES: Final = 16
"""Keys of this width are compared as numbers, in half the time that comparing bytes takes."""
_AT_ONCE: Final = 4096
"""Entries that are objects at the same time; so few stay in the processor's cache."""


if TAGS.keys() != KEY_BYTES.keys():
    raise RuntimeError("every state table needs a tag")


class SortedPuts(NamedTuple):
    """Entries of the expiring tables, each key once, with its last value."""

    tables: Sequence[pl.DataFrame]
    """DataFrame[n rows] with columns key (tagged), value: in ascending order of the keys, table after table."""
    oldest_ms: int
    """The least and the greatest stored time of all entries."""
    youngest_ms: int

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) in the order of the keys."""
        return chain.from_iterable(
            zip(some["key"].to_list(), some["value"].to_list(), strict=True)
            for table in self.tables
            for some in table.iter_slices(_AT_ONCE)
        )


def last_changes(changes: Iterable[Changes]) -> dict[bytes, bytes | None]:
    """Tagged key -> its value after all `changes`, one after the other; None for a deleted key."""
    last: dict[bytes, bytes | None] = {}
    for change in changes:
        tag = TAGS[change.table]
        last.update((tag + key, None) for key in change.deleted())
        last.update((tag + key, value) for key, value in change.puts())
    return last


def sorted_puts(changes: Sequence[Changes]) -> SortedPuts | None:
    """The entries that `changes` put, one after the other, into the expiring tables.

    Returns:
        None if there are none, or if they are no plain columns: with a delete, or with values of several widths in a table.
    """
    names = sorted({change.table for change in changes if change.keys}, key=TAGS.__getitem__)
    tables: list[pl.DataFrame] = []
    times: list[Any] = []
    for name in names:
        parts = [change for change in changes if change.table == name and change.keys]
        widths = {part.value_bytes for part in parts}
        if len(widths) > 1 or min(widths) < TIME_BYTES:
            return None
        keys, values = b"".join(part.keys for part in parts), b"".join(part.values for part in parts)
        stored = _numbers(_starts(values, min(widths)), pl.UInt64)
        times += [stored.min(), stored.max()]
        tables.append(_entries(TAGS[name], keys, KEY_BYTES[name], values, min(widths)))
    if not tables or any(change.deletes for change in changes):
        return None
    return SortedPuts(tables, min(times), max(times))


def _entries(tag: bytes, keys: bytes, key_bytes: int, values: bytes, value_bytes: int) -> pl.DataFrame:
    """DataFrame[one row for each key] with columns key, value: the last value of each key, keys ascending."""
    key = pl.lit(keys).bin.slice(pl.col("at") * key_bytes, key_bytes)
    value = pl.lit(values).bin.slice(pl.col("at") * value_bytes, value_bytes)
    by = _numbers(keys, pl.UInt128) if key_bytes == _NUMBER_BYTES else key
    puts = pl.select(at=pl.int_range(0, len(keys) // key_bytes)).with_columns(by=by)
    differs = pl.col("by") != pl.col("by").shift(-1)
    last = puts.sort("by", maintain_order=True).filter(differs.fill_null(value=True))
    return last.select(key=pl.lit(tag) + key, value=value)


def _starts(values: bytes, width: int) -> bytes:
    """The first 8 bytes of every `width`."""
    if width == TIME_BYTES:
        return values
    starts = bytearray(len(values) // width * TIME_BYTES)
    for n in range(TIME_BYTES):
        starts[n::TIME_BYTES] = values[n::width]
    return bytes(starts)


def _numbers(packed: bytes, kind: type[pl.UInt64 | pl.UInt128]) -> pl.Series:
    """The big-endian numbers in `packed`."""
    count = len(packed) // (_NUMBER_BYTES if kind is pl.UInt128 else TIME_BYTES)
    return pl.Series([packed]).bin.reinterpret(dtype=pl.Array(kind, count), endianness="big").explode()
