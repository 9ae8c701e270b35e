"""The path on cells makes the plain path's steps, message by message, on any log, under any budget (invariants I2, I6)."""

from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.formats.flows import OUTCOMES
from tests.builders.source_log import etl_rules, log_of
from tests.builders.visitors import ENRICHER
from tests.property.test_step_equals_oracle import ENDING, RULES, scripts, write_log
from tests.worlds.etl_run import ledger_of
from tests.worlds.hard_log import hard_enricher, hard_log
from tests.worlds.two_paths import TwoPaths

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=120, deadline=None, suppress_health_check=SLOW)
@given(
    script=scripts,
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    changes=st.lists(st.booleans(), min_size=1, max_size=5),
    room=st.sampled_from([300, 2_000, 16_000_000]),
)
def test_both_paths_make_the_same_steps(script: list[Any], cuts: list[int], changes: list[bool], room: int) -> None:
    log = write_log(script)
    log += log_of(ENDING, first=len(log))
    two, at, sizes, change = TwoPaths(RULES(message_bytes=64 * 1024 + room), ENRICHER), 0, cycle(cuts), cycle(changes)
    while two.plain.etl.leftover or at < len(log):
        count = 0 if two.plain.etl.leftover else two.plain.etl.take(log[at : at + next(sizes)])
        assert two.cells.etl.leftover == two.plain.etl.leftover
        two.step(log[at : at + count])
        at += count
        if next(change):
            two.change_places()


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
@given(script=scripts)
def test_line_by_line_too(script: list[Any]) -> None:
    log = write_log(script)
    two, at = TwoPaths(RULES(), ENRICHER), 0
    while at < len(log):
        count = two.plain.etl.take(log[at:])
        two.step(log[at : at + count], careful=True)
        at += count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hard_traffic(seed: int) -> None:
    two = TwoPaths(etl_rules(), hard_enricher())
    two.feed(hard_log(seed), cycle([40, 3, 100]))
    outcomes = ledger_of(two.cells.steps)
    reasons = {row["reason"] for row in two.cells.rows("engagements")}
    assert {outcome for _, _, outcome in outcomes} == set(OUTCOMES)
    assert reasons == {"extra", "late", "no_first"}
