"""However a batch's lines are spread over ledger entries: whole is complete, any lost or doubled line is found."""

import base64

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from app.core.audit.reconcile import LedgerLines, coverage

COUNTS = st.integers(1, 300)


@st.composite
def spreads(draw: st.DrawFn) -> tuple[int, list[set[int]]]:
    """A line count, and its lines dealt to some entries."""
    line_count = draw(COUNTS)
    hands = draw(st.lists(st.integers(0, 6), min_size=line_count, max_size=line_count))
    dealt: dict[int, set[int]] = {}
    for line, hand in enumerate(hands):
        dealt.setdefault(hand, set()).add(line)
    return line_count, list(dealt.values())


def entries(parts: list[set[int]]) -> list[LedgerLines]:
    return [LedgerLines("joined", len(part), base64.b64encode(BitMap(part).serialize()).decode()) for part in parts]


@given(spreads())
def test_each_line_once_is_complete(spread: tuple[int, list[set[int]]]) -> None:
    line_count, parts = spread
    assert coverage(line_count, entries(parts)).is_complete


@given(spreads(), st.data())
def test_a_lost_line_is_named(spread: tuple[int, list[set[int]]], data: st.DataObject) -> None:
    line_count, parts = spread
    lost = data.draw(st.sets(st.integers(0, line_count - 1), min_size=1))
    found = coverage(line_count, entries([part - lost for part in parts]))
    assert set(found.missing) == lost
    assert not found.excess


@given(spreads(), st.data())
def test_a_doubled_line_is_excess_even_where_another_is_lost(
    spread: tuple[int, list[set[int]]], data: st.DataObject
) -> None:
    line_count, parts = spread
    doubled = data.draw(st.integers(0, line_count - 1))
    lost = data.draw(st.sets(st.integers(0, line_count - 1).filter(lambda line: line != doubled)))
    found = coverage(line_count, entries([part - lost for part in parts] + [{doubled}]))
    assert set(found.missing) == lost
    assert len(found.excess) == 1
    assert not found.is_complete
