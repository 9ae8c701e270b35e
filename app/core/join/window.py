"""The open window of one partition: what waits to be closed, as light as it can be.

The events themselves lie in the state's tables `pending` and `seconds`, one Arrow frame a step that stored some. This index
holds of each only what the join's decisions need: its rank, the digest of its page view, its rough size, and its row in the
frame. It is rebuilt from the tables by `load` and kept by `advance` from step messages alone; deciding reads it and changes
nothing, and looks at no more frames than have something due.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.join.join_order import FIRST, SECOND, Due, id_in, joiner_in, rank_of, ranks_of, time_in
from app.core.rules import JoinRules
from app.core.state.encoding import pack_time

FRAME_COLUMNS: Final = ("received_at", "event_id", "digest", "size")
"""What of a stored frame the index reads."""


class Waiting(NamedTuple):
    """A second event without a decision; the order is the join's: the earliest first."""

    rank: bytes
    frame: int
    row: int
    size: int


class Entry(NamedTuple):
    """The next due event of a frame; sorts by the closing order."""

    due_ms: int
    kind: int
    event_id: str
    frame: int


class Frame:
    """What the index knows of one stored frame, in closing order; `at` is the first event not yet passed."""

    __slots__ = ("at", "decided", "digests", "kind", "number", "places", "ranks", "rows", "sizes", "span_ms")

    def __init__(self, kind: int, number: int, columns: pl.DataFrame, span_ms: int) -> None:
        """Index events from their `FRAME_COLUMNS`; each is due `span_ms` after it was received."""
        ranks = ranks_of(columns["received_at"].to_list(), columns["event_id"].to_list())
        rows = sorted(range(columns.height), key=ranks.__getitem__)
        self.kind = kind
        self.number = number
        """The key of the frame in its table: a source offset."""
        self.span_ms = span_ms
        self.ranks = list(map(ranks.__getitem__, rows))
        self.digests: list[bytes] = list(map(columns["digest"].to_list().__getitem__, rows))
        self.sizes = array("Q", map(columns["size"].to_list().__getitem__, rows))
        self.rows = array("I", rows)
        self.places: list[int] = []
        """Of each row its position, once somebody asked."""
        self.at = 0
        self.decided = BitMap()
        """Rows of second events that need no decision any more."""

    def __len__(self) -> int:
        return len(self.rows)

    def due_ms(self, at: int) -> int:
        """When the event at position `at` is due."""
        return time_in(self.ranks[at]) + self.span_ms

    def entry(self, at: int) -> Entry:
        """The event at position `at` of the closing order."""
        return Entry(self.due_ms(at), self.kind, id_in(self.ranks[at]), self.number)

    def waiting(self) -> list[Waiting]:
        """The events, each as it waits for a first event."""
        return list(map(Waiting._make, zip(self.ranks, repeat(self.number), self.rows, self.sizes)))

    def digest_of_row(self, row: int) -> bytes:
        """The page view of the event in `row` of the stored frame."""
        if not self.places:
            self.places = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        return self.digests[self.places[row]]

    def passed(self, closed: Due) -> int:
        """How many of the events are due at or before `closed`."""
        return bisect_right(self.ranks, _last_passed(closed, self.kind, self.span_ms))


