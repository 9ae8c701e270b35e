"""The first event that joins for a page view, and the second events that are too late for it (rules J2, J3).

A step is decided in two moves. `admit_events`, here, takes the new first and second events in log order. It finds the first
event that joins for each page view, and the second events that are late at once. `app.core.join.window_close` then closes
everything that stream time has passed. A first event is due at received_at + window + grace, which is its upper bound U.
A second event is due at received_at + reorder.

Claim: closing once at the end of a step gives the same result as closing after each message of the step. Proof. Stream time
moves from T0 to T1 inside the step, and a block B follows with received_at >= T1, so each event of B was received at T1 or
later. The events that close at T1 were due before T1: a first event f with U < T1, a second event s with
received_at + reorder < T1. B's second events were received after U. They are late for f, whether f closes before they arrive
or after. B's first events cannot replace f, because they are later; and they were received more than reorder after s. So B
may arrive before the closing.

Three kinds of blocks must not follow in the same step, and `app.core.etl.source` ends the step before them. A block that was
received before T1 may change the events that close at T1. A block may not follow a block that came so late that some of its
events are due on arrival: those close before any other event arrives. And no block may follow a move of time by almost the
dedup window: state would have forgotten the joining first event of a page view that is still open in the step.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.core.formats.source import AcceptedBlock
from app.core.join.join_order import TIME_BYTES, joining_key_in, time_in
from app.core.rules import EtlRules
from app.core.state.encoding import pack_time


class Events(NamedTuple):
    """Some events of a step as columns, in log order."""

    spans: Sequence[range]
    """For each block of the step, the positions of its events; empty if there are no events at all."""
    join_keys: Sequence[bytes]
    digests: Sequence[bytes]
    """The digests of their page views."""


class JoiningFirsts(NamedTuple):
    """The joining first events of some page views, before the step."""

    views: Mapping[bytes, bytes]
    """The values of state `views` for the page views of first events, and of second events that are not in `open`."""
    open: Mapping[bytes, bytes]
    """Digest of a page view -> join key of its joining first event, for each that is open.

    State remembers all of them at every block of the step. Each is due at the step's first stream time or later, so it was
    stored at that time less window and grace, or later. And no block follows a move of time by more than the dedup window
    less window and grace (`app.core.etl.source`).
    """


class AdmittedEvents(NamedTuple):
    """The decisions at the arrival of a step's first and second events."""

    views: dict[bytes, bytes]
    """Page view -> the new value of state `views`, for each whose joining first event is new."""
    late: list[int]
    """Positions of the second events that are late at once; the others have no decision yet."""


def admit_events(
    blocks: Sequence[AcceptedBlock], first_events: Events, second_events: Events, known: JoiningFirsts, rules: EtlRules
) -> AdmittedEvents:
    """Take new first and second events, block by block. The first events of a block arrive before its second events.

    Args:
        blocks: the step's blocks.
        first_events: the new first events.
        second_events: the new second events.
        known: the joining first events of their page views.
        rules: the join's bounds, and how long state `views` remembers.
    """
    span = rules.join.upper_ms
    views = _Views(known, span)
    late: list[int] = []
    none = [range(0)] * len(blocks)
    first_spans, second_spans = first_events.spans or none, second_events.spans or none
    for number, block in enumerate(blocks):
        now = block.stream_time_ms
        oldest = pack_time(max(0, now - rules.dedup_window_ms))
        if places := first_spans[number]:
            upto = slice(places.start, places.stop)
            views.add(number, block, oldest, first_events.digests[upto], first_events.join_keys[upto])
        for n in second_spans[number]:
            digest = second_events.digests[n]
            joining_key = views.joining_key(digest, oldest)
            if joining_key is None:
                continue
            upper = time_in(joining_key) + span
            if time_in(second_events.join_keys[n]) > upper or (now > upper and views.brought.get(digest) != number):
                late.append(n)
    return AdmittedEvents(views.fresh, late)


class _Views:
    """The joining first event of each page view, while the first events of a step arrive."""

    def __init__(self, known: JoiningFirsts, span_ms: int) -> None:
        self._known = known.views
        self._open = known.open
        self._span_ms = span_ms
        self.fresh: dict[bytes, bytes] = {}
        self.brought: dict[bytes, int] = {}
        """Page view -> the block that brought its joining first event, for each of `fresh`."""

    def joining_key(self, digest: bytes, oldest: bytes) -> bytes | None:
        """The join key of the first event that joins for a page view; None if state remembers none since `oldest`."""
        view = self._find(digest)
        if view is None:
            return self._open.get(digest)
        return None if view < oldest else joining_key_in(view)

    def _find(self, digest: bytes) -> bytes | None:
        """The value of a page view, even an expired one; None if there is none."""
        return self.fresh.get(digest) or self._known.get(digest)

    def add(
        self, number: int, block: AcceptedBlock, oldest: bytes, digests: Sequence[bytes], join_keys: Sequence[bytes]
    ) -> None:
        """Take the first events of a block. Of a page view's first events the one that was received earliest joins."""
        stored = pack_time(block.stored_ms)
        # Remembered from its own receipt on: a first event that outlives its memory would lose its place in the join.
        values = [max(stored, join_key[:TIME_BYTES]) + join_key for join_key in join_keys]
        fresh = dict(zip(digests, values, strict=True))
        if len(fresh) == len(values) and self.fresh.keys().isdisjoint(fresh) and self._known.keys().isdisjoint(fresh):
            self.fresh |= fresh  # nearly always
            self.brought |= dict.fromkeys(digests, number)
            return
        for digest, value, join_key in zip(digests, values, join_keys, strict=True):
            joining_key = self._find(digest)
            if joining_key is None or joining_key < oldest:
                self.fresh[digest] = value
            elif join_key < joining_key_in(joining_key) and (
                self.brought.get(digest) == number
                or block.stream_time_ms <= time_in(joining_key_in(joining_key)) + self._span_ms
            ):
                self.fresh[digest] = max(value[:TIME_BYTES], joining_key[:TIME_BYTES]) + join_key
            else:
                continue
            self.brought[digest] = number
