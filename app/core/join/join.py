"""Who joins for a page view, and which seconds come too late for it (rules J2, J3).

A step is decided in two moves. `admit_events`, here, takes the new first and second events in log order. It finds the
first that joins for each page view, and the seconds that are late at once. `app.core.join.window_close` then closes
everything that stream time has passed.
A first is due at received_at + window + grace, a second at received_at + reorder.

Why closing once at the end of a step equals closing after each message of it. Let stream time move from T0 to T1 inside the
step, and a block B follow with received_at >= T1, so all its events were received at T1 or later. What closes at T1 was due
before T1: a first f with U < T1, a second s with received_at + reorder < T1. B's seconds lie behind U: late for f, whether
f is closed before they arrive or after. B's firsts cannot replace f, being later, and lie further than reorder behind s.
So B may arrive before the closing. A block received before T1 might matter to what closes at T1; it must not follow in the
same step (`app.core.etl.source` ends the step before it). Neither may it follow a block that came so late that some of its
own events are due on arrival: those close before anything else arrives. And no block may follow a move of time by almost the
dedup window: state would have forgotten who joins for a page view that is, to the step, still open.
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
    """Of each block of the step the positions of its events; none at all where there are no events."""
    join_keys: Sequence[bytes]
    digests: Sequence[bytes]
    """Of their page views."""


class JoiningFirsts(NamedTuple):
    """Who joins for the page views of some events, before the step."""

    views: Mapping[bytes, bytes]
    """What `views` holds for the page views of the firsts, and for those of the seconds that are not `open`."""
    open: Mapping[bytes, bytes]
    """Digest of a page view -> join key of its joining first, for each that is open.

    State remembers all of these at every block of the step: each is due at the step's first stream time or later, hence was
    stored at that time less window and grace or later, and no block follows a move of time by more than the dedup window
    less these (`app.core.etl.source`).
    """


class AdmittedEvents(NamedTuple):
    """What the arrival of a step's firsts and seconds decides."""

    views: dict[bytes, bytes]
    """Page views whose joining first is new: what `views` learns of each."""
    late: list[int]
    """Positions of the seconds that are late at once; the others have no decision yet."""


def admit_events(
    blocks: Sequence[AcceptedBlock], first_events: Events, second_events: Events, known: JoiningFirsts, rules: EtlRules
) -> AdmittedEvents:
    """Take new firsts and seconds, block by block; a block's firsts count as arriving before its seconds.

    Args:
        blocks: the step's blocks.
        first_events: the new first events.
        second_events: the new second events.
        known: the joining firsts of their page views.
        rules: the join's bounds, and how long `views` remembers.
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
    """Who joins for each page view, while a step's firsts arrive."""

    def __init__(self, known: JoiningFirsts, span_ms: int) -> None:
        self._known = known.views
        self._open = known.open
        self._span_ms = span_ms
        self.fresh: dict[bytes, bytes] = {}
        self.brought: dict[bytes, int] = {}
        """Of each of these the block that brought it."""

    def joining_key(self, digest: bytes, oldest: bytes) -> bytes | None:
        """The join key of the first that joins for a second's page view; None where state remembers none since `oldest`."""
        view = self._find(digest)
        if view is None:
            return self._open.get(digest)
        return None if view < oldest else joining_key_in(view)

    def _find(self, digest: bytes) -> bytes | None:
        """The value of a page view, however old; None where there is none."""
        return self.fresh.get(digest) or self._known.get(digest)

    def add(
        self, number: int, block: AcceptedBlock, oldest: bytes, digests: Sequence[bytes], join_keys: Sequence[bytes]
    ) -> None:
        """Take the firsts of a block; who joins for a page view already stays so where it was received earlier."""
        stored = pack_time(block.stored_ms)
        # A first that outlives its memory would lose its place in the join: it is remembered from its own arrival on.
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
