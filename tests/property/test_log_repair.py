"""A log with damaged steps, repaired, gives every reader what the whole log gave (rule E2)."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from agents.etl.log_repair import UNPROVEN, Repair
from app.core.formats.step_message import decode_step
from tests.property.test_step_equals_oracle import RULES, scripts, write_log
from tests.worlds.damaged_log import DamagedLog, replacements_of


def played(script: list[tuple[str, Any, Any]], seed: int) -> DamagedLog:
    chance = random.Random(seed)
    room = chance.choice([300, 2_000, 16_000_000])  # in some, closings are left over for steps without messages
    return DamagedLog(write_log(script), RULES(message_bytes=64 * 1024 + room), chance)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=scripts, seed=st.integers(0, 2**32), data=st.data())
def test_steps_that_are_damaged_one_by_one_are_replaced_byte_for_byte(
    script: list[tuple[str, Any, Any]], seed: int, data: st.DataObject
) -> None:
    world = played(script, seed)
    if len(world.steps) < 2:
        return
    state, emitted = world.state(), world.emitted()
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(world.steps) - 1)), min_size=1, max_size=4)))
    apart = [n for n in chosen if n - 1 not in chosen]
    world.damage(world.steps[n] for n in apart)
    found = world.find()
    assert found.refused is None
    assert {each.offset: each.message for each in found.repairs} == world.lost
    assert not world.lost.keys() & {each.offset for each in found.foreign}
    repaired = replacements_of(found)
    assert world.state(repaired) == state
    assert world.emitted(repaired) == emitted
    again = world.find(repaired)
    assert (again.repairs, again.refused, again.replaced) == ([], None, len(apart))


def lines_of(repairs: list[Repair]) -> Counter[tuple[str, str, int]]:
    """Every line in the ledgers of these steps: batch, outcome, number."""
    entries = [entry for each in repairs for entry in decode_step(each.message).ledger]
    return Counter((entry.batch_id, entry.outcome, n) for entry in entries for n in BitMap.deserialize(entry.line_set))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=scripts, seed=st.integers(0, 2**32), data=st.data())
def test_steps_that_are_damaged_in_a_row_are_replaced_rightly_or_not_at_all(
    script: list[tuple[str, Any, Any]], seed: int, data: st.DataObject
) -> None:
    world = played(script, seed)
    if len(world.steps) < 3:
        return
    state, ledger = world.state(), world.lines()
    first = data.draw(st.integers(0, len(world.steps) - 3))
    last = data.draw(st.integers(first + 1, min(first + 3, len(world.steps) - 2)))
    world.damage(world.steps[first : last + 1])
    found = world.find()
    event(found.refused or "replaced")
    if found.refused is None:
        repaired = replacements_of(found)
        assert world.lines(repaired) == ledger
        assert world.state(repaired) == state
    else:  # a zombie's copy of a step among them parts the damage: what lies before it may be proven alone
        assert lines_of(found.repairs) <= ledger
    if found.refused == UNPROVEN:
        repaired = replacements_of(world.find(etl_is_stopped=True))
        assert world.lines(repaired) == ledger


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=scripts, seed=st.integers(0, 2**32))
def test_a_whole_log_has_nothing_to_repair(script: list[tuple[str, Any, Any]], seed: int) -> None:
    world = played(script, seed)
    found = world.find()
    assert (found.repairs, found.refused) == ([], None)
    strange = [offset for offset, message in enumerate(world.messages) if message == b"of another program"]
    assert [each.offset for each in found.foreign] == strange
    assert all(one < other for one, other in pairwise(world.steps))
