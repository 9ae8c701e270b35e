"""Ranks, compared as bytes, are in the join's order, and say how far a frame is closed (rules J2, J3)."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from app.core.join.join_order import FIRST, SECOND, Due, id_in, join_key_of, join_keys_of, time_in
from app.core.join.window import OpenWindow
from app.core.rules import JoinRules

TIMES = st.integers(0, 2**48) | st.integers(90, 110)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
EVENTS = st.tuples(TIMES, IDS)
RULES = JoinRules(window_ms=8, grace_ms=2, reorder_ms=5)


@given(EVENTS, EVENTS)
def test_ranks_are_in_the_order_of_time_and_id(one: tuple[int, str], other: tuple[int, str]) -> None:
    assert (join_key_of(*one) < join_key_of(*other)) == (one < other)
    assert (time_in(join_key_of(*one)), id_in(join_key_of(*one))) == one


@given(
    st.lists(EVENTS, max_size=80, unique=True),
    st.sampled_from([FIRST, SECOND]),
    st.builds(Due, TIMES, st.sampled_from([FIRST, SECOND]), IDS | st.just("")),
)
def test_what_is_due_by_a_place_in_the_closing_order_has_passed(
    events: list[tuple[int, str]], kind: int, closed: Due
) -> None:
    times, ids = [time for time, _ in events], [event_id for _, event_id in events]
    digests = [bytes([n]) * 16 for n in range(len(events))]
    columns = pl.DataFrame(
        {"received_at": times, "event_id": ids, "digest": digests, "size": range(len(events))},
        schema={"received_at": pl.Int64, "event_id": pl.String, "digest": pl.Binary, "size": pl.Int64},
    )
    frame = OpenWindow(RULES).frame(kind, 7, columns)
    order = sorted(events)
    assert frame.join_keys == join_keys_of([time for time, _ in order], [event_id for _, event_id in order])
    assert [frame.digests[at] for at in range(len(frame))] == [digests[events.index(event)] for event in order]
    span_ms = 10 if kind == FIRST else 5
    assert [frame.due_ms(at) for at in range(len(frame))] == [time + span_ms for time, _ in order]
    assert frame.passed(closed) == sum((time + span_ms, kind, event_id) <= closed for time, event_id in order)
