"""Which second event belongs to which first (rules J2, J3), over plain lists and the index of the open window.

A step is decided in two moves. `arrive` takes the new first and second events in log order and finds who joins for each page
view, and which seconds are late at once. `close_due` then closes everything that stream time has passed, in one total order:
due time, firsts before seconds, event id. A first is due at received_at + window + grace, a second at received_at + reorder.

Why closing once at the end of a step equals closing after each message of it. Let stream time move from T0 to T1 inside the
step, and a block B follow with received_at >= T1, so all its events were received at T1 or later. What closes at T1 was due
before T1: a first f with U < T1, a second s with received_at + reorder < T1. B's seconds lie behind U: late for f, whether
f is closed before they arrive or after. B's firsts cannot replace f, being later, and lie further than reorder behind s.
So B may arrive before the closing. A block received before T1 might matter to what closes at T1; it must not follow in the
same step (`app.core.intake` ends the step before it). Neither may it follow a block that came so late that some of its own
events are due on arrival: those close before anything else arrives. And no block may follow a move of time by almost the
dedup window: state would have forgotten who joins for a page view that is, to the step, still open.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush, heapreplace
from typing import Final, NamedTuple

from app.core.decode import AcceptedBlock
from app.core.intake import EtlRules
from app.core.meta import FIRST, Due
from app.core.window import Frame, OpenWindow, Waiting

EXTRA: Final = "extra"
LATE: Final = "late"
NO_FIRST: Final = "no_first"
_VIEW: Final = struct.Struct(">QQ")
_BEFORE: Final = -1


class View(NamedTuple):
    """What state `views` knows of a page view: the first event that joins."""

    stored_ms: int
    received_ms: int
    event_id: str
    block: int = _BEFORE
    """Index of the block of this step that brought it; -1 where it was known before."""


def pack_view(view: View) -> bytes:
    """The value in state `views`."""
    return _VIEW.pack(view.stored_ms, view.received_ms) + view.event_id.encode()


def unpack_view(value: bytes) -> View:
    """The view in a value of state `views`."""
    stored_ms, received_ms = _VIEW.unpack_from(value)
    return View(stored_ms, received_ms, value[_VIEW.size :].decode())


def unpack_joiner(value: bytes) -> tuple[int, str]:
    """(received_at, event_id) in a value of state `views`."""
    _, received_ms = _VIEW.unpack_from(value)
    return received_ms, value[_VIEW.size :].decode()


class Events(NamedTuple):
    """Some events of a step as columns, in log order."""

    spans: Sequence[range]
    """Of each block of the step the positions of its events; none at all where there are no events."""
    received_ms: Sequence[int]
    event_ids: Sequence[str]
    digests: Sequence[bytes]
    """Of their page views."""


class Arrived(NamedTuple):
    """What the arrival of a step's firsts and seconds decides."""

    views: dict[bytes, View]
    """Page views whose joining first is new."""
    late: list[int]
    """Positions of the seconds that are late at once; the others have no decision yet."""


def arrive(
    blocks: Sequence[AcceptedBlock], firsts: Events, seconds: Events, known: Mapping[bytes, View], rules: EtlRules
) -> Arrived:
    """Take new firsts and seconds, block by block; a block's firsts count as arriving before its seconds.

    Args:
        blocks: the step's blocks.
        firsts: the new first events.
        seconds: the new second events.
        known: what `views` holds for their page views.
        rules: the join's bounds, and how long `views` remembers.
    """
    span = rules.join.window_ms + rules.join.grace_ms
    fresh: dict[bytes, View] = {}
    late: list[int] = []
    none = [range(0)] * len(blocks)
    first_spans, second_spans = firsts.spans or none, seconds.spans or none
    for number, block in enumerate(blocks):
        now = block.stream_time_ms
        oldest = now - rules.dedup_window_ms
        stored = block.stored_ms
        for n in first_spans[number]:
            digest, received, event_id = firsts.digests[n], firsts.received_ms[n], firsts.event_ids[n]
            joiner = fresh.get(digest) or known.get(digest)
            # A first that outlives its memory would lose its place in the join: it is remembered from its own arrival on.
            remembered = max(stored, received)
            if joiner is None or joiner.stored_ms < oldest:
                fresh[digest] = View(remembered, received, event_id, number)
            elif (received, event_id) < joiner[1:3] and (joiner.block == number or now <= joiner.received_ms + span):
                fresh[digest] = View(max(remembered, joiner.stored_ms), received, event_id, number)
        for n in second_spans[number]:
            digest = seconds.digests[n]
            joiner = fresh.get(digest) or known.get(digest)
            if joiner is None or joiner.stored_ms < oldest:
                continue
            upper = joiner.received_ms + span
            if seconds.received_ms[n] > upper or (joiner.block != number and now > upper):
                late.append(n)
    return Arrived(fresh, late)


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
