"""The changes of one or many steps as entries of a store: keys tagged with their table, each key once.

Entries that go to disk as a file of their own are sorted here, by columns; no work is done for a single key.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.core.formats.step_message import Changes, cut_evenly
from app.core.state.tables import KEY_BYTES

TAGS: Final = {"seen": b"s", "blocks": b"b", "views": b"v", "pending": b"p", "seconds": b"e"}
"""State table -> the tag with which its keys start; tables share families."""
TIME_BYTES: Final = 8
"""Width of the stored time with which an expiring entry's value starts."""
_AT_ONCE: Final = 4096
"""Entries that are objects at the same time; so few stay in the processor's cache."""
_Places = npt.NDArray[np.int64]

if TAGS.keys() != KEY_BYTES.keys():
    raise RuntimeError("every state table needs a tag")


class SortedTable(NamedTuple):
    """The entries of one table, each key once, with its last value."""

    tag: bytes
    keys: npt.NDArray[np.uint8]
    """uint8[m, width of a key]: the keys of all puts, in the order of the puts."""
    values: bytes
    """Their values, one after the other."""
    starts: _Places
    """int64[m], int64[m]: where each value starts and ends."""
    ends: _Places
    order: _Places
    """int64[n]: the puts that count, in ascending order of their keys."""

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (tagged key, value) in the order of the keys."""
        width = len(self.tag) + self.keys.shape[1]
        tagged = np.empty((_AT_ONCE, width), np.uint8)
        tagged[:, : len(self.tag)] = np.frombuffer(self.tag, np.uint8)
        values = self.values
        for at in range(0, len(self.order), _AT_ONCE):
            some = self.order[at : at + _AT_ONCE]
            tagged[: len(some), len(self.tag) :] = self.keys[some]
            keys = cut_evenly(tagged[: len(some)].tobytes(), width)
            cuts = zip(self.starts[some].tolist(), self.ends[some].tolist(), strict=True)
            yield from zip(keys, [values[start:end] for start, end in cuts], strict=True)


class SortedPuts(NamedTuple):
    """Entries of the expiring tables."""

    tables: Sequence[SortedTable]
    """In ascending order of their tags."""
    oldest_ms: int
    """The least and the greatest stored time of all entries."""
    youngest_ms: int

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
        puts = _table_of(name, [change for change in changes if change.table == name])
        if (puts.ends - puts.starts).min() < TIME_BYTES:
            return None
        stored = _times_at(puts.values, puts.starts)
        times += [int(stored.min()), int(stored.max())]
        tables.append(puts)
    return SortedPuts(tables, min(times), max(times)) if tables else None


def stored_times(change: Changes) -> npt.NDArray[np.uint64]:
    """The stored time of each entry that a change puts into an expiring table: uint64[n], milliseconds."""
    starts, _ = _value_places([change])
    return _times_at(change.values, starts)


def _table_of(name: str, parts: Sequence[Changes]) -> SortedTable:
    """The entries that the changes of one table put."""
    keys = np.frombuffer(b"".join(part.keys for part in parts), np.uint8).reshape(-1, KEY_BYTES[name])
    starts, ends = _value_places(parts)
    values = b"".join(part.values for part in parts)
    return SortedTable(TAGS[name], keys, values, starts, ends, _last_in_order(keys))


def _value_places(parts: Sequence[Changes]) -> tuple[_Places, _Places]:
    """Where each value starts and ends in the values of all parts, one after the other."""
    ends, base = [], 0
    for part in parts:
        ends.append(np.frombuffer(part.value_ends, "<u4").astype(np.int64) + base)
        base += len(part.values)
    behind = np.concatenate(ends)
    return np.concatenate(([0], behind))[:-1].astype(np.int64), behind


def _last_in_order(keys: npt.NDArray[np.uint8]) -> _Places:
    """The last put of each key, in ascending order of the keys.

    Keys are sorted as numbers: by their first 8 bytes, and by the others only if two keys begin alike.
    """
    words = [_numbers(keys[:, at : at + 8]) for at in range(0, keys.shape[1], 8)]
    order = np.argsort(words[0], kind="stable")
    first = words[0][order]
    if not (first[1:] == first[:-1]).any():  # nearly always
        return order
    order = np.lexsort(words[::-1])
    last = np.ones(len(order), np.bool_)
    last[:-1] = np.logical_or.reduce([word[order][1:] != word[order][:-1] for word in words])
    return order[last]


def _numbers(columns: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Big-endian numbers of at most 8 bytes: uint64[n] of uint8[n, width]."""
    wide = np.zeros((len(columns), 8), np.uint8)
    wide[:, 8 - columns.shape[1] :] = columns
    return wide.view(">u8").astype(np.uint64).reshape(-1)


def _times_at(values: bytes, starts: _Places) -> npt.NDArray[np.uint64]:
    """The stored times with which values start."""
    return _numbers(np.frombuffer(values, np.uint8)[starts[:, None] + np.arange(TIME_BYTES)])
