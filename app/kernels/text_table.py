"""A table of texts with their numbers, which grows as it must and forgets when it is full."""

from typing import Final

import numpy as np

from app.kernels.cells import PAD, Bytes, Ints, Words
from app.kernels.intern import ABSENT, fill_slots, intern
from app.kernels.secret import SECRET

_TEXTS: Final = 1 << 9
_BYTES: Final = 1 << 14


class TextTable:
    """Texts to numbers, in the order in which they were met; for one thread at a time.

    Args:
        most_texts: at so many texts it is full.
        most_bytes: at so many bytes of texts it is full.
    """

    def __init__(self, most_texts: int, most_bytes: int) -> None:
        self._most_texts, self._most_bytes = most_texts, most_bytes
        self.forget()

    def forget(self) -> None:
        """Begin again with no text, and give the memory back."""
        self._slots = np.full(2 * _TEXTS, ABSENT, np.int64)
        self._hashes = np.zeros(_TEXTS, np.uint64)
        self._ends = np.zeros(_TEXTS, np.int64)
        self._pool = np.empty(_BYTES + PAD, np.uint8)
        self._known = np.array([ABSENT + 1], np.int64)

    @property
    def known(self) -> int:
        """The next number."""
        return int(self._known[0])

    @property
    def is_full(self) -> bool:
        """Whether it should forget before it is asked again; it never does so itself, as numbers are in use."""
        return self.known > self._most_texts or self._ends[self.known - 1] > self._most_bytes

    def text(self, number: int) -> bytes:
        """The text of a number that was given."""
        return self._pool[self._ends[number - 1] : self._ends[number]].tobytes()

    def numbers(self, arena: Bytes, rec: Ints, present: Words, field: int) -> Ints:
        """int64[n]: the number of the text of `field` in each line, `ABSENT` if the line has none."""
        numbers = np.empty(len(rec), np.int64)
        done = 0
        while True:
            done = intern(
                arena, rec, present, field, done, SECRET,
                self._slots, self._hashes, self._ends, self._pool, self._known, numbers,
            )  # fmt: skip
            if done == len(numbers):
                return numbers
            self._grow()

    def _grow(self) -> None:
        """Make room: for more texts if their numbers are used up, otherwise for more bytes."""
        if self.known == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
            self._slots = np.full(2 * len(self._hashes), ABSENT, np.int64)
            fill_slots(self._hashes, self.known, self._slots)
        else:
            self._pool = np.concatenate([self._pool, np.empty_like(self._pool)])
