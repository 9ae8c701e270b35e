"""Differences of any kind, in any order, become one plan (rule R1)."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.core.audit.differences import Difference, DifferenceKind
from app.core.formats.flows import OUTPUTS
from app.core.repair.plan import ACTIONS, Action, Mend, plan_mends

BATCHES = st.sampled_from(["", "b1", "b2"])
PLACES = st.sampled_from([(None, None, ""), (0, 1, "1-0-1-a"), (0, 2, "1-0-2-b"), (0, 2, ""), (1, 1, "1-1-1-c")])
OUTPUT_NAMES = st.sampled_from(["", *(flow.name for flow in OUTPUTS)])


@st.composite
def differences(draw: st.DrawFn) -> Difference:
    partition, number, txn_id = draw(PLACES)
    return Difference(
        kind=draw(st.sampled_from(DifferenceKind)), batch_id=draw(BATCHES), flow=draw(OUTPUT_NAMES), txn_id=txn_id,
        partition=partition, number=number, lines=draw(st.lists(st.integers(0, 9), max_size=3)),
    )  # fmt: skip


def without_places(mends: list[Mend]) -> list[Mend]:
    return [msgspec.structs.replace(mend, differences=()) for mend in mends]


@given(st.lists(differences(), max_size=12), st.randoms(use_true_random=False))
def test_every_difference_has_one_mend_and_the_order_of_differences_changes_nothing(
    found: list[Difference], chance: Any
) -> None:
    mends = plan_mends(found)
    assert sorted(n for mend in mends for n in mend.differences) == list(range(len(found)))
    assert all(ACTIONS[found[n].kind] is mend.action for mend in mends for n in mend.differences)
    order = [list(Action).index(mend.action) for mend in mends]
    assert order == sorted(order)
    for mend in mends:
        some = [found[n] for n in mend.differences]
        assert set(mend.flows) <= {each.flow for each in some}
        if mend.flows:
            assert set(mend.flows) == {each.flow for each in some} - {""}
        if mend.txn_id and mend.action is not Action.REPLACE_STEP:
            assert {each.txn_id for each in some} <= {mend.txn_id, ""}

    shuffled = list(found)
    chance.shuffle(shuffled)
    again = plan_mends(shuffled)
    assert {(mend.action, frozenset(id(found[n]) for n in mend.differences)) for mend in mends} == {
        (mend.action, frozenset(id(shuffled[n]) for n in mend.differences)) for mend in again
    }
    assert {mend.flows for mend in without_places(mends)} == {mend.flows for mend in without_places(again)}


@given(st.lists(differences(), max_size=12))
def test_a_plan_of_what_is_left_is_a_part_of_the_plan(found: list[Difference]) -> None:
    """A repair that died goes on: the mends that are left are those that were planned."""
    whole = {(mend.action, mend.batch_id, mend.partition, mend.number) for mend in plan_mends(found)}
    half = plan_mends(found[len(found) // 2 :])
    assert {(mend.action, mend.batch_id, mend.partition, mend.number) for mend in half} <= whole
