"""The events that close in a step: first events, each with its second, and second events that no first event takes.

Rules J2, J3 and E6. Everything that is due before stream time closes in one total order: due time, first events before
second events, event id. The order matters only when a message is full: the events that are left over lie behind every closed
event. The pairs do not depend on the order, because the closing of a first event and of a second event never decide about
the same event. Take a second event s, and the joining first event f of its page view. If f was received before s is due, s
is left to f, whichever closes earlier. If f was received later, s is due before f and no first event takes it: f takes no
second event that was received more than reorder before f.
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
    """The events that close in a step."""

    first_events: list[FrameRow]
    joined: list[FrameRow | None]
    """For each first event, the second event that it takes."""
    second_events: list[FrameRow]
    """Second events that become engagements."""
    reasons: list[str]
    """For each of them, the reason."""
    closed: Due
    """Everything up to here is closed."""
    more: bool
    """Whether an event that is due is left over, because the step's budget is spent."""


class NewFrames(NamedTuple):
    """The frames that this step itself brings into the window."""

    first_events: Frame | None
    second_events: Frame | None
    views: Mapping[bytes, bytes]
    """Page view -> the new value of state `views`."""


def close_due(window: OpenWindow, new: NewFrames, stream_time_ms: int, budget_bytes: int) -> Closing:
    """Close everything due before `stream_time_ms`, as far as the budget reaches.

    Events that were due before this step (from an old block that was sent again) close whatever it costs, because they are
    never stored.

    Guarantees: at least one decision, if any is due and `budget_bytes` is positive. First events are in order of their
    frames, and inside a frame in closing order.
    """
    matcher = _Matcher(window, new)
    whole = _Whole(matcher).run(stream_time_ms, budget_bytes)
    return _Closer(matcher, budget_bytes).run(stream_time_ms) if whole is None else whole


class _Matcher:
    """The events that are open before a run, and the second events that a closing first event finds among them."""

    def __init__(self, window: OpenWindow, new: NewFrames) -> None:
        self.window = window
        self.new = new
        self.stored = (window.first_events, window.second_events)
        """Kind -> the window's frames."""
        self.own = [frame for frame in (new.first_events, new.second_events) if frame is not None and len(frame)]
        self._reorder = window.reorder_ms
        self._arriving = frozenset(() if new.second_events is None else new.second_events.digests)
        self._arrived: dict[bytes, list[Waiting]] | None = None
        """Page view -> the second events that this step brings. It is made at the first question for one of `_arriving`,
        because a first event rarely closes in the same step in which its second event comes."""

    def all_undecided(self, digests: Sequence[bytes]) -> Sequence[Sequence[Waiting]]:
        """`undecided` of each page view."""
        if self._arriving.isdisjoint(digests):
            return list(map(self.window.waiting.get, digests, repeat(())))
        return list(map(self.undecided, digests))

    def undecided(self, digest: bytes) -> Sequence[Waiting]:
        """The second events of a page view that had no decision before this run."""
        waiting: Sequence[Waiting] = self.window.waiting.get(digest, ())
        if digest in self._arriving:
            if self._arrived is None:
                self._arrived = self._by_view()
            waiting = [*waiting, *self._arrived[digest]]
        return waiting

    def match(
        self, frame: Frame, at: int, joining_key: bytes | None, found: Sequence[Waiting]
    ) -> tuple[Waiting | None, list[tuple[Waiting, str]]]:
        """The last second event in time of those `found`, which a closing first event takes; the others with their reasons.

        Pages report when they are hidden, after 90 seconds, and when they are left: the last report says most (rule J2).
        Another first event may join for the page view: its `joining_key` says.
        """
        join_key = frame.join_keys[at]
        if joining_key != join_key:
            return None, []
        received = time_in(join_key)
        upper, lower = received + frame.span_ms, received - self._reorder
        if len(found) == 1 and lower <= time_in(found[0].join_key) <= upper:  # nearly always
            return found[0], []
        found = sorted(second for second in found if time_in(second.join_key) >= lower)
        in_time = sum(time_in(second.join_key) <= upper for second in found)
        joined = found.pop(in_time - 1) if in_time else None
        return joined, [(second, EXTRA if time_in(second.join_key) <= upper else LATE) for second in found]

    def is_unmet(self, frame: Frame, at: int) -> bool:
        """Whether a second event that is due met no first event in time; otherwise it is left to its first event."""
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
        """The join key of a page view's joining first event, if that was open before this run."""
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
    """Closes everything due, frame by frame, if all of it fits. This takes about half the time of the total order."""

    def __init__(self, matcher: _Matcher) -> None:
        self._matcher = matcher

    def run(self, stream_time_ms: int, budget_bytes: int) -> Closing | None:
        """The events that close; None if they cost more than the budget."""
        end, cost = Due(stream_time_ms), 0
        due = self._due(end)
        first_events = [(frame, upto) for frame, upto in due if frame.kind == FIRST]
        second_events = [(frame, upto) for frame, upto in due if frame.kind == SECOND]
        for frame, upto in first_events:
            cost += sum(frame.sizes[frame.at : upto])
            if cost > budget_bytes:  # before anything is matched: a long backlog closes in many steps
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
        """The frames with an event due before `end`, each with the position behind its last such event."""
        order, stored = self._matcher.window.order, self._matcher.stored
        entries = order[: bisect_left(order, (end.due_ms,))]
        frames = [*(stored[entry.kind][entry.frame] for entry in entries), *self._matcher.own]
        return [(frame, upto) for frame in frames if (upto := frame.passed(end)) > frame.at]

    def _close_firsts(self, out: Closing, frame: Frame, upto: int) -> int:
        """Close a frame's first events up to a position. Returns: the cost of the second events that close with them."""
        at, cost, matcher = frame.at, 0, self._matcher
        out.first_events.extend(zip(repeat(frame.number), frame.rows[at:upto]))
        taken: list[FrameRow | None] = [None] * (upto - at)
        digests = frame.digests[at:upto]
        found = matcher.all_undecided(digests)
        joining_keys = matcher.joining_keys(digests)
        for n in compress(range(upto - at), found):
            joined, others = matcher.match(frame, at + n, joining_keys[n], found[n])
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
        """Close a frame's second events up to a position. Returns: their cost."""
        upon, is_unmet = slice(frame.at, upto), self._matcher.is_unmet
        ranked = zip(self._matcher.joining_keys(frame.digests[upon]), frame.join_keys[upon], strict=True)
        # Nearly every second event comes after its first event, and is left to it.
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
    """Closes one event after the other in the total order, until the budget is spent."""

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
        """Everything due, in closing order; a frame of the window is read only when its turn comes."""
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
        """Emit a first event with its second, after the second events that it leaves over; False if the budget ends."""
        found = self._matcher.undecided(frame.digests[at])
        joining_key = self._matcher.joining_key(frame.digests[at])
        joined, others = self._matcher.match(frame, at, joining_key, found) if found else (None, [])
        for second, reason in others:
            if not self._emit_second((second.frame, second.row), second.size, reason, forced=forced):
                return False
        if not self._spend(frame.sizes[at] + (joined.size if joined else 0), forced=forced):
            return False
        self._out.first_events.append((frame.number, frame.rows[at]))
        self._out.joined.append((joined.frame, joined.row) if joined else None)
        return True

    def _close_second(self, frame: Frame, at: int, *, forced: bool) -> bool:
        """Emit a second event that met no first event in time; if its first event is open, it waits for it."""
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
        """Take `size` from the budget. The last decision may overdraw it, so that one always fits."""
        if self._left <= 0 and not forced:
            return False
        self._left -= size
        return True
