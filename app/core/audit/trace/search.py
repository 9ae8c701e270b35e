"""The search for an id's entries in a section of the index, without I/O: it asks for ranges, and is given their entries.

Hashes are uniform, so among n entries the first one of a hash lies within a few square roots of n of its expected place.
The first range is as wide as that, and nearly always it is enough. Many entries of one hash (a page view with many events)
shift the others: then the search narrows its bounds by interpolation and by halves in turn.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isqrt
from typing import Final, NamedTuple

from app.core.formats.id_index import HASH_BITS, hash_in

LEAST: Final = 256
"""Entries in a range at least."""
DEVIATIONS: Final = 4
"""The first range reaches so many standard deviations to both sides. Each is at most half a square root of n."""


class Asked(NamedTuple):
    """A range of entries."""

    first: int
    end: int


class EntrySearch:
    """Finds the entries of one hash in a sorted section of `count` entries."""

    def __init__(self, count: int, wanted: int, most: int) -> None:
        """Search a section.

        Args:
            count: the number of its entries.
            wanted: the hash.
            most: end with so many entries, even if the section has more.
        """
        self.found: list[int] = []
        self.is_cut = False
        """Whether there may be more entries than `most`."""
        self._wanted = wanted
        self._most = most
        self._width = max(LEAST, DEVIATIONS * isqrt(count))
        # The first entry that is not below `wanted` has a place in [low, high]; the hashes bound the interpolation.
        self._low, self._high = 0, count
        self._low_hash, self._high_hash = 0, 1 << HASH_BITS
        self._count = count
        self._tries = 0
        self._next: int | None = None
        """Once the first entry is found: the place behind the last range."""
        self._is_done = count == 0

    def ask(self) -> Asked | None:
        """The range to read next; None if the search has ended."""
        if self._is_done:
            return None
        if self._next is not None:
            return Asked(self._next, min(self._count, self._next + self._width))
        first = max(self._low, min(self._guess() - self._width // 2, self._high + 1 - self._width))
        return Asked(first, min(self._count, first + self._width))

    def take(self, asked: Asked, entries: Sequence[int]) -> None:
        """Look at the entries of the range that was asked for."""
        if self._next is None:
            self._narrow(asked, entries)
        else:
            self._gather(asked, entries)

    def _guess(self) -> int:
        if self._tries % 2:
            return (self._low + self._high) // 2
        span = max(1, self._high_hash - self._low_hash)
        return self._low + (self._high - self._low) * (self._wanted - self._low_hash) // span

    def _narrow(self, asked: Asked, entries: Sequence[int]) -> None:
        self._tries += 1
        at = bisect_left(entries, self._wanted, key=hash_in)
        if at == 0 and asked.first > self._low:  # the first one may lie further to the left
            self._high, self._high_hash = asked.first, hash_in(entries[0])
        elif at == len(entries) and asked.end <= self._high and asked.end < self._count:
            self._low, self._low_hash = asked.end, hash_in(entries[-1])
        else:
            self._gather(asked, entries)

    def _gather(self, asked: Asked, entries: Sequence[int]) -> None:
        first = bisect_left(entries, self._wanted, key=hash_in)
        end = bisect_right(entries, self._wanted, key=hash_in)
        self.found += entries[first:end]
        self._next = asked.end
        self._is_done = end < len(entries) or asked.end == self._count
        if len(self.found) > self._most:
            del self.found[self._most :]
            self.is_cut = self._is_done = True
