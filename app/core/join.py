"""Who joins for a page view, and which seconds come too late for it (rules J2, J3).

A step is decided in two moves. `arrive`, here, takes the new first and second events in log order and finds who joins for
each page view, and which seconds are late at once. `app.core.closing` then closes everything that stream time has passed.
A first is due at received_at + window + grace, a second at received_at + reorder.

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
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from app.core.decode import AcceptedBlock
from app.core.intake import EtlRules

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
