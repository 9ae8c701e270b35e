"""What a load takes, and what delivery makes of failures."""

import itertools
import json

import pytest

from app.core.delivery.load_plan import (
    ALIKE_ENOUGH,
    DEFERRAL_BACKOFF,
    Bisection,
    Failure,
    FailureClass,
    LoadLimits,
    classify,
    log_row,
    output_loads,
    plan_load,
)
from app.core.formats.flows import OUTPUTS
from app.core.formats.transaction_record import OutputObject, Ready


def txn(partition: int, number: int, *, size: int = 1, **rows: int) -> Ready:
    name = f"1-{partition}-{number}-ab"
    outputs = [
        OutputObject(output=flow.name, rows=rows[flow.name], bytes=size, data_key=f"data/{flow.name}/{name}")
        if rows.get(flow.name) else OutputObject(output=flow.name, rows=0)
        for flow in OUTPUTS
    ]  # fmt: skip
    return Ready(
        txn_id=name, epoch=1, partition=partition, number=number, stream_time_ms=1_000, committed_at_ms=2_000,
        outputs=outputs,
    )  # fmt: skip


def places(planned: tuple[Ready, ...]) -> list[tuple[int, int]]:
    return [(t.partition, t.number) for t in planned]


@pytest.mark.parametrize(
    ("positions", "ready", "expected"),
    [
        ({}, [(0, 1), (0, 2)], [(0, 1), (0, 2)]),
        ({0: 1}, [(0, 1), (0, 2)], [(0, 2)]),
        ({0: 5}, [(0, 1), (0, 2)], []),
        ({}, [(0, 2), (0, 3)], []),
        ({0: 1}, [(0, 2), (0, 4)], [(0, 2)]),
        ({1: 7}, [(1, 8), (0, 1), (0, 2)], [(0, 1), (0, 2), (1, 8)]),
        ({}, [], []),
    ],
)
def test_a_load_goes_on_where_delivery_log_ends_and_skips_nothing(
    positions: dict[int, int], ready: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    for order in itertools.permutations(ready):
        assert sorted(places(plan_load(positions, [txn(*place) for place in order]))) == sorted(expected)


def test_limits_cut_a_load_without_leaving_a_hole_and_always_take_one() -> None:
    ready = [txn(p, n, size=10, ledger=1) for p in (0, 1) for n in (1, 2, 3)]
    assert places(plan_load({}, ready, LoadLimits(transactions=3))) == [(0, 1), (1, 1), (0, 2)]
    assert places(plan_load({}, ready, LoadLimits(bytes=25))) == [(0, 1), (1, 1)]
    assert places(plan_load({}, ready, LoadLimits(bytes=1))) == [(0, 1)]


def test_outputs_are_loaded_in_the_catalogues_order_with_merged_manifests_and_counts() -> None:
    first, second = txn(0, 1, size=5, ledger=2, page_views=3), txn(1, 1, size=7, ledger=4, rejected=1)
    loads = output_loads([first, second], "L", "b")
    assert [(load.flow.name, load.rows) for load in loads] == [("page_views", 3), ("rejected", 1), ("ledger", 6)]
    assert loads[2].manifest_key == "loads/L/ledger.manifest"
    assert json.loads(loads[2].manifest) == {"entries": [
        {"url": "s3://b/data/ledger/1-0-1-ab", "mandatory": True, "meta": {"content_length": 5}},
        {"url": "s3://b/data/ledger/1-1-1-ab", "mandatory": True, "meta": {"content_length": 7}},
    ]}  # fmt: skip
    assert output_loads([txn(0, 1)], "L", "b") == []


def test_log_rows_say_what_was_decided() -> None:
    row = log_row(txn(3, 4, page_views=2, ledger=1), "L")
    assert (row.partition, row.number, row.status, row.rows, row.detail) == (3, 4, "loaded", 3, None)
    assert str(row.stream_time) == "1970-01-01 00:00:01"
    aside = log_row(txn(3, 4), "L", Failure(FailureClass.DATA, "data", "é" * 4096))
    assert aside.status == "quarantined"
    assert aside.detail == "é" * 2048


@pytest.mark.parametrize(
    ("sqlstate", "message", "named", "output", "kind", "reason"),
    [
        ("53100", "Disk Full", False, "ledger", FailureClass.DEFER, "resources"),
        ("55P03", "lock", False, "", FailureClass.DEFER, "lock"),
        ("57014", "cancelled", False, "", FailureClass.DEFER, "cancelled"),
        ("40P01", "deadlock", False, "", FailureClass.DEFER, "conflict"),
        ("XX000", "1023 Serializable isolation violation", False, "ledger", FailureClass.DEFER, "conflict"),
        ("XX000", "Load into table failed", True, "ledger", FailureClass.DATA, "data"),
        ("XX000", "S3ServiceException 1023", False, "ledger", FailureClass.UNCLEAR, "internal"),
        ("XX000", "internal", False, "", FailureClass.DEFER, "other"),
        ("42P01", "no table", False, "ledger", FailureClass.DEFER, "schema"),
        (None, "server closed the connection", False, "ledger", FailureClass.DEFER, "connection"),
        ("99999", "new", False, "ledger", FailureClass.DEFER, "other"),
    ],
)
def test_errors_are_classed_by_sqlstate(  # noqa: PLR0917
    sqlstate: str | None, message: str, named: bool, output: str, kind: FailureClass, reason: str
) -> None:
    failure = classify(sqlstate, message, named_file=named, output=output)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert message in failure.detail


def search(transactions: list[Ready], bad: set[str], kind: FailureClass = FailureClass.UNCLEAR) -> tuple[Bisection, int]:
    """Search as a warehouse would let one in which the `bad` transactions' page_views fail."""
    found, tries = Bisection(transactions), 0
    while (part := found.next()) is not None:
        tries += 1
        if any(t.txn_id in bad for t in part):
            found.failed(Failure(kind, "x", "x", "page_views"))
        else:
            found.passed()
    return found, tries


@pytest.mark.parametrize("count", [2, 3, 8, 100])
def test_the_search_finds_exactly_the_bad_one(count: int) -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(count)]
    for place in {0, count // 2, count - 1}:
        found, tries = search(transactions, {transactions[place].txn_id})
        assert set(found.verdict()) == {transactions[place].txn_id}
        assert tries <= 2 * count.bit_length()


def test_several_bad_ones_are_all_found() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(16)]
    bad = {transactions[n].txn_id for n in (2, 7, 15)}
    assert set(search(transactions, bad)[0].verdict()) == bad


