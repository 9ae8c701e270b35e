"""What closes in a step: each first with its second, and the seconds that nobody takes (rules J2, J3, E6).

Everything due before stream time closes in one total order: due time, firsts before seconds, event id. Where the order is
needed is at the end of a message's room only: what is left over lies behind everything that was closed. Otherwise who joins
whom does not depend on it, as the closing of a first and of a second never look at the same event:

A second s whose page view's joining first f was received before s is due is left to f, whichever is closed earlier. Where f
was received later, s is due before f and nobody's; and f, closed before it or after, takes no second that lies further than
reorder behind it.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import compress, repeat
from typing import Final, NamedTuple

from app.core.join.join_order import FIRST, SECOND, Due, id_in, joining_key_in, time_in
from app.core.join.window import Frame, OpenWindow, Waiting

EXTRA: Final = "extra"
LATE: Final = "late"
NO_FIRST: Final = "no_first"

FrameRow = tuple[int, int]
"""Number of a frame, and a row in it."""


class Closing(NamedTuple):
    """What closes in a step."""

    first_events: list[FrameRow]
    joined: list[FrameRow | None]
    """Of each first the second event that it takes."""
    second_events: list[FrameRow]
    """Second events that become engagements."""
    reasons: list[str]
    """Of each of them why."""
    closed: Due
    """Everything up to here is closed."""
    more: bool
    """Whether something due is left over, because the step's budget is spent."""


class NewFrames(NamedTuple):
    """What this step itself brings into the window; its rows are those of the arrived columns."""

    first_events: Frame | None
    second_events: Frame | None
    views: Mapping[bytes, bytes]
    """What `views` learns."""


def close_due(window: OpenWindow, new: NewFrames, stream_time_ms: int, budget_bytes: int) -> Closing:
    """Close everything due before `stream_time_ms`, as far as the budget reaches.

    What was due before anything of this step (events of an old block, resent) is closed whatever it costs: it is never
    stored. Guarantees: at least one decision, if any is due and `budget_bytes` is positive. Firsts lie frame by frame, those
    of a frame in closing order.
    """
    matcher = _Matcher(window, new)
    whole = _Whole(matcher).run(stream_time_ms, budget_bytes)
    return _Closer(matcher, budget_bytes).run(stream_time_ms) if whole is None else whole


class _Matcher:
    """What is open before a run, and which seconds a closing first finds in it."""

    def __init__(self, window: OpenWindow, new: NewFrames) -> None:
        self.window = window
        self.new = new
        self.stored = (window.first_events, window.second_events)
        """By kind the window's frames."""
        self.own = [frame for frame in (new.first_events, new.second_events) if frame is not None and len(frame)]
        self._reorder = window.reorder_ms
        self._arriving = frozenset(() if new.second_events is None else new.second_events.digests)
        self._arrived: dict[bytes, list[Waiting]] | None = None
        """By page view the seconds that this step brings, made when one of `_arriving` is asked for: a first that closes in
        the very step in which its second comes is rare."""

    def all_undecided(self, digests: Sequence[bytes]) -> Sequence[Sequence[Waiting]]:
        """`undecided` of each page view."""
        if self._arriving.isdisjoint(digests):
            return list(map(self.window.waiting.get, digests, repeat(())))
        return list(map(self.undecided, digests))

    def undecided(self, digest: bytes) -> Sequence[Waiting]:
        """The seconds of a page view that had no decision before this run."""
        waiting: Sequence[Waiting] = self.window.waiting.get(digest, ())
        if digest in self._arriving:
            if self._arrived is None:
                self._arrived = self._by_view()
            waiting = [*waiting, *self._arrived[digest]]
        return waiting

    def match(self, frame: Frame, at: int, found: Sequence[Waiting]) -> tuple[Waiting | None, list[tuple[Waiting, str]]]:
        """The second that a closing first takes of the undecided ones of its page view; the others, each with its reason."""
        join_key = frame.join_keys[at]
        if self.joining_key(frame.digests[at]) != join_key:
            return None, []
        received = time_in(join_key)
        upper, lower = received + frame.span_ms, received - self._reorder
        if len(found) == 1 and lower <= time_in(found[0].join_key) <= upper:  # nearly always
            return found[0], []
        found = sorted(second for second in found if time_in(second.join_key) >= lower)
        joined: Waiting | None = None
        if found and time_in(found[0].join_key) <= upper:
            joined = found.pop(0)
        return joined, [(second, EXTRA if time_in(second.join_key) <= upper else LATE) for second in found]

    def is_unmet(self, frame: Frame, at: int) -> bool:
        """Whether a second, due and without a decision, met no first in time; otherwise it is left to its first."""
        if frame.rows[at] in frame.decided:
            return False
        joining_key = self.joining_key(frame.digests[at])
        return joining_key is None or time_in(joining_key) > frame.due_ms(at)

    def joining_keys(self, digests: Sequence[bytes]) -> Sequence[bytes | None]:
        """`joining_key` of each page view."""
        if self.new.views.keys().isdisjoint(digests):
            return list(map(self.window.joining_keys.get, digests))
        return list(map(self.joining_key, digests))

    def joining_key(self, digest: bytes) -> bytes | None:
        """The join key of the joining first of a page view, as far as it was open before this run."""
        view = self.new.views.get(digest)
        return self.window.joining_keys.get(digest) if view is None else joining_key_in(view)

    def _by_view(self) -> dict[bytes, list[Waiting]]:
        arrived: dict[bytes, list[Waiting]] = {}
        frame = self.new.second_events
        if frame is not None:
            for digest, second in zip(frame.digests, frame.waiting(), strict=True):
                arrived.setdefault(digest, []).append(second)
        return arrived


