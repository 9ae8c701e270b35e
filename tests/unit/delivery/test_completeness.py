"""How far each flow is complete, by what is loaded."""

from app.core.delivery.completeness import WAITS_FOR_JOIN, complete_up_to
from app.core.formats.flows import FLOWS
from app.core.rules import JoinRules

JOIN = JoinRules(90_000, 30_000, 10_000)


def test_the_slowest_partition_decides_and_joined_rows_are_complete_only_when_the_window_has_closed() -> None:
    found = complete_up_to([900_000, 700_000], JOIN)
    assert found.keys() == {flow.name for flow in FLOWS}
    assert {found[name] for name in WAITS_FOR_JOIN} == {570_000}
    assert {found[name] for name in found.keys() - WAITS_FOR_JOIN} == {700_000}


def test_nothing_is_said_before_every_partition_has_a_time() -> None:
    assert complete_up_to([], JOIN) == complete_up_to([900_000, 0], JOIN) == {}
