"""What a load takes, and what delivery makes of failures."""

import itertools
import json

import pytest

from app.core.delivery.load_plan import (
    DEFERRAL_BACKOFF,
    Failure,
    FailureClass,
    LoadLimits,
    classify,
    log_row,
    output_loads,
    plan_load,
)
from app.core.formats.transaction_record import Ready
from tests.builders.ready import txn


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
        ("53100", "Disk Full", "", "ledger", FailureClass.DEFER, "resources"),
        ("55P03", "lock", "", "", FailureClass.DEFER, "lock"),
        ("57014", "cancelled", "", "", FailureClass.DEFER, "cancelled"),
        ("40P01", "deadlock", "", "", FailureClass.DEFER, "conflict"),
        ("XX000", "1023 Serializable isolation violation", "", "ledger", FailureClass.DEFER, "conflict"),
        ("XX000", "Load into table failed", "s3://bucket/data/x.tsv.zst", "ledger", FailureClass.DATA, "data"),
        ("XX000", "S3ServiceException 1023", "", "ledger", FailureClass.UNCLEAR, "internal"),
        ("XX000", "internal", "", "", FailureClass.DEFER, "other"),
        ("42P01", "no table", "", "ledger", FailureClass.DEFER, "schema"),
        (None, "server closed the connection", "", "ledger", FailureClass.DEFER, "connection"),
        ("99999", "new", "", "ledger", FailureClass.DEFER, "other"),
    ],
)
def test_errors_are_classed_by_sqlstate(  # noqa: PLR0917
    sqlstate: str | None, message: str, named: str, output: str, kind: FailureClass, reason: str
) -> None:
    failure = classify(sqlstate, message, named_file=named, output=output)
    assert (failure.kind, failure.reason) == (kind, reason)
    assert (message in failure.detail, failure.file) == (True, named)


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    pause_s = DEFERRAL_BACKOFF.pause_s
    longest = [pause_s(deferrals, 1) for deferrals in range(1, 40)]
    assert longest == sorted(longest)
    assert (longest[0], longest[-1]) == (1, 30)
    assert all(pause_s(deferrals, 0) == pause_s(deferrals, 1) / 2 for deferrals in range(1, 40))
