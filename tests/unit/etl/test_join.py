"""Which second joins which first, and what becomes of the others (rules J2, J3): window 90 s, grace 30 s, reorder 10 s."""

from typing import Any

import pytest

from tests.builders.source_log import block, enricher, etl_rules, event, log_of, second, tick
from tests.worlds.etl_run import Run, ledger_of


def run_of(*values: bytes) -> Run:
    return Run(etl_rules(), enricher()).feed(log_of(values))


def one_by_one(*values: bytes) -> Run:
    return Run(etl_rules(), enricher()).feed(log_of(values), iter([1] * len(values)))


def joins(run: Run) -> dict[str, str | None]:
    """First -> the second that it took."""
    rows = run.rows("page_views")
    assert all(row["joined"] == (row["engagement_id"] is not None) for row in rows)
    return {row["event_id"]: row["engagement_id"] for row in rows}


def reasons(run: Run) -> dict[str, str]:
    return {row["event_id"]: row["reason"] for row in run.rows("engagements")}


@pytest.mark.parametrize("feed", [run_of, one_by_one])
@pytest.mark.parametrize(("seconds", "taken", "others"), [
    ({}, None, {}),
    ({"s": 90}, "s", {}),
    ({"s": 120}, "s", {}),
    ({"s": 120.001}, None, {"s": "late"}),
    ({"s": -10}, "s", {}),
    ({"s": -10.001}, None, {"s": "no_first"}),
    ({"s": 90, "t": 91}, "t", {"s": "extra"}),
    ({"t": 90, "s": 90}, "t", {"s": "extra"}),
    ({"hidden": 15, "left": 75}, "left", {"hidden": "extra"}),
    ({"s": 119, "t": 120, "u": 120.001}, "t", {"s": "extra", "u": "late"}),
    ({"s": -11, "t": 5, "u": 119, "v": 121}, "u", {"s": "no_first", "t": "extra", "v": "late"}),
    ({"s": -9, "t": -10}, "s", {"t": "extra"}),
])  # fmt: skip
def test_a_first_takes_the_last_second_in_range(
    feed: Any, seconds: dict[str, float], taken: str | None, others: dict[str, str]
) -> None:
    blocks = [block(second(name, at_s=at), batch=n) for n, (name, at) in enumerate(seconds.items(), 2)]
    run = feed(block(event("f", at_s=0), batch=1), *blocks, tick(s0=400))
    assert joins(run) == {"f": taken}
    assert reasons(run) == others


def test_a_second_behind_the_bound_of_an_open_first_is_late_at_once() -> None:
    run = one_by_one(block(event("f", at_s=0), batch=1), block(second("s", at_s=121), batch=2))
    assert joins(run) == {}
    assert reasons(run) == {"s": "late"}


def test_a_second_that_came_before_its_first_is_late_behind_its_bound() -> None:
    run = one_by_one(block(second("s", at_s=121), batch=1), block(event("f", at_s=0), batch=2), tick(s0=400))
    assert joins(run) == {"f": None}
    assert reasons(run) == {"s": "late"}


def test_it_closes_when_stream_time_passes_its_bound_and_not_before() -> None:
    run = one_by_one(block(event("f")), tick(s0=120))
    assert joins(run) == {}
    run.feed(log_of([tick(s0=120.001)], first=2))
    assert joins(run) == {"f": None}


def test_a_first_keeps_its_place_though_its_block_was_received_long_before_it() -> None:
    """It is remembered from its own arrival on: the block's would be forgotten while the first is still open."""
    run = Run(etl_rules(dedup_window_ms=131_000), enricher()).feed(log_of([
        block(event("a", view="v2"), event("f", at_s=30), batch=1), block(second("s", at_s=100), batch=2),
        tick(s0=140), block(event("g", at_s=141), batch=3), tick(s0=400),
    ]), iter([1] * 5))  # fmt: skip
    assert joins(run) == {"a": None, "f": "s", "g": None}
    assert reasons(run) == {}


def test_an_earlier_first_does_not_shorten_the_memory_of_its_page_view() -> None:
    """What the later first is remembered for holds for its page view, whoever joins."""
    run = Run(etl_rules(dedup_window_ms=131_000), enricher()).feed(log_of([
        block(event("f1", at_s=30), batch=1), block(event("f2", at_s=5), batch=2), block(second("s", at_s=60), batch=3),
        tick(s0=140), block(event("g", at_s=141), second("t", at_s=142), batch=4), tick(s0=400),
    ]), iter([1] * 6))  # fmt: skip
    assert joins(run) == {"f1": None, "f2": "s", "g": None}
    assert reasons(run) == {"t": "late"}