class _Whole:
    """Closes everything due, frame by frame, if all of it fits: some half of the time of the total order."""

    def __init__(self, matcher: _Matcher) -> None:
        self._matcher = matcher

    def run(self, stream_time_ms: int, budget_bytes: int) -> Closing | None:
        """What closes; None where it costs more than the budget."""
        end, cost = Due(stream_time_ms), 0
        due = self._due(end)
        first_events = [(frame, upto) for frame, upto in due if frame.kind == FIRST]
        second_events = [(frame, upto) for frame, upto in due if frame.kind == SECOND]
        for frame, upto in first_events:
            cost += sum(frame.sizes[frame.at : upto])
            if cost > budget_bytes:  # seen before anything is matched: a long backlog closes in many steps
                return None
        out = Closing([], [], [], [], max(self._matcher.window.closed, end), more=False)
        for frame, upto in first_events:
            cost += self._close_firsts(out, frame, upto)
        for frame, upto in second_events:
            if cost > budget_bytes:
                break
            cost += self._close_seconds(out, frame, upto)
        return out if cost <= budget_bytes else None

    def _due(self, end: Due) -> list[tuple[Frame, int]]:
        """The frames that have something due before `end`, each with the position behind the last such event."""
        order, stored = self._matcher.window.order, self._matcher.stored
        entries = order[: bisect_left(order, (end.due_ms,))]
        frames = [*(stored[entry.kind][entry.frame] for entry in entries), *self._matcher.own]
        return [(frame, upto) for frame in frames if (upto := frame.passed(end)) > frame.at]

    def _close_firsts(self, out: Closing, frame: Frame, upto: int) -> int:
        """Close a frame's firsts up to a position; what the seconds with them cost."""
        at, cost, matcher = frame.at, 0, self._matcher
        out.first_events.extend(zip(repeat(frame.number), frame.rows[at:upto]))
        taken: list[FrameRow | None] = [None] * (upto - at)
        found = matcher.all_undecided(frame.digests[at:upto])
        for n in compress(range(upto - at), found):
            joined, others = matcher.match(frame, at + n, found[n])
            if joined:
                taken[n] = (joined.frame, joined.row)
                cost += joined.size
            for second, reason in others:
                out.second_events.append((second.frame, second.row))
                out.reasons.append(reason)
                cost += second.size
        out.joined.extend(taken)
        return cost

    def _close_seconds(self, out: Closing, frame: Frame, upto: int) -> int:
        """Close a frame's seconds up to a position; what they cost."""
        upon, is_unmet = slice(frame.at, upto), self._matcher.is_unmet
        ranked = zip(self._matcher.joining_keys(frame.digests[upon]), frame.join_keys[upon], strict=True)
        # Nearly every first comes before its second: that one is met, and left to it.
        doubtful = [
            at
            for at, (joining_key, join_key) in enumerate(ranked, frame.at)
            if joining_key is None or joining_key > join_key
        ]
        unmet = [at for at in doubtful if is_unmet(frame, at)]
        out.second_events.extend([(frame.number, frame.rows[at]) for at in unmet])
        out.reasons.extend([NO_FIRST] * len(unmet))
        return sum(frame.sizes[at] for at in unmet)


class _Closer:
    """Closes one after the other in the total order, until the budget is spent."""

    def __init__(self, matcher: _Matcher, budget_bytes: int) -> None:
        self._matcher = matcher
        self._left = budget_bytes
        self._out = Closing([], [], [], [], matcher.window.closed, more=False)

    def run(self, stream_time_ms: int) -> Closing:
        closed: tuple[int, int, str] = self._out.closed
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
        for own in self._matcher.own:
            heappush(heap, (*own.entry(0), 0, own))
        stored = self._matcher.stored
        order, admitted = self._matcher.window.order, 0
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
            if at < len(frame):
                heapreplace(heap, (frame.due_ms(at), kind, id_in(frame.join_keys[at]), number, at, frame))
            else:
                heappop(heap)

    def _close_first(self, frame: Frame, at: int, *, forced: bool) -> bool:
        """Emit a first with its second, after all seconds that it leaves over; False where the budget ends before."""
        found = self._matcher.undecided(frame.digests[at])
        joined, others = self._matcher.match(frame, at, found) if found else (None, [])
        for second, reason in others:
            if not self._emit_second((second.frame, second.row), second.size, reason, forced=forced):
                return False
        if not self._spend(frame.sizes[at] + (joined.size if joined else 0), forced=forced):
            return False
        self._out.first_events.append((frame.number, frame.rows[at]))
        self._out.joined.append((joined.frame, joined.row) if joined else None)
        return True

    def _close_second(self, frame: Frame, at: int, *, forced: bool) -> bool:
        """Emit a second that met no first in time; one whose first is open waits for that to close."""
        if not self._matcher.is_unmet(frame, at):
            return True
        return self._emit_second((frame.number, frame.rows[at]), frame.sizes[at], NO_FIRST, forced=forced)

    def _emit_second(self, place: FrameRow, size: int, reason: str, *, forced: bool) -> bool:
        if not self._spend(size, forced=forced):
            return False
        self._out.second_events.append(place)
        self._out.reasons.append(reason)
        return True

    def _spend(self, size: int, *, forced: bool) -> bool:
        """Take `size` from the budget; the last decision may overdraw it, so that one always fits."""
        if self._left <= 0 and not forced:
            return False
        self._left -= size
        return True
