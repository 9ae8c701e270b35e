"""The index of one partition's open window: of each event that waits only as much as the join needs.

The events themselves lie in the state's tables `pending` and `seconds`, one Arrow frame for each step that stored some. The
index holds of each event its join key, the digest of its page view, its rough size, and its row in the frame.
`app.core.join.window_state.load_window` makes it from the tables, and `app.core.join.window_state.learn_step` keeps it from
step messages alone. A decision reads the index, changes nothing, and looks only at frames that have an event due.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.join.join_order import FIRST, SECOND, Due, id_in, join_key_of, join_keys_of, joining_key_in, time_in
from app.core.rules import JoinRules
from app.core.state.encoding import pack_time

FRAME_COLUMNS: Final = ("received_at", "event_id", "digest", "size")
"""The columns of a stored frame that the index reads."""


class Waiting(NamedTuple):
    """A second event without a decision; the order is the join's: the earliest first."""

    join_key: bytes
    frame: int
    row: int
    size: int


class DueEntry(NamedTuple):
    """The next due event of a frame; sorts by the closing order."""

    due_ms: int
    kind: int
    event_id: str
    frame: int


class Frame:
    """The index of one stored frame, in closing order; `at` is the first event that is not yet passed."""

    __slots__ = ("at", "decided", "digests", "join_keys", "kind", "number", "places", "rows", "sizes", "span_ms")

    def __init__(self, kind: int, number: int, columns: pl.DataFrame, span_ms: int) -> None:
        """Index events from their `FRAME_COLUMNS`; each is due `span_ms` after it was received."""
        join_keys = join_keys_of(columns["received_at"].to_list(), columns["event_id"].to_list())
        rows = sorted(range(columns.height), key=join_keys.__getitem__)
        self.kind = kind
        self.number = number
        """The key of the frame in its table: a source offset."""
        self.span_ms = span_ms
        self.join_keys = list(map(join_keys.__getitem__, rows))
        self.digests: list[bytes] = list(map(columns["digest"].to_list().__getitem__, rows))
        self.sizes = array("Q", map(columns["size"].to_list().__getitem__, rows))
        self.rows = array("I", rows)
        self.places: list[int] = []
        """Row -> its position; made at the first question."""
        self.at = 0
        self.decided = BitMap()
        """Rows of second events that have a decision."""

    def __len__(self) -> int:
        return len(self.rows)

    def due_ms(self, at: int) -> int:
        """The time at which the event at position `at` is due."""
        return time_in(self.join_keys[at]) + self.span_ms

    def entry(self, at: int) -> DueEntry:
        """The event at position `at` of the closing order."""
        return DueEntry(self.due_ms(at), self.kind, id_in(self.join_keys[at]), self.number)

    def waiting(self) -> list[Waiting]:
        """The second events, each as one that waits."""
        return list(map(Waiting._make, zip(self.join_keys, repeat(self.number), self.rows, self.sizes)))

    def digest_of_row(self, row: int) -> bytes:
        """The page view of the event in `row` of the stored frame."""
        if not self.places:
            self.places = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        return self.digests[self.places[row]]

    def passed(self, closed: Due) -> int:
        """The number of events that are due at or before `closed`."""
        return bisect_right(self.join_keys, _last_passed(closed, self.kind, self.span_ms))


class OpenWindow:
    """The index of everything open in one partition."""

    def __init__(self, rules: JoinRules) -> None:
        self.first_span_ms = rules.upper_ms
        self.reorder_ms = rules.lower_ms
        self.closed = Due()
        self.first_events: dict[int, Frame] = {}
        self.second_events: dict[int, Frame] = {}
        self.order: list[DueEntry] = []
        """The next due event of each frame that has one, in closing order."""
        self.joining_keys: dict[bytes, bytes] = {}
        """Digest of a page view -> join key of its joining first event, while that is open."""
        self.waiting: dict[bytes, list[Waiting]] = {}
        """Digest of a page view -> its second events without a decision."""

    def frame(self, kind: int, number: int, columns: pl.DataFrame) -> Frame:
        """The index of a frame's `columns`, not yet part of the window."""
        return Frame(kind, number, columns, self.first_span_ms if kind == FIRST else self.reorder_ms)

    def add(self, frame: Frame, decided: BitMap | None = None) -> None:
        """Take a frame that the tables hold; `decided` rows of second events wait no more."""
        (self.first_events if frame.kind == FIRST else self.second_events)[frame.number] = frame
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
        frame = self.second_events[number]
        self._forget(frame, decided - frame.decided)
        frame.decided = decided

    def drop_first_events(self, number: int) -> None:
        """A frame of first events is gone: all are closed."""
        self._pass_over(self.first_events.pop(number), None)

    def drop_second_events(self, number: int) -> None:
        """A frame of second events is gone: all are decided."""
        frame = self.second_events.pop(number)
        self._forget(frame, BitMap(frame.rows) - frame.decided)
        self._pass_over(frame, None)

    def close(self, closed: Due) -> None:
        """Everything due up to `closed` has been closed."""
        self.closed = closed
        upto = bisect_right(self.order, DueEntry(*closed, _LAST))
        passed = self.order[:upto]
        del self.order[:upto]
        for entry in passed:
            frame = (self.first_events if entry.kind == FIRST else self.second_events)[entry.frame]
            self._pass_over(frame, closed)

    def learn_joining_keys(self, digests: Sequence[bytes], views: Sequence[bytes]) -> None:
        """Take the joining first event of each page view from `views`; the index keeps it while it is open."""
        join_keys = list(map(joining_key_in, views))
        passed = _last_passed(self.closed, FIRST, self.first_span_ms)
        if not join_keys or min(join_keys) > passed:  # nearly always
            self.joining_keys.update(zip(digests, join_keys, strict=True))
            return
        for digest, join_key in zip(digests, join_keys, strict=True):
            if join_key > passed:
                self.joining_keys[digest] = join_key
            else:
                self.joining_keys.pop(digest, None)

    def _pass_over(self, frame: Frame, closed: Due | None) -> None:
        """Move a frame behind `closed`, or to its end; passed first events join no more. It must not be in `order`."""
        upto = len(frame) if closed is None else frame.passed(closed)
        if closed is None and frame.at < upto:
            del self.order[bisect_left(self.order, frame.entry(frame.at))]
        if frame.kind == FIRST:
            joining_keys = self.joining_keys
            for digest, join_key in zip(frame.digests[frame.at : upto], frame.join_keys[frame.at : upto], strict=True):
                if joining_keys.get(digest) == join_key:
                    del joining_keys[digest]
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
    """The greatest join key among events of a kind that are due by `closed`; each is due `span_ms` after its receipt."""
    moment_ms = closed.due_ms - span_ms - (kind > closed.kind)
    if moment_ms < 0:
        return b""
    return join_key_of(moment_ms, closed.event_id) if kind == closed.kind else pack_time(moment_ms) + _BEHIND_ANY_ID


_LAST: Final = 2**63
_BEHIND_ANY_ID: Final = b"\xff"
"""No byte of UTF-8 is as great."""
