"""The arrays of an open window, as `app.kernels.join.layout` describes them, and their growth.

A table grows to double its size before events come in that it has no room for. Nothing that a table answers changes by that.
"""

from typing import Final

import numpy as np

from app.kernels.cells import Ints
from app.kernels.join.layout import IDS, NONE, VIEW_COLUMNS
from app.kernels.join.page_views import empty_places, move_places
from app.kernels.join.window import COUNTS, FREE, GIVEN, LIVE, move_events
from app.kernels.secret import SECRET

_EVENTS: Final = 1024
_VIEWS: Final = 1024
_WORDS: Final = 5
"""Words of a UUID's text."""
_WORD_BYTES: Final = 8
_SIGN: Final = np.uint64(1 << 63)


class OpenTables:
    """The events and page views of an open window."""

    def __init__(self) -> None:
        self.secret = SECRET
        self.events: Ints = np.full((_EVENTS, IDS + _WORDS), NONE, np.int64)
        self.head = 0
        """The slot that the next event gets."""
        self._frames: dict[int, int] = {}
        """Slot of the first event -> length, for each frame of the window, in order of the slots."""
        self.views: Ints = np.full((_VIEWS, VIEW_COLUMNS), NONE, np.int64)
        self.places: Ints = empty_places(_VIEWS)
        self.counts: Ints = np.zeros(COUNTS, np.int64)
        self.counts[FREE] = NONE

    @property
    def words(self) -> int:
        """The words that an id has room for."""
        return int(self.events.shape[1]) - IDS

    @property
    def size_bytes(self) -> int:
        """The memory of all tables."""
        return self.events.nbytes + self.views.nbytes + self.places.nbytes

    def rows_of(self, slots: Ints) -> Ints:
        """The rows of `events` in which the events of the window lie."""
        return slots & (len(self.events) - 1)

    def id_at(self, slot: int) -> str:
        """The id of an event of the window."""
        return id_in_words(self.events[slot & (len(self.events) - 1), IDS:])

    def place(self, length: int) -> int:
        """The slot of the first event of a new frame; `fit_events` has made room for it."""
        base = self.head
        self._frames[base] = length
        self.head += length
        return base

    def free(self, base: int) -> None:
        """A frame is gone, and the room of its events is free. No other event gets their slots."""
        del self._frames[base]

    def fit_ids(self, longest: int) -> None:
        """Make room for ids of so many bytes."""
        words = -(-longest // _WORD_BYTES)
        if words > self.words:
            self._move(len(self.events), words)

    def fit_events(self, more: int) -> None:
        """Make room for so many more events."""
        capacity, begin = len(self.events), next(iter(self._frames), self.head)
        while self.head + more - begin > capacity:
            capacity *= 2
        if capacity > len(self.events):
            self._move(capacity, self.words)

    def fit_views(self, more: int) -> None:
        """Make room for so many more page views."""
        given = int(self.counts[GIVEN]) + max(0, more - self._free)
        if given > len(self.views):
            views = np.full((max(given, 2 * len(self.views)), VIEW_COLUMNS), NONE, np.int64)
            views[: len(self.views)] = self.views
            self.views = views
        if 2 * (int(self.counts[LIVE]) + more) > len(self.places):
            places = empty_places(int(self.counts[LIVE]) + more)
            move_places(self.places, places)
            self.places = places

    @property
    def _free(self) -> int:
        return int(self.counts[GIVEN] - self.counts[LIVE])

    def _move(self, capacity: int, words: int) -> None:
        events = np.empty((capacity, IDS + words), np.int64)
        for base, length in self._frames.items():
            move_events(self.events, events, base, length)
        self.events = events


def words_of(event_id: str, words: int) -> Ints:
    """An id as words, cut to so many."""
    text = event_id.encode()[: words * _WORD_BYTES].ljust(words * _WORD_BYTES, b"\0")
    return (np.frombuffer(text, ">u8").astype(np.uint64) ^ _SIGN).view(np.int64)


def id_in_words(words: Ints) -> str:
    """The id in words."""
    text = (np.ascontiguousarray(words).view(np.uint64) ^ _SIGN).astype(">u8").tobytes()
    return text.rstrip(b"\0").decode()