def test_all_failing_alike_are_not_blamed_and_the_search_gives_up_early() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(64)]
    for kind in (FailureClass.UNCLEAR, FailureClass.DATA):
        found, tries = search(transactions, {t.txn_id for t in transactions}, kind)
        assert found.verdict() == {}
        assert len(found.suspects) == ALIKE_ENOUGH
        assert tries < 20


def test_another_output_that_loads_is_no_witness() -> None:
    transactions = [txn(0, 1, page_views=1), txn(0, 2, ledger=1)]
    assert search(transactions, {transactions[0].txn_id})[0].verdict() == {}
    assert set(search(transactions, {transactions[0].txn_id}, FailureClass.DATA)[0].verdict()) == {transactions[0].txn_id}


def test_a_single_one_is_blamed_only_where_the_warehouse_names_its_file() -> None:
    only = txn(0, 1, page_views=1)
    assert search([only], {only.txn_id})[0].verdict() == {}
    assert set(search([only], {only.txn_id}, FailureClass.DATA)[0].verdict()) == {only.txn_id}


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    pause_s = DEFERRAL_BACKOFF.pause_s
    longest = [pause_s(deferrals, 1) for deferrals in range(1, 40)]
    assert longest == sorted(longest)
    assert (longest[0], longest[-1]) == (1, 30)
    assert all(pause_s(deferrals, 0) == pause_s(deferrals, 1) / 2 for deferrals in range(1, 40))


def test_what_the_search_gave_up_on_waits_and_the_rest_goes_on() -> None:
    bad = [txn(p, 1, page_views=1) for p in range(5)]
    other = txn(9, 1, ledger=1)
    found, _ = search([*bad, other], {t.txn_id for t in bad})
    assert found.verdict() == {}
    assert set(found.waiting()) == {t.txn_id for t in bad}


def test_a_suspect_that_loads_after_all_is_neither_bad_nor_waits() -> None:
    transactions = [txn(0, n + 1, page_views=1) for n in range(4)]
    found, _ = search(transactions, {transactions[1].txn_id})
    found.acquit(transactions[1].txn_id)
    assert (found.verdict(), found.waiting()) == ({}, {})
