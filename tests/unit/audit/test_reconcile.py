"""Coverage of a batch by its ledger, and the audit's verdicts: rules A1, A2, D2 as a table."""

import base64
from typing import Any

import pytest
from pyroaring import BitMap

from app.core.audit.reconcile import (
    AuditRules,
    BatchVerdict,
    Evidence,
    LedgerLines,
    VerdictKind,
    coverage,
    judge_batch,
    pause_ms,
    read_lines,
    settled_at,
)
from app.core.formats.registry_item import BlockPlace, RegistryItem

RULES = AuditRules(grace_ms=300_000, settle_ms=130_000)
RECEIVED = 1_000_000
PAST = {0: RECEIVED + 300_001, 1: RECEIVED + 300_001}
NOW = RECEIVED + 400_000


def entry(*lines: int, outcome: str = "page_views", says: int | None = None) -> LedgerLines:
    text = base64.b64encode(BitMap(lines).serialize()).decode()
    return LedgerLines(outcome, len(lines) if says is None else says, text)


def batch(attempts: int = 0, next_attempt_at_ms: int = 0) -> RegistryItem:
    """Ten lines: block 0 on partition 0 has the first six, block 1 on partition 1 the rest."""
    return RegistryItem(
        batch_id="b", epoch=1, line_count=10, byte_count=2, sha256="", raw_key="raw/b",
        blocks=[BlockPlace(0, 0, 6, 0, 1), BlockPlace(1, 6, 4, 1, 1)], received_at_ms=RECEIVED,
        attempts=attempts, next_attempt_at_ms=next_attempt_at_ms,
    )  # fmt: skip


def evidence(*entries: LedgerLines, replayed: tuple[int, ...] = (), **transactions: Any) -> Evidence:
    return Evidence(
        list(entries), frozenset(replayed), transactions.get("unloaded", {}), transactions.get("quarantined", {})
    )


def verdict(found: Evidence, item: RegistryItem | None = None, **more: Any) -> BatchVerdict:
    return judge_batch(item or batch(), found, more.get("times", PAST), RULES, more.get("now_ms", NOW))


ALL = entry(*range(10))
FIRST_SIX = entry(*range(6))


@pytest.mark.parametrize(
    ("line_count", "entries", "missing", "excess"),
    [
        (3, [entry(0, 1, 2)], [], 0),
        (3, [entry(0, 2), entry(1, outcome="joined")], [], 0),
        (3, [], [0, 1, 2], 0),
        (0, [], [], 0),
        (3, [entry(0, 2)], [1], 0),
        (3, [entry(0, 1), entry(1, 2)], [], 1),
        (3, [entry(0, 1), entry(0, 1)], [2], 1),
        (3, [entry(0, 1, 2, 3)], [], 1),
        (3, [entry(0, 1, 2), entry(7)], [], 1),
        (3, [entry(0, 1, says=3), entry(2)], [0, 1], 1),
        (3, [LedgerLines("joined", 3, "no base64!")], [0, 1, 2], 1),
        (3, [LedgerLines("joined", 3, "")], [0, 1, 2], 1),
        (3, [LedgerLines("joined", 3, "AAAA")], [0, 1, 2], 1),
    ],
)
def test_coverage(line_count: int, entries: list[LedgerLines], missing: list[int], excess: int) -> None:
    found = coverage(line_count, entries)
    assert list(found.missing) == missing
    assert len(found.excess) == excess
    assert found.is_complete is (not missing and not excess)


def test_complete_whatever_lags() -> None:
    assert verdict(evidence(ALL), times={}).kind is VerdictKind.COMPLETE


def test_too_much_is_an_alarm_and_no_completion() -> None:
    assert verdict(evidence(ALL, entry(3))).kind is VerdictKind.EXCESS


def test_a_line_that_is_there_twice_does_not_stand_for_one_that_is_missing() -> None:
    found = verdict(evidence(FIRST_SIX, entry(0, 1, 2, 3)))
    assert (found.kind, found.attempt) == (VerdictKind.REPLAY, 1)


def test_lines_in_a_quarantined_transaction_hold_the_batch_even_while_others_are_missing() -> None:
    found = verdict(evidence(entry(0), quarantined={"1-0-7-ab": BitMap([1, 2])}), times={})
    assert (found.kind, found.txn_ids) == (VerdictKind.HELD, ("1-0-7-ab",))


def test_a_quarantined_transaction_whose_lines_are_loaded_holds_nothing() -> None:
    assert verdict(evidence(ALL, quarantined={"1-0-7-ab": BitMap([1])})).kind is VerdictKind.COMPLETE
    assert verdict(evidence(FIRST_SIX, quarantined={"1-0-7-ab": BitMap([1])})).kind is VerdictKind.REPLAY


