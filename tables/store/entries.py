"""The changes of one or many steps as entries of a store: keys tagged with their table, each key once.

Entries that go to disk as a file of their own are sorted here, by columns; no work is done for a single key.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.core.formats.step_message import Changes, cut_evenly
from app.core.state.tables import KEY_BYTES, TIME_BYTES

TAGS: Final = {"seen": b"s", "blocks": b"b", "views": b"v", "pending": b"p", "seconds": b"e"}
"""State table -> the tag with which its keys start; tables share families."""
_AT_ONCE: Final = 4096
"""Entries that are objects at the same time; so few stay in the processor's cache."""
_WORD: Final = 8
_Places = npt.NDArray[np.int64]

if TAGS.keys() != KEY_BYTES.keys():
    raise RuntimeError("every state table needs a tag")


class SortedTable(NamedTuple):
    """The entries of one table, each key once, with its last value."""

    name: str
    keys: npt.NDArray[np.uint8]
    """uint8[m, width of a key]: the keys of all puts, in the order of the puts."""
    values: bytes
    """Their values, one after the other."""
    ends: _Places
    """int64[m]: where each value ends."""
    width: int
    """Bytes of every value; 0 if they differ."""
    stored: npt.NDArray[np.uint64]
    """uint64[m]: their stored times, milliseconds."""
    order: _Places
    """int64[n]: the puts that count, in ascending order of their keys."""

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (tagged key, value) in the order of the keys."""
        tag = TAGS[self.name]
        width = len(tag) + self.keys.shape[1]
        tagged = np.empty((_AT_ONCE, width), np.uint8)
        tagged[:, : len(tag)] = np.frombuffer(tag, np.uint8)
        for at in range(0, len(self.order), _AT_ONCE):
            some = self.order[at : at + _AT_ONCE]
            tagged[: len(some), len(tag) :] = self.keys[some]
            yield from zip(cut_evenly(tagged[: len(some)].tobytes(), width), self._values_of(some), strict=True)

    def _values_of(self, some: _Places) -> list[bytes]:
        if self.width:
            even = np.frombuffer(self.values, np.uint8).reshape(-1, self.width)
            return cut_evenly(even[some].tobytes(), self.width)
        starts, values = np.where(some > 0, self.ends[some - 1], 0), self.values
        return [values[start:end] for start, end in zip(starts.tolist(), self.ends[some].tolist(), strict=True)]


class SortedPuts(NamedTuple):
    """Entries of the expiring tables."""

    tables: Sequence[SortedTable]
    """In ascending order of their tags."""
    oldest_ms: int
    """The least and the greatest stored time of all entries."""
    youngest_ms: int

    def between(self, first_ms: int, end_ms: int) -> "SortedPuts":
        """The entries that are stored at `first_ms` or later, and before `end_ms`."""
        if first_ms <= self.oldest_ms and self.youngest_ms < end_ms:  # nearly always
            return self
        tables = []
        for table in self.tables:
            stored = table.stored[table.order]
            order = table.order[(stored >= first_ms) & (stored < end_ms)]
            if len(order):
                tables.append(table._replace(order=order))
        return SortedPuts(tables, max(first_ms, self.oldest_ms), min(end_ms - 1, self.youngest_ms))

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (tagged key, value) in the order of the keys."""
        return chain.from_iterable(table.entries() for table in self.tables)


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
        None if there are none, if one is deleted, or if a value has no stored time.
    """
    if any(change.deletes for change in changes):
        return None
    tables, times = [], []
    for name in sorted({change.table for change in changes if change.keys}, key=TAGS.__getitem__):
        parts = [change for change in changes if change.table == name]
        ends = _value_ends(parts)
        if np.diff(ends, prepend=0).min() < TIME_BYTES:
            return None
        tables.append(_table_of(name, parts, ends))
        times += [int(tables[-1].stored.min()), int(tables[-1].stored.max())]
    return SortedPuts(tables, min(times), max(times)) if tables else None


def stored_times(change: Changes) -> npt.NDArray[np.uint64]:
    """The stored time of each entry that a change puts into an expiring table: uint64[n], milliseconds."""
    return _times_in(change.values, _value_ends([change]), change.value_bytes)


def _table_of(name: str, parts: Sequence[Changes], ends: _Places) -> SortedTable:
    """The entries that the changes of one table put, whose values have these ends."""
    keys = np.frombuffer(b"".join(part.keys for part in parts), np.uint8).reshape(-1, KEY_BYTES[name])
    widths = {part.value_bytes for part in parts if part.keys}
    width = widths.pop() if len(widths) == 1 else 0
    values = b"".join(part.values for part in parts)
    return SortedTable(name, keys, values, ends, width, _times_in(values, ends, width), _last_in_order(keys))


def _value_ends(parts: Sequence[Changes]) -> _Places:
    """Where each value ends in the values of all parts, one after the other."""
    ends, base = [], 0
    for part in parts:
        ends.append(np.frombuffer(part.value_ends, "<u4").astype(np.int64) + base)
        base += len(part.values)
    return np.concatenate(ends)


def _last_in_order(keys: npt.NDArray[np.uint8]) -> _Places:
    """The last put of each key, in ascending order of the keys.

    Keys are sorted as numbers: by their first 8 bytes, and by the others only if two keys begin alike.
    """
    first = _numbers(keys[:, :_WORD])
    order = np.argsort(first)
    sorted_first = first[order]
    if not (sorted_first[1:] == sorted_first[:-1]).any():  # nearly always
        return order
    words = [_numbers(keys[:, at : at + _WORD]) for at in range(0, keys.shape[1], _WORD)]
    order = np.lexsort(words[::-1])
    last = np.ones(len(order), np.bool_)
    last[:-1] = np.logical_or.reduce([word[order][1:] != word[order][:-1] for word in words])
    return order[last]


def _numbers(columns: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Big-endian numbers of at most 8 bytes: uint64[n] of uint8[n, width]."""
    missing = _WORD - columns.shape[1]
    wide = np.pad(columns, ((0, 0), (missing, 0))) if missing else np.ascontiguousarray(columns)
    return wide.view(">u8").astype(np.uint64).reshape(-1)


def _times_in(values: bytes, ends: _Places, width: int) -> npt.NDArray[np.uint64]:
    """The stored times with which values start, of one width or of several (0)."""
    packed = np.frombuffer(values, np.uint8)
    if width:
        return _numbers(packed.reshape(-1, width)[:, :TIME_BYTES])
    starts = np.concatenate(([0], ends[:-1]))
    return _numbers(packed[starts[:, None] + np.arange(TIME_BYTES)])
