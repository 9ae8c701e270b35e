"""Histories of the join that are hard: few page views, many first and second events for each, at few moments."""

from typing import NamedTuple

from hypothesis import strategies as st

from app.core.rules import JoinRules

RULES = JoinRules(window_ms=8, grace_ms=4, reorder_ms=3)
DEDUP_WINDOW_MS = 40
SIZES = (1, 100, 800)
PREFIXES = ("", "0190163d-8694-", "0190163d-8694-739b-a", "x" * 50)
"""Ids are equal in none, some or all of the words that kernels compare."""


class JoinEvent(NamedTuple):
    """A first or second event."""

    kind: int
    view: int
    received_ms: int
    event_id: str
    size: int


class JoinBlock(NamedTuple):
    """A block of events, received at `received_ms` or later."""

    received_ms: int
    events: list[JoinEvent]


class Move(NamedTuple):
    """Stream time moves."""

    by_ms: int


@st.composite
def join_logs(draw: st.DrawFn) -> list[JoinBlock | Move]:
    """A log of blocks and moves of time; blocks may come long after they were received."""
    views = draw(st.integers(1, 4))
    log: list[JoinBlock | Move] = []
    now = 100
    count = 0
    for _ in range(draw(st.integers(1, 14))):
        if draw(st.integers(0, 2)) == 0:
            move = Move(draw(st.sampled_from((0, 1, 2, 3, 5, 9, 13, 30))))
            now += move.by_ms
            log.append(move)
            continue
        received = max(0, now + draw(st.sampled_from((0, 0, 0, 1, 2, -1, -3, -4, -12, -13, -20))))
        events = []
        for kind, view, later, prefix, size in draw(st.lists(
            st.tuples(
                st.integers(0, 1), st.integers(0, views - 1), st.sampled_from((0, 0, 1, 2, 4, 12, 13)),
                st.sampled_from(PREFIXES), st.sampled_from(SIZES),
            ), max_size=9,
        )):  # fmt: skip
            count += 1
            events.append(JoinEvent(kind, view, received + later, f"{prefix}{count * 7919 % 1000}", size))
        log.append(JoinBlock(received, events))
    return [*log, Move(60)]


def how_many(log: list[JoinBlock | Move], now_ms: int) -> int:
    """How many entries one step may take: the cases of `app.core.etl.source.how_many`."""
    now, moved, due = now_ms, False, False
    far = now + DEDUP_WINDOW_MS - RULES.upper_ms
    soonest = min(RULES.lower_ms, RULES.upper_ms)
    for n, entry in enumerate(log):
        if isinstance(entry, Move):
            moved = moved or entry.by_ms > 0
            now += entry.by_ms
            continue
        if (entry.received_ms < now and (moved or due)) or (moved and now > far):
            return n
        due = due or entry.received_ms + soonest < now
    return len(log)