class OpenWindow:
    """The index of everything open in one partition."""

    def __init__(self, rules: JoinRules) -> None:
        self.first_span_ms = rules.upper_ms
        self.reorder_ms = rules.lower_ms
        self.closed = Due()
        self.firsts: dict[int, Frame] = {}
        self.seconds: dict[int, Frame] = {}
        self.order: list[Entry] = []
        """The next due event of each frame that has one, in closing order."""
        self.joiners: dict[bytes, bytes] = {}
        """Digest of a page view -> rank of its joining first event, while that is open."""
        self.waiting: dict[bytes, list[Waiting]] = {}
        """Digest of a page view -> its second events without a decision."""

    def frame(self, kind: int, number: int, columns: pl.DataFrame) -> Frame:
        """The index of a frame's `columns`, not yet part of the window."""
        return Frame(kind, number, columns, self.first_span_ms if kind == FIRST else self.reorder_ms)

    def add(self, frame: Frame, decided: BitMap | None = None) -> None:
        """Take a frame that the tables hold; of second events `decided` rows wait no more."""
        (self.firsts if frame.kind == FIRST else self.seconds)[frame.number] = frame
        if frame.kind == SECOND:
            frame.decided = decided or BitMap()
            for digest, second in zip(frame.digests, frame.waiting(), strict=True):
                if not frame.decided or second.row not in frame.decided:
                    self.waiting.setdefault(digest, []).append(second)
        frame.at = frame.passed(self.closed)
        if frame.at < len(frame):
            insort(self.order, frame.entry(frame.at))

    def decide(self, number: int, decided: BitMap) -> None:
        """Take the decisions on some rows of a frame of second events."""
        frame = self.seconds[number]
        self._forget(frame, decided - frame.decided)
        frame.decided = decided

    def drop_firsts(self, number: int) -> None:
        """A frame of first events is gone: all are closed."""
        self._pass_over(self.firsts.pop(number), None)

    def drop_seconds(self, number: int) -> None:
        """A frame of second events is gone: all are decided."""
        frame = self.seconds.pop(number)
        self._forget(frame, BitMap(frame.rows) - frame.decided)
        self._pass_over(frame, None)

    def close(self, closed: Due) -> None:
        """Everything due up to `closed` has been closed."""
        self.closed = closed
        upto = bisect_right(self.order, Entry(*closed, _LAST))
        passed = self.order[:upto]
        del self.order[:upto]
        for entry in passed:
            frame = (self.firsts if entry.kind == FIRST else self.seconds)[entry.frame]
            self._pass_over(frame, closed)

    def learn_joiners(self, digests: Sequence[bytes], views: Sequence[bytes]) -> None:
        """`views` says who joins for each page view; it counts here while that first event is open."""
        ranks = list(map(joiner_in, views))
        passed = _last_passed(self.closed, FIRST, self.first_span_ms)
        if not ranks or min(ranks) > passed:  # nearly always
            self.joiners.update(zip(digests, ranks, strict=True))
            return
        for digest, rank in zip(digests, ranks, strict=True):
            if rank > passed:
                self.joiners[digest] = rank
            else:
                self.joiners.pop(digest, None)

    def _pass_over(self, frame: Frame, closed: Due | None) -> None:
        """Move a frame behind `closed`, or to its end; its passed first events join no more. It is not in `order` then."""
        upto = len(frame) if closed is None else frame.passed(closed)
        if closed is None and frame.at < upto:
            del self.order[bisect_left(self.order, frame.entry(frame.at))]
        if frame.kind == FIRST:
            joiners = self.joiners
            for digest, rank in zip(frame.digests[frame.at : upto], frame.ranks[frame.at : upto], strict=True):
                if joiners.get(digest) == rank:
                    del joiners[digest]
        frame.at = upto
        if closed is not None and upto < len(frame):
            insort(self.order, frame.entry(upto))

    def _forget(self, frame: Frame, rows: Iterable[int]) -> None:
        """Some second events wait no more."""
        for row in rows:
            digest = frame.digest_of_row(row)
            left = self.waiting.pop(digest)
            if len(left) > 1:  # seldom: it is one of several
                self.waiting[digest] = [found for found in left if found.frame != frame.number or found.row != row]


def _last_passed(closed: Due, kind: int, span_ms: int) -> bytes:
    """The greatest rank that an event of a kind, due `span_ms` after it was received, may have to be due by `closed`."""
    moment_ms = closed.due_ms - span_ms - (kind > closed.kind)
    if moment_ms < 0:
        return b""
    return rank_of(moment_ms, closed.event_id) if kind == closed.kind else pack_time(moment_ms) + _BEHIND_ANY_ID


_LAST: Final = 2**63
_BEHIND_ANY_ID: Final = b"\xff"
"""No byte of UTF-8 is as great."""
