"""The open window of one partition: what waits to be closed, as light as it can be.

The events themselves lie in the state's tables `pending` and `seconds`, one Arrow frame a step that stored some. This index
holds of each only what the join's decisions need: when it is due, its id, the digest of its page view, its rough size, and
its row in the frame. It is rebuilt from the tables by `load` and kept by `advance` from step messages alone; deciding reads
it and changes nothing, and looks at no more frames than have something due.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.meta import FIRST, SECOND, Due
from app.settings import JoinRules

FRAME_COLUMNS: Final = ("received_at", "event_id", "digest", "size")
"""What of a stored frame the index reads."""


class Waiting(NamedTuple):
    """A second event without a decision; the order is the join's: earliest by (received_at, event_id)."""

    received_ms: int
    event_id: str
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

    __slots__ = ("at", "decided", "digests", "dues", "event_ids", "kind", "number", "places", "rows", "sizes")

    def __init__(self, kind: int, number: int, columns: pl.DataFrame, span_ms: int) -> None:
        """Index events from their `FRAME_COLUMNS`; each is due `span_ms` after it was received."""
        received_ms: list[int] = columns["received_at"].to_list()
        event_ids: list[str] = columns["event_id"].to_list()
        rows = sorted(range(columns.height), key=list(zip(received_ms, event_ids, strict=True)).__getitem__)
        self.kind = kind
        self.number = number
        """The key of the frame in its table: a source offset."""
        self.dues = [received_ms[row] + span_ms for row in rows]
        self.event_ids = [event_ids[row] for row in rows]
        self.digests: list[bytes] = list(map(columns["digest"].to_list().__getitem__, rows))
        self.sizes: list[int] = list(map(columns["size"].to_list().__getitem__, rows))
        self.rows = rows
        self.places: list[int] = []
        """Of each row its position, once somebody asked."""
        self.at = 0
        self.decided = BitMap()
        """Rows of second events that need no decision any more."""

    def __len__(self) -> int:
        return len(self.rows)

    def entry(self, at: int) -> Entry:
        """The event at position `at` of the closing order."""
        return Entry(self.dues[at], self.kind, self.event_ids[at], self.number)

    def waiting(self, span_ms: int) -> list[Waiting]:
        """The events, each as it waits for a first event; they are due `span_ms` after they were received."""
        number = self.number
        return [
            Waiting(due - span_ms, event_id, number, row, size)
            for due, event_id, row, size in zip(self.dues, self.event_ids, self.rows, self.sizes, strict=True)
        ]

    def digest_of_row(self, row: int) -> bytes:
        """The page view of the event in `row` of the stored frame."""
        if not self.places:
            self.places = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        return self.digests[self.places[row]]

    def passed(self, closed: Due) -> int:
        """How many of the events are due at or before `closed`."""
        low, high = 0, len(self.rows)
        while low < high:
            middle = (low + high) // 2
            if (self.dues[middle], self.kind, self.event_ids[middle]) <= closed:
                low = middle + 1
            else:
                high = middle
        return low


class OpenWindow:
    """The index of everything open in one partition."""

    def __init__(self, rules: JoinRules) -> None:
        self.first_span_ms = rules.window_ms + rules.grace_ms
        self.reorder_ms = rules.reorder_ms
        self.closed = Due()
        self.firsts: dict[int, Frame] = {}
        self.seconds: dict[int, Frame] = {}
        self.order: list[Entry] = []
        """The next due event of each frame that has one, in closing order."""
        self.joiners: dict[bytes, tuple[int, str]] = {}
        """Digest of a page view -> (received_at, event_id) of its joining first event, while that is open."""
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
            for digest, second in zip(frame.digests, frame.waiting(self.reorder_ms), strict=True):
                if second.row not in frame.decided:
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

    def learn_joiner(self, digest: bytes, received_ms: int, event_id: str) -> None:
        """`views` says who joins for a page view; it counts here while that first event is open."""
        if (received_ms + self.first_span_ms, FIRST, event_id) > self.closed:
            self.joiners[digest] = (received_ms, event_id)
        else:
            self.joiners.pop(digest, None)

    def _pass_over(self, frame: Frame, closed: Due | None) -> None:
        """Move a frame behind `closed`, or to its end; its passed first events join no more. It is not in `order` then."""
        upto = len(frame) if closed is None else frame.passed(closed)
        if closed is None and frame.at < upto:
            del self.order[bisect_left(self.order, frame.entry(frame.at))]
        if frame.kind == FIRST:
            for at in range(frame.at, upto):
                if self.joiners.get(frame.digests[at]) == (frame.dues[at] - self.first_span_ms, frame.event_ids[at]):
                    del self.joiners[frame.digests[at]]
        frame.at = upto
        if closed is not None and upto < len(frame):
            insort(self.order, frame.entry(upto))

    def _forget(self, frame: Frame, rows: Iterable[int]) -> None:
        """Some second events wait no more."""
        for row in rows:
            digest = frame.digest_of_row(row)
            left = [found for found in self.waiting[digest] if found.frame != frame.number or found.row != row]
            if left:
                self.waiting[digest] = left
            else:
                del self.waiting[digest]


_LAST: Final = 2**63