@pytest.mark.parametrize(
    ("times", "lagging"),
    [
        ({}, {0, 1}),
        ({0: RECEIVED + 300_000, 1: RECEIVED + 300_001}, {0}),
        ({0: RECEIVED + 300_001}, {1}),
    ],
)
def test_it_waits_while_loaded_stream_time_is_behind_the_grace(times: dict[int, int], lagging: set[int]) -> None:
    found = verdict(evidence(), times=times)
    assert (found.kind, found.lagging) == (VerdictKind.WAIT, lagging)


def test_only_partitions_that_lack_lines_are_waited_for() -> None:
    assert verdict(evidence(FIRST_SIX), times={1: PAST[1]}).kind is VerdictKind.REPLAY
    assert verdict(evidence(FIRST_SIX), times={0: PAST[0]}).lagging == {1}


def test_the_joins_bounds_count_where_the_grace_is_shorter() -> None:
    rules = AuditRules(grace_ms=0, settle_ms=130_000)
    for time_ms, kind in ((RECEIVED + 130_000, VerdictKind.WAIT), (RECEIVED + 130_001, VerdictKind.REPLAY)):
        assert judge_batch(batch(), evidence(), dict.fromkeys((0, 1), time_ms), rules, NOW).kind is kind


def test_committed_and_not_yet_loaded_is_waited_for() -> None:
    found = verdict(evidence(FIRST_SIX, unloaded={"1-1-9-cd": BitMap([6, 7, 8, 9])}))
    assert (found.kind, found.txn_ids, found.lagging) == (VerdictKind.WAIT, ("1-1-9-cd",), frozenset())


def test_missing_is_replayed_with_the_next_attempt() -> None:
    assert verdict(evidence(FIRST_SIX)).attempt == 1
    again = batch(attempts=3, next_attempt_at_ms=NOW)
    found = verdict(evidence(FIRST_SIX), again, times={0: NOW, 1: NOW})
    assert (found.kind, found.attempt) == (VerdictKind.REPLAY, 4)


def test_the_next_attempt_has_its_time() -> None:
    item = batch(attempts=1, next_attempt_at_ms=NOW + 1)
    assert verdict(evidence(FIRST_SIX), item, times={0: NOW, 1: NOW}).kind is VerdictKind.WAIT


def test_a_replay_must_have_had_its_chance() -> None:
    put_at_ms = NOW - 300_000
    item = batch(attempts=1, next_attempt_at_ms=NOW)
    assert settled_at(item, RULES) == max(RECEIVED + 300_000, put_at_ms)
    late = batch(attempts=1, next_attempt_at_ms=RECEIVED + 900_000)
    found = verdict(evidence(FIRST_SIX), late, times={0: 0, 1: RECEIVED + 600_000}, now_ms=RECEIVED + 900_000)
    assert found.lagging == {1}


def test_lost_needs_a_report_for_every_block_that_lacks_lines() -> None:
    assert verdict(evidence(replayed=(1,))).kind is VerdictKind.REPLAY
    assert verdict(evidence(replayed=(0, 1))).kind is VerdictKind.LOST
    assert verdict(evidence(FIRST_SIX, replayed=(0,))).kind is VerdictKind.REPLAY
    assert verdict(evidence(FIRST_SIX, replayed=(1,))).kind is VerdictKind.LOST


@pytest.mark.parametrize(
    "excuse",
    [
        {"times": {0: PAST[0]}},
        {"found": evidence(FIRST_SIX, replayed=(1,), unloaded={"1-1-9-cd": BitMap([9])})},
        {"found": evidence(FIRST_SIX, replayed=(1,), quarantined={"1-1-9-cd": BitMap([9])})},
    ],
)
def test_lost_is_said_only_when_nothing_else_explains_it(excuse: dict[str, Any]) -> None:
    found = excuse.pop("found", evidence(FIRST_SIX, replayed=(1,)))
    assert verdict(found, **excuse).kind in {VerdictKind.WAIT, VerdictKind.HELD}


def test_pauses_double_from_the_grace_to_an_hour() -> None:
    assert [pause_ms(attempt, RULES) for attempt in (1, 2, 3, 4, 5, 99)] == [
        300_000, 600_000, 1_200_000, 2_400_000, 3_600_000, 3_600_000,
    ]  # fmt: skip
    assert pause_ms(1, AuditRules(0, 0)) == 1000
    assert pause_ms(1, AuditRules(10**10, 0)) == 3_600_000


def test_lines_are_read_back() -> None:
    assert read_lines(entry(1, 5, 70_000).line_set) == BitMap([1, 5, 70_000])
