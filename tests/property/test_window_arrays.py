"""The join by kernels decides what the plain path does, in the same order, and changes the same state (rules J2, J3, E6)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.join_log import DEDUP_WINDOW_MS, JoinBlock, Move, how_many, join_logs
from tests.worlds.join_paths import ArrayPath, PlainPath, open_in_arrays, open_in_plain, taken

BUDGETS = st.sampled_from((1, 150, 900, 2500, 1 << 40))


@settings(max_examples=150, deadline=None)
@given(join_logs(), st.data())
def test_both_paths_decide_the_same_and_stay_the_same(log: list[JoinBlock | Move], data: st.DataObject) -> None:
    plain, arrays = PlainPath(), ArrayPath()
    now, number, leftover = 100, 0, False
    while log or leftover:
        count = 0 if leftover else data.draw(st.integers(1, how_many(log, now)))
        step = taken(log[:count], now, number)
        budget = data.draw(BUDGETS)
        before = open_in_arrays(arrays.window)
        for _ in range(data.draw(st.integers(0, 1))):  # decided, and never sent
            arrays.decide(taken(log[: max(count - 1, 0)], now, number), data.draw(BUDGETS))
            arrays.abandon()
        expected = plain.decide(step, budget)
        found = arrays.decide(step, budget, halvings=data.draw(st.integers(0, 2)))
        assert found == expected
        assert arrays.decide(step, budget) == found
        assert open_in_arrays(arrays.window) == before
        plain.advance(expected.closed)
        prepared = data.draw(st.sampled_from((arrays.prepared, arrays.abandoned, None)))
        arrays.advance(found.closed, prepared)
        if data.draw(st.integers(0, 3)) == 0:
            arrays.load(found.closed)
        assert open_in_arrays(arrays.window) == open_in_plain(plain.window)
        assert arrays.state.tables == plain.state.tables
        log, now, leftover = log[count:], step.stream_time_ms, expected.more
        number += max(count, 1)
        assert arrays.window.leftover(now) == leftover
        message_ms = expected.closed.due_ms if leftover else now
        for path in (plain, arrays):
            path.forget(message_ms - DEDUP_WINDOW_MS)
    assert not any(arrays.state.tables[table] for table in ("pending", "seconds"))