def test_the_row_has_all_fields_of_its_second() -> None:
    stay = {"dwell_ms": 60_000, "visible_ms": 50_000, "scroll_pct": 80, "properties": '{"a":1}'}
    first = event("f", url="https://n.example/", properties='{"b":2}')
    [row] = run_of(block(first, second("s", **stay)), tick(s0=200)).rows("page_views")
    assert (row["engagement_id"], row["engaged_at"], row["joined"]) == ("s", second("s")["occurred_at"], True)
    assert (row["dwell_ms"], row["visible_ms"], row["scroll_pct"]) == (60_000, 50_000, 80)
    assert (row["engagement_properties"], row["properties"], row["line"]) == ('{"a":1}', '{"b":2}', 0)


def test_the_ledger_has_the_second_in_the_step_of_its_first() -> None:
    run = one_by_one(block(event("f"), batch=1), block(second("s"), batch=2), tick(s0=200))
    assert {outcome for _, _, outcome in ledger_of(run.steps[-1:])} == {"page_views", "joined"}
    assert not ledger_of(run.steps[:-1])


@pytest.mark.parametrize("feed", [run_of, one_by_one])
def test_of_several_firsts_the_earliest_joins(feed: Any) -> None:
    run = feed(
        block(event("f2", at_s=5), batch=1), block(event("f1", at_s=3), event("f3", at_s=3), batch=2),
        block(second("s", at_s=60), batch=3), tick(s0=300),
    )  # fmt: skip
    assert joins(run) == {"f1": "s", "f2": None, "f3": None}


def test_an_earlier_first_that_comes_after_the_closing_stays_alone() -> None:
    run = one_by_one(
        block(event("f", at_s=10), second("s", at_s=60), batch=1), tick(s0=200),
        block(event("g", at_s=5), second("t", at_s=61), batch=2),
    )  # fmt: skip
    assert joins(run) == {"f": "s", "g": None}
    assert reasons(run) == {"t": "late"}


def test_an_old_block_joins_within_itself() -> None:
    run = run_of(tick(s0=1000), block(event("f", at_s=0), second("s", at_s=90), second("t", at_s=300)))
    assert joins(run) == {"f": "s"}
    assert reasons(run) == {"t": "late"}


def test_a_second_without_a_first_waits_for_the_reorder_time_only() -> None:
    run = one_by_one(block(second("s", at_s=0), batch=1), tick(s0=10))
    assert reasons(run) == {}
    run.feed(log_of([tick(s0=10.001), block(event("f", at_s=5), batch=2), tick(s0=200)], first=2))
    assert reasons(run) == {"s": "no_first"}
    assert joins(run) == {"f": None}


def test_what_is_remembered_expires() -> None:
    day = 86_400
    run = one_by_one(
        block(event("f", at_s=0), batch=1), tick(s0=8 * day),
        block(event("f", at_s=8 * day), second("s", at_s=8 * day + 60), batch=2), tick(s0=9 * day),
    )  # fmt: skip
    assert [row["joined"] for row in run.rows("page_views")] == [False, True]


def test_many_seconds_of_one_page_view_go_over_several_messages() -> None:
    extras = [second(f"s{n:04d}", at_s=60, properties=f'{{"pad":"{n}{"x" * 500}"}}') for n in range(120)]
    rules = etl_rules(message_bytes=64 * 1024 + 8_000)
    blocks = [block(*extras[n : n + 10], batch=n + 2) for n in range(0, 120, 10)]
    log = log_of([block(event("f"), batch=1), *blocks, tick(s0=200)])
    run = Run(rules, enricher()).feed(log)
    assert joins(run) == {"f": "s0119"}
    assert set(reasons(run).values()) == {"extra"}
    assert len(reasons(run)) == 119
    closings = [step for step in run.steps if step.source_first > step.source_last]
    assert len(closings) > 3
    assert max(len(rows) for step in run.steps for rows in step.rows.values()) < 16_000
    assert set(ledger_of(run.steps).values()) == {1}
    assert not run.state.tables["pending"]
    assert not run.state.tables["seconds"]


def test_the_window_leaves_nothing_behind() -> None:
    pairs = {n: (event(f"f{n}", view=f"v{n}", at_s=n), second(f"s{n}", view=f"v{n}", at_s=n + 90)) for n in range(1, 9)}
    run = one_by_one(
        *(block(*pair, batch=n) for n, pair in pairs.items()),
        *(tick(s0=n) for n in (60, 122, 125, 140)),
    )  # fmt: skip
    window = run.etl._path._window
    assert not run.state.tables["pending"]
    assert not run.state.tables["seconds"]
    assert not any((window.first_events, window.second_events, window.order, window.joining_keys, window.waiting))
    assert set(joins(run).values()) == {f"s{n}" for n in range(1, 9)}
