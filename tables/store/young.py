"""The newest values of a table whose keys are digests, as long as the database does not have them."""

from bisect import bisect_right
from typing import Final

import numpy as np
import numpy.typing as npt

from app.core.formats.step_message import Changes
from app.core.state.encoding import digests_in
from app.kernels.secret import SECRET
from app.kernels.young import young_find, young_put

_LEAST: Final = 1 << 12
"""Slots of an empty table."""


class Young:
    """Digest -> its last value. The values stay in the changes that put them.

    Digests are put into the hash table at the first question, so a store that only follows the log spends no time on it.
    """

    def __init__(self) -> None:
        self._changes: list[Changes] = []
        self._bases: list[int] = []
        """The place of the first put of each change in the table."""
        self._places = 0
        self._size = 0
        self._slots = np.full(_LEAST, -1, np.int32)
        self._digests, self._at = np.empty((_LEAST // 2, 2), np.uint64), np.empty(_LEAST // 2, np.int64)

    def put(self, change: Changes) -> None:
        """Take the puts of a change, after all others."""
        self._changes.append(change)

    def find(self, digests: npt.NDArray[np.uint64]) -> list[bytes | None]:
        """The value of each digest, uint64[n, 2]; None where there is none."""
        for change in self._changes[len(self._bases) :]:
            self._index(change)
        found = np.empty(len(digests), np.int64)
        if not young_find(self._slots, self._digests, self._at, digests, found, SECRET):
            return [None] * len(digests)
        return [None if place < 0 else self._value(place) for place in found.tolist()]

    def clear(self) -> None:
        """Forget everything."""
        if self._bases:
            self._slots.fill(-1)
        self._changes, self._bases = [], []
        self._places = self._size = 0

    def _index(self, change: Changes) -> None:
        digests = digests_in(change.keys)
        wanted = self._size + len(digests)
        if 2 * wanted > len(self._slots):
            self._resize(1 << (2 * wanted - 1).bit_length())
        self._size = young_put(self._slots, self._digests, self._at, self._size, digests, self._places, SECRET)
        self._bases.append(self._places)
        self._places += len(digests)

    def _value(self, place: int) -> bytes:
        n = bisect_right(self._bases, place) - 1
        return self._changes[n].value(place - self._bases[n])

    def _resize(self, slots: int) -> None:
        """Have so many slots, a power of two."""
        size, digests, at = self._size, np.empty((slots // 2, 2), np.uint64), np.empty(slots // 2, np.int64)
        self._slots = np.full(slots, -1, np.int32)
        young_put(self._slots, digests, at, 0, self._digests[:size], 0, SECRET)
        at[:size] = self._at[:size]  # each is again the entry that it was
        self._digests, self._at = digests, at
