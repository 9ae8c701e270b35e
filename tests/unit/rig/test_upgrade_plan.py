"""The order of an upgrade drill, its pauses, and its judgement of newer rows."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from app.errors import LocalStackError
from app.local.stack.environment import ROLES
from app.local.traffic.content import HUMANS
from app.local.traffic.send import Interval, SentEvent, SentRequest
from app.local.traffic.stories import EventFacts
from tests.rig.upgrade.newer_events import LINES, NEWER_FIELD, NEWER_FLOW, NewerRun, event, requests
from tests.rig.upgrade.newer_rows import Deep, NewerRows, Reign, judge_depths, judge_newer_rows
from tests.rig.upgrade.pauses import absent_since, arrivals, longest, longest_by_partition
from tests.rig.upgrade.plan import ORDER_UP, Step, Way, everyone, plan, role_of
from tests.rig.upgrade.report import Done, Report
from tests.rig.upgrade.run import describe_pauses, judge_pauses, reign_of
from tests.rig.upgrade.versions import archive

EXTRAS = ("etl-2", "sink-2")
REIGN = Reign(changing_ms=10_000, changed_ms=20_000, returning_ms=30_000, returned_ms=40_000)


# --- plan


def test_every_process_goes_up_once_and_back_once_and_the_schema_stays() -> None:
    steps = plan(EXTRAS)
    processes = {way: [step.process for step in steps if step.way is way] for way in Way}
    assert sorted(processes[Way.UP]) == sorted(["init", *ROLES, *EXTRAS])
    assert sorted(processes[Way.BACK]) == sorted([*ROLES, *EXTRAS])
    assert set(everyone(EXTRAS)) == set(processes[Way.UP])


def test_a_reader_goes_up_before_its_writer_and_back_after_it() -> None:
    steps = plan(EXTRAS)
    for writer, reader in pairwise(("collector", "bridge", "etl", "sink", "delivery")):
        moments = {way: {role: [n for n, step in enumerate(steps) if step.role == role and step.way is way]
                         for role in ROLES} for way in Way}  # fmt: skip
        assert max(moments[Way.UP][reader]) < min(moments[Way.UP][writer])
        assert max(moments[Way.BACK][writer]) < min(moments[Way.BACK][reader])
    assert steps[0] == Step(Way.UP, "init", "init")
    assert set(ORDER_UP) == set(ROLES)


def test_a_reader_goes_back_only_when_everything_newer_is_read() -> None:
    drains = [step.process for step in plan(EXTRAS) if step.drains]
    assert drains == ["etl-2", "sink-2", "delivery"]
    assert [step.process for step in plan() if step.drains] == ["etl", "sink", "delivery"]


def test_the_role_of_a_worker_is_in_its_name() -> None:
    assert (role_of("etl"), role_of("etl-2")) == ("etl", "etl")


# --- pauses


def test_arrivals_are_by_partition_in_seconds() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert arrivals([(1, moment.replace(tzinfo=None)), (0, moment), (1, moment)]) == {
        1: [moment.timestamp()] * 2, 0: [moment.timestamp()],
    }  # fmt: skip


FOUND = {0: [1.0, 2.0, 9.0, 10.0], 1: [1.0, 4.0, 8.0, 11.0]}


@pytest.mark.parametrize(
    ("from_s", "until_s", "partition", "seconds"),
    [(0, 20, 0, 7.0), (0, 2, 1, 3.0), (9, 20, 1, 3.0), (3, 5, 0, 7.0), (9.5, 9.9, 1, 3.0)],
)
def test_a_pause_counts_where_any_part_of_it_lies_within(
    from_s: float, until_s: float, partition: int, seconds: float
) -> None:
    pause = longest(FOUND, from_s, until_s)
    assert pause is not None
    assert (pause.partition, pause.seconds) == (partition, seconds)


def test_before_the_first_and_after_the_last_arrival_is_no_pause() -> None:
    assert longest(FOUND, 12, 20) is None
    assert longest({0: [5.0]}, 0, 20) is None
    assert {number: pause.seconds for number, pause in longest_by_partition(FOUND, 0, 20).items()} == {0: 7.0, 1: 4.0}


def test_a_partition_that_does_not_arrive_so_often_is_named() -> None:
    assert absent_since(FOUND, 3, 2) == []
    assert absent_since(FOUND, 3, 2, times=2) == []
    assert absent_since(FOUND, 8, 2, times=2) == [1]
    assert absent_since(FOUND, 10.5, 2) == [0]
    assert absent_since(FOUND, 0, 3) == [2]
    assert judge_pauses(FOUND, 2) == []
    assert len(judge_pauses({0: [1.0], **{1: FOUND[1]}}, 3)) == 1


def test_the_pause_of_a_step_and_of_a_partition_is_reported() -> None:
    steps = [
        Done(Step(Way.UP, "sink", "sink"), 3.0, 5.0, 9.0), Done(Step(Way.UP, "etl", "etl"), 9.5, 10.0, 11.0),
    ]  # fmt: skip
    report = Report(versions="", load_began_s=1.0, steps=steps)
    describe_pauses(report, FOUND, 11.0)
    assert report.step_pauses_s == [7.0, 3.0]
    assert [(one.partition, one.before_s, one.longest_s, one.at_s, one.during) for one in report.partitions] == [
        (0, 7.0, 7.0, 1.0, "sink up"), (1, 3.0, 4.0, 3.0, "sink up"),
    ]  # fmt: skip


def test_a_pause_that_begins_when_a_process_is_ready_belongs_to_the_next_step() -> None:
    steps = [
        Done(Step(Way.UP, "init", "init"), 3.0, 5.0, 7.5), Done(Step(Way.UP, "delivery", "delivery"), 8.0, 15.0, 20.0),
    ]  # fmt: skip
    report = Report(versions="", load_began_s=1.0, steps=steps)
    describe_pauses(report, {0: [1.0, 4.0, 6.0, 7.0, 20.0]}, 21.0)
    assert report.step_pauses_s == [3.0, 13.0]
    assert [one.during for one in report.partitions] == ["delivery up"]


def test_a_role_reigns_from_its_first_process_to_its_last() -> None:
    steps = [
        Done(Step(Way.UP, "etl", "etl-2"), 10, 12, 13), Done(Step(Way.UP, "etl", "etl"), 18, 20, 21),
        Done(Step(Way.BACK, "etl", "etl-2"), 30, 31, 32), Done(Step(Way.BACK, "etl", "etl"), 35, 40, 41),
    ]  # fmt: skip
    assert reign_of(steps, "etl") == REIGN


# --- newer rows


def newer_run(*times: tuple[int, int], unsure: int = 0) -> NewerRun:
    sent = SentRequest(0, unsure_lines=unsure)
    for number, interval in enumerate(times):
        body = event("n", number)
        facts = EventFacts(body["event_id"], body["event_type"], body["page_view_id"], is_bot=False)
        sent.events[facts.event_id] = SentEvent(facts, json.dumps(body).encode(), HUMANS[0], Interval(*interval))
    return NewerRun("n", sent)


TYPED = ("event_id", "page_view_id", "visitor_id", "article_id", "video_id")
PAGED = ("event_id", "page_view_id", "visitor_id", "article_id", "url", NEWER_FIELD)


def row(number: int, **other: Any) -> dict[str, Any]:
    body = event("n", number)
    names = PAGED if body["event_type"] == "page_view" else TYPED
    properties = json.dumps(body["properties"]) if "properties" in body else None
    return {name: body.get(name) for name in names} | {"properties": properties} | other


def older_page(number: int) -> dict[str, Any]:
    body = event("n", number)
    properties = json.dumps(body.get("properties", {}) | {NEWER_FIELD: body[NEWER_FIELD]})
    return row(number) | {NEWER_FIELD: None, "properties": properties}


REJECTED = "event_type: none of page_view, engagement"
OLD, NEW, DOUBT, AGAIN = (1000, 1010), (21_000, 21_010), (9000, 21_000), (41_000, 41_010)


def texts(run: NewerRun, rows: NewerRows) -> list[str]:
    return [str(one) for one in judge_newer_rows(run, rows, REIGN)]


def test_newer_events_and_fields_are_what_the_collectors_version_makes_of_them() -> None:
    run = newer_run(OLD, OLD, NEW, NEW, DOUBT, DOUBT, DOUBT, AGAIN, AGAIN, DOUBT)
    rejected = {"n-1": [REJECTED], "n-5": [REJECTED], "n-7": [REJECTED], "n-8": [REJECTED]}
    rows = NewerRows([row(2), row(4)], [older_page(0), row(3), row(6), older_page(9)], rejected)
    assert texts(run, rows) == []
    assert rows.totals() == {NEWER_FLOW: 2, "page_views": 4, "rejected": 4}
    assert rows.filled_fields() == 2


GOOD = NewerRows([row(2)], [older_page(0), row(3)], {"n-1": [REJECTED]})
"""Of a page view and an event to an older collector, and one of each to a newer one."""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (GOOD, ""),
        (replace(GOOD, rejected={}), "n-1 has no row"),
        (replace(GOOD, loaded=[row(1), row(2)]), "n-1 was sent to an older collector"),
        (replace(GOOD, loaded=[], rejected={"n-1": [REJECTED], "n-2": [REJECTED]}), "n-2 was sent to a newer collector"),
        (replace(GOOD, loaded=[row(2), row(2)]), "n-2 has 2 rows"),
        (replace(GOOD, rejected={"n-1": [REJECTED, REJECTED]}), "1 newer events have one more row"),
        (replace(GOOD, rejected={"n-1": ["line: not JSON"]}), "n-1 is rejected with the reason"),
        (replace(GOOD, loaded=[row(2, video_id="other")]), "video_id is 'other'"),
        (replace(GOOD, loaded=[row(2, properties="{}")]), "properties is {}"),
        (replace(GOOD, loaded=[row(2), row(7)]), "n-7: has a row that nothing sent"),
        (replace(GOOD, pages=[row(0), row(3)]), "n-0 was sent to an older collector"),
        (replace(GOOD, pages=[older_page(0), older_page(3)]), "n-3 was sent to a newer collector"),
        (replace(GOOD, pages=[older_page(0)]), "n-3 with the newer field has 0 rows"),
        (replace(GOOD, pages=[older_page(0), row(3), row(3)]), "n-3 with the newer field has 2 rows"),
        (replace(GOOD, pages=[older_page(0) | {"properties": None}, row(3)]), "properties is None"),
        (replace(GOOD, rejected={"n-1": [REJECTED], "n-3": [REJECTED]}), "n-3: has a row that nothing sent"),
    ],
)
def test_a_wrong_row_is_named(rows: NewerRows, words: str) -> None:
    found = texts(newer_run(OLD, OLD, NEW, NEW), rows)
    assert any(words in text for text in found) if words else found == [], found


def test_a_request_that_failed_may_have_been_kept_twice() -> None:
    rows = NewerRows([row(1)], [row(0)], {"n-1": [REJECTED]})
    assert texts(newer_run(DOUBT, DOUBT, unsure=5), rows) == []
    assert len(texts(newer_run(DOUBT, DOUBT), rows)) == 1


@pytest.mark.parametrize(
    ("depth", "received_ms", "loaded_ms", "is_right"),
    [
        (None, 1000, 9000, True), (2, 1000, 9000, False), (2, 21_000, 29_000, True), (None, 21_000, 29_000, False),
        (2, 9000, 15_000, True), (None, 9000, 15_000, True), (3, 9000, 15_000, False), (None, 41_000, 50_000, True),
        (2, 41_000, 50_000, False), (2, 29_000, 41_000, True),
    ],
)  # fmt: skip
def test_the_newer_column_is_filled_while_the_etl_is_newer(
    depth: int | None, received_ms: int, loaded_ms: int, *, is_right: bool
) -> None:
    rows = [Deep("e", "https://example.com/a/b", depth, received_ms, loaded_ms)]
    assert (list(judge_depths(rows, REIGN)) == []) is is_right


def test_a_page_view_without_a_url_has_no_depth() -> None:
    assert list(judge_depths([Deep("e", None, None, 21_000, 29_000)], REIGN)) == []
    assert len(list(judge_depths([Deep("e", None, 0, 21_000, 29_000)], REIGN))) == 1


def test_newer_events_end_when_they_are_told_to() -> None:
    asked = iter([False, False, True])
    made = list(requests("n", lambda: next(asked)))
    assert [len(request.lines) for request in made] == [LINES, LINES]
    assert len({line.facts.event_id for request in made for line in request.lines if line.facts}) == 2 * LINES


def test_a_revision_that_git_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="no-such-revision"):
        archive("no-such-revision", tmp_path / "older")
