"""Lines that no ledger has are decided again by themselves, as the other lines leave it open (rule R5)."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyroaring import BitMap

from app.core.rebuild.lost_lines import DecidedLines, Knowledge, LostLine, PartitionRules, decide_lost, lost_lines
from tests.builders.source_log import GOOGLEBOT, batch_id, block, enricher, etl_rules, event, malformed, second

CORE = PartitionRules(0, etl_rules(partitions=1), enricher())
NOTHING = Knowledge(frozenset(), {})


def decide(blocks: Sequence[bytes], lost: Mapping[int, Sequence[int]], known: Knowledge = NOTHING) -> DecidedLines:
    return decide_lost(CORE, blocks, {batch_id(number): BitMap(lines) for number, lines in lost.items()}, known)


def outcomes(decided: DecidedLines) -> dict[tuple[str, int], str]:
    """(batch, line) -> its outcome; none has two."""
    found: dict[tuple[str, int], str] = {}
    for entry in decided.ledger:
        for line in BitMap.deserialize(entry.line_set):
            assert (entry.batch_id, line) not in found
            found[entry.batch_id, line] = entry.outcome
    return found


def rows(decided: DecidedLines, flow: str) -> list[dict[str, Any]]:
    return [row for frame in decided.rows.get(flow, []) for row in frame.to_dicts()]


def of_batch(decided: DecidedLines, number: int = 1) -> dict[int, str]:
    return {line: outcome for (batch, line), outcome in outcomes(decided).items() if batch == batch_id(number)}


def test_only_the_lost_lines_get_an_outcome() -> None:
    lines = [
        event("a"),
        event("b", "ad_click", view="v2"),
        malformed(),
        event("c", view="v3"),
        event("bot", user_agent=GOOGLEBOT),
    ]
    decided = decide([block(*lines)], {1: [1, 2, 4]})
    assert of_batch(decided) == {1: "ad_clicks", 2: "rejected", 4: "rejected"}
    assert [row["event_id"] for row in rows(decided, "ad_clicks")] == ["b"]
    assert sorted(row["line"] for row in rows(decided, "rejected")) == [2, 4]
    assert not rows(decided, "page_views")
    assert decided.lines == 3


def test_a_lost_first_event_takes_its_lost_second_event_of_another_batch() -> None:
    blocks = [block(event("first", at_s=0), event("other", view="v2")), block(second("second", at_s=90), batch=2)]
    decided = decide(blocks, {1: [0], 2: [0]})
    assert (of_batch(decided, 1), of_batch(decided, 2)) == ({0: "page_views"}, {0: "joined"})
    (row,) = rows(decided, "page_views")
    assert (row["event_id"], row["joined"], row["engagement_id"]) == ("first", True, "second")


def test_a_second_event_whose_first_event_is_a_row_is_late() -> None:
    known = Knowledge(frozenset({"first"}), {"v1": (CORE.rules.epoch, "first")})
    decided = decide([block(second("second"))], {1: [0]}, known)
    assert of_batch(decided) == {0: "engagements"}
    assert [row["reason"] for row in rows(decided, "engagements")] == ["late"]


def test_a_second_event_without_a_first_event_meets_none() -> None:
    assert [row["reason"] for row in rows(decide([block(second("second"))], {1: [0]}), "engagements")] == ["no_first"]


def test_a_second_event_is_late_even_if_a_lost_first_event_of_its_page_view_comes_back_too() -> None:
    """The row of the page view that counted is not changed, and the lost first event is another row of that page view."""
    known = Knowledge(frozenset({"counted"}), {"v1": (0, "counted")})
    decided = decide([block(event("again", at_s=1), second("second", at_s=60))], {1: [0, 1]}, known)
    assert of_batch(decided) == {0: "page_views", 1: "engagements"}
    assert [row["joined"] for row in rows(decided, "page_views")] == [False]


def test_a_copy_of_an_event_that_counted_is_a_duplicate_and_of_two_lost_copies_one_counts() -> None:
    blocks = [block(event("known", "ad_click"), event("twice", "ad_click"), event("twice", "ad_click"))]
    decided = decide(blocks, {1: [0, 1, 2]}, Knowledge(frozenset({"known"}), {}))
    assert of_batch(decided) == {0: "duplicate", 1: "ad_clicks", 2: "duplicate"}


def test_lines_of_a_week_apart_are_decided_in_one_run() -> None:
    week_s = 8 * 86_400
    blocks = [block(event("old", "ad_click"), event("x", "redirect")), block(event("old", "ad_click", at_s=week_s), batch=2)]
    decided = decide(blocks, {1: [0], 2: [0]})
    assert outcomes(decided) == {(batch_id(1), 0): "ad_clicks", (batch_id(2), 0): "duplicate"}


def test_the_ids_of_lost_lines_are_those_of_valid_events() -> None:
    blocks = [block(event("a"), malformed(), second("s", view="v9"), first_line=5)]
    found = lost_lines(blocks, {batch_id(1): BitMap([5, 6, 7])})
    assert found == [
        LostLine(batch_id(1), 5, "a", "v1", False), LostLine(batch_id(1), 6, None, None, False),
        LostLine(batch_id(1), 7, "s", "v9", True),
    ]  # fmt: skip
    assert lost_lines(blocks, {batch_id(2): BitMap([5])}) == []
