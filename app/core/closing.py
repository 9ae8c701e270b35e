"""What closes in a step: each first with its second, and the seconds that nobody takes (rules J2, J3).

Everything due before stream time closes in one total order: due time, firsts before seconds, event id. Where the order is
needed is at the end of a message's room only: what is left over lies behind everything that was closed. Otherwise who joins
whom does not depend on it, as the closing of a first and of a second never look at the same event:

A second s whose page view's joining first f was received before s is due is left to f, whichever is closed earlier. Where f
was received later, s is due before f and nobody's; and f, closed before it or after, takes no second that lies further than
reorder behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Final, NamedTuple

from app.core.join import View
from app.core.meta import FIRST, Due
from app.core.window import Frame, OpenWindow, Waiting

EXTRA: Final = "extra"
LATE: Final = "late"
NO_FIRST: Final = "no_first"

Place = tuple[int, int]
"""Number of a frame, and a row in it."""


class Closing(NamedTuple):
    """What closes in a step."""

    firsts: list[Place]
    joined: list[Place | None]
    """Of each first the second event that it takes."""
    seconds: list[Place]
    """Second events that become engagements."""
    reasons: list[str]
    """Of each of them why."""
    closed: Due
    """Everything up to here is closed."""
    more: bool
    """Whether something due is left over, because the step's budget is spent."""


class NewFrames(NamedTuple):
    """What this step itself brings into the window; its rows are those of the arrived columns."""

    firsts: Frame | None
    seconds: Frame | None
    views: Mapping[bytes, View]


def close_due(window: OpenWindow, new: NewFrames, stream_time_ms: int, budget_bytes: int) -> Closing:
    """Close everything due before `stream_time_ms`, as far as the budget reaches.

    What was due before anything of this step (events of an old block, resent) is closed whatever it costs: it is never
    stored. Guarantees: at least one decision, if any is due and `budget_bytes` is positive.
    """
    return _Closer(window, new, budget_bytes).run(stream_time_ms)


class _Closer:
    """One run of `close_due`."""

    def __init__(self, window: OpenWindow, new: NewFrames, budget_bytes: int) -> None:
        self._window = window
        self._new = new
        self._left = budget_bytes
        self._span = window.first_span_ms
        self._reorder = window.reorder_ms
        self._arriving = frozenset(() if new.seconds is None else new.seconds.digests)
        self._arrived: dict[bytes, list[Waiting]] | None = None
        """By page view the seconds that this step brings, made when one of `_arriving` is asked for: a first that closes in
        the very step in which its second comes is rare."""
        self._gone: set[Place] = set()
        self._out = Closing([], [], [], [], window.closed, more=False)

    def run(self, stream_time_ms: int) -> Closing:
        closed: tuple[int, int, str] = self._window.closed
        for due, kind, event_id, frame, at in self._due(stream_time_ms):
            place = (due, kind, event_id)
            forced = place <= closed
            close = self._close_first if kind == FIRST else self._close_second
            if not close(frame, at, forced=forced):
                return self._out._replace(closed=Due(*closed), more=True)
            if not forced:
                closed = place
        return self._out._replace(closed=Due(*max(closed, Due(stream_time_ms))))

    def _due(self, stream_time_ms: int) -> Iterator[tuple[int, int, str, Frame, int]]:
        """Everything due, in closing order; frames of the window are looked at only when their turn comes."""
        # Entries of the heap: due time, kind, event id, number of the frame, position in it, the frame.
        heap: list[tuple[int, int, str, int, int, Frame]] = []
        for own in (self._new.firsts, self._new.seconds):
            if own is not None and len(own):
                heappush(heap, (*own.entry(0), 0, own))
        stored = (self._window.firsts, self._window.seconds)
        order, admitted = self._window.order, 0
        while True:
            while admitted < len(order) and (not heap or order[admitted] <= heap[0]):
                entry = order[admitted]
                frame = stored[entry.kind][entry.frame]
                heappush(heap, (*entry, frame.at, frame))
                admitted += 1
            if not heap or heap[0][0] >= stream_time_ms:
                return
            due, kind, event_id, number, at, frame = heap[0]
            yield due, kind, event_id, frame, at
            at += 1
            if at < len(frame.dues):
                heapreplace(heap, (frame.dues[at], kind, frame.event_ids[at], number, at, frame))
            else:
                heappop(heap)

    def _close_first(self, frame: Frame, at: int, *, forced: bool) -> bool:
        """Emit a first with its second, after all seconds that it leaves over; False where the budget ends before."""
        digest, upper = frame.digests[at], frame.dues[at]
        joined: Waiting | None = None
        found = self._undecided(digest)
        if found and self._joiner(digest) == (upper - self._span, frame.event_ids[at]):
            lower = upper - self._span - self._reorder
            found = sorted(second for second in found if second.received_ms >= lower)
            if found and found[0].received_ms <= upper:
                joined = found.pop(0)
            for second in found:
                if not self._emit_second(second, EXTRA if second.received_ms <= upper else LATE, forced=forced):
                    return False
        if not self._spend(frame.sizes[at] + (joined.size if joined else 0), forced=forced):
            return False
        self._out.firsts.append((frame.number, frame.rows[at]))
        self._out.joined.append((joined.frame, joined.row) if joined else None)
        if joined:
            self._gone.add((joined.frame, joined.row))
        return True

    def _close_second(self, frame: Frame, at: int, *, forced: bool) -> bool:
        """Emit a second that met no first in time; one whose first is open waits for that to close."""
        row = frame.rows[at]
        if row in frame.decided or (frame.number, row) in self._gone:
            return True
        joiner = self._joiner(frame.digests[at])
        if joiner is not None and joiner[0] <= frame.dues[at]:
            return True
        found = Waiting(frame.dues[at] - self._reorder, frame.event_ids[at], frame.number, row, frame.sizes[at])
        return self._emit_second(found, NO_FIRST, forced=forced)

    def _joiner(self, digest: bytes) -> tuple[int, str] | None:
        """(received_at, event_id) of the joining first of a page view, as far as it was open before this run."""
        view = self._new.views.get(digest)
        return self._window.joiners.get(digest) if view is None else (view.received_ms, view.event_id)

    def _undecided(self, digest: bytes) -> Sequence[Waiting]:
        waiting: Sequence[Waiting] = self._window.waiting.get(digest, ())
        if digest in self._arriving:
            if self._arrived is None:
                self._arrived = self._by_view()
            waiting = [*waiting, *self._arrived[digest]]
        if waiting and self._gone:
            return [second for second in waiting if (second.frame, second.row) not in self._gone]
        return waiting

    def _by_view(self) -> dict[bytes, list[Waiting]]:
        arrived: dict[bytes, list[Waiting]] = {}
        frame = self._new.seconds
        if frame is not None:
            for digest, second in zip(frame.digests, frame.waiting(self._reorder), strict=True):
                arrived.setdefault(digest, []).append(second)
        return arrived

    def _emit_second(self, second: Waiting, reason: str, *, forced: bool) -> bool:
        if not self._spend(second.size, forced=forced):
            return False
        self._gone.add((second.frame, second.row))
        self._out.seconds.append((second.frame, second.row))
        self._out.reasons.append(reason)
        return True

    def _spend(self, size: int, *, forced: bool) -> bool:
        """Take `size` from the budget; the last decision may overdraw it, so that one always fits."""
        if self._left <= 0 and not forced:
            return False
        self._left -= size
        return True
