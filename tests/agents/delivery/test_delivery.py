"""Delivery on the real warehouse stand-in and S3's: each transaction once, whatever fails on the way."""

from functools import partial

import pytest

from agents.delivery.deliverer import DeliveryReport
from agents.delivery.release import Released, release
from app.adapters.warehouse import connect, open_session
from app.clock import SystemClock
from app.core.delivery.load_plan import FailureClass
from app.core.formats.flows import OUTPUTS
from app.errors import ConfigurationError, LoadRejected
from tests.worlds.warehouse import Warehouse, control, filler, put_transaction
from tests.worlds.warehouse_delivery import (
    BATCH,
    deliver,
    deliverer_of,
    frames,
    ledger,
    lines_loaded,
    log_of,
    misfit,
    other_count,
)


async def test_everything_that_is_ready_is_loaded_once(warehouse: Warehouse) -> None:
    whole = {flow.name: filler(flow.name, "", BATCH, 3) for flow in OUTPUTS} | {"ledger": ledger(range(3))}
    first = await put_transaction(warehouse, 1, whole)
    await put_transaction(warehouse, 2, {})
    await put_transaction(warehouse, 1, frames(10, 2), partition=1)
    await put_transaction(warehouse, 3, frames(20, 2), ready=False)

    deliverer = deliverer_of(warehouse)
    report = await deliverer.round([0, 1])
    again = await deliverer.round([0, 1])
    await deliverer.close()

    assert len(report.loaded) == 3
    assert report.rows == 3 * 8 + 1 + 3
    assert (report.deferred, report.quarantined, again) == (None, (), DeliveryReport())
    assert await log_of(warehouse) == [(0, 1, "loaded"), (0, 2, "loaded"), (1, 1, "loaded")]
    for flow in OUTPUTS:
        table = f"analytics.{flow.name} WHERE txn_id = '{first.txn_id}'"
        assert await warehouse.query(f"SELECT count(*) FROM {table}") == [(1 if flow.name == "ledger" else 3,)]
        assert await warehouse.query(f"SELECT count(*) FROM {table} AND loaded_at IS NULL") == [(0,)]
    (logged,) = await warehouse.query(
        "SELECT rows, stream_time::text, load_id FROM analytics.delivery_log WHERE partition = 0 AND number = 1"
    )
    assert logged[:2] == (25, "2026-11-18 11:06:41")
    assert [info.key async for info in warehouse.store.list(f"loads/{logged[2]}/")]


async def test_a_commit_whose_answer_is_lost_is_looked_up_not_repeated(warehouse: Warehouse) -> None:
    await put_transaction(warehouse, 1, frames(0, 4))
    warehouse.fail("drop_after_commit")

    report = await deliver(warehouse)

    assert warehouse.faults_left() == 0
    assert len(report.loaded) == 1
    assert report.deferred is None
    assert await lines_loaded(warehouse) == [0, 1, 2, 3]


async def test_a_commit_that_never_arrived_is_repeated(warehouse: Warehouse) -> None:
    await put_transaction(warehouse, 1, frames(0, 4))
    warehouse.fail("drop_before_commit")

    report = await deliver(warehouse)

    assert warehouse.faults_left() == 0
    assert len(report.loaded) == 1
    assert await lines_loaded(warehouse) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "statement", "reason"),
    [
        ("disk_full", "", "resources"), ("serialization", "", "conflict"), ("lock_timeout", "^LOCK", "cancelled"),
        ("serialization", "^INSERT", "conflict"), ("serialization", "^COMMIT", "conflict"),
        ("drop_mid_copy", "", "connection"),
        ("refuse", "", "outside"),
    ],
)  # fmt: skip
async def test_what_the_warehouse_cannot_do_now_is_deferred_with_its_reason_and_then_loaded(
    warehouse: Warehouse, kind: str, statement: str, reason: str
) -> None:
    await put_transaction(warehouse, 1, frames(0, 3))
    await put_transaction(warehouse, 2, frames(3, 2))
    warehouse.fail(kind, statement=statement)
    deliverer = deliverer_of(warehouse)

    deferred = await deliverer.round([0])
    assert deferred.deferred is not None
    assert (deferred.deferred.kind, deferred.deferred.reason) == (FailureClass.DEFER, reason)
    assert 0.5 <= deferred.pause_s <= 1
    assert await lines_loaded(warehouse) == []

    report = await deliverer.round([0])
    await deliverer.close()
    assert (len(report.loaded), report.deferred, report.pause_s) == (2, None, 0)
    assert await lines_loaded(warehouse) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("body", [misfit(), other_count(), b"no zstd frame"], ids=["misfit", "count", "unreadable"])
async def test_a_bad_file_sets_only_its_transaction_aside(warehouse: Warehouse, body: bytes) -> None:
    records = [
        await put_transaction(warehouse, n, frames(10 * n, 2), damage={"page_views": body} if n == 3 else None)
        for n in range(1, 6)
    ]  # fmt: skip
    await put_transaction(warehouse, 1, frames(0, 2), partition=1)

    report = await deliver(warehouse)

    assert report.quarantined == (records[2].txn_id,)
    assert report.deferred is None
    assert await lines_loaded(warehouse) == [0, 1, 10, 11, 20, 21, 40, 41, 50, 51]
    assert (0, 3, "quarantined") in await log_of(warehouse)
    assert len(await log_of(warehouse)) == 6


async def test_a_named_fault_of_the_only_transaction_sets_it_aside_with_the_detail(warehouse: Warehouse) -> None:
    record = await put_transaction(warehouse, 1, frames(0, 2), damage={"page_views": misfit()})

    report = await deliver(warehouse)

    assert report.quarantined == (record.txn_id,)
    ((detail,),) = await warehouse.query("SELECT detail FROM analytics.delivery_log")
    assert "column country" in detail
    assert f"{record.txn_id}.tsv.zst line 1" in detail
    assert (await deliver(warehouse)) == DeliveryReport()


async def test_an_unclear_failure_of_everything_is_deferred(warehouse: Warehouse) -> None:
    for number in (1, 2):
        await put_transaction(warehouse, number, frames(number, 1), damage={"page_views": b"no zstd frame"})

    report = await deliver(warehouse)

    assert report.quarantined == ()
    assert report.deferred is not None
    assert report.deferred.output == "page_views"
    assert await log_of(warehouse) == []


async def test_what_lies_behind_an_unproven_one_waits_and_other_partitions_go_on(warehouse: Warehouse) -> None:
    redirects = {"redirects": filler("redirects", "", BATCH, 1)}
    await put_transaction(warehouse, 1, redirects, damage={"redirects": b"no avro"}, partition=0)
    await put_transaction(warehouse, 2, redirects, damage={"redirects": b"no avro"}, partition=0)
    await put_transaction(warehouse, 1, frames(5, 1), partition=1)

    report = await deliver(warehouse)

    assert report.deferred is not None
    assert report.quarantined == ()
    assert await log_of(warehouse) == [(1, 1, "loaded")]


async def test_a_table_that_is_missing_is_nobodys_file(warehouse: Warehouse) -> None:
    await put_transaction(warehouse, 1, frames(0, 1))
    await put_transaction(warehouse, 2, {"replays": filler("replays", "", BATCH, 1)})
    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute("ALTER TABLE analytics.replays RENAME TO replays_away")

    report = await deliver(warehouse)
    assert report.deferred is not None
    assert (report.deferred.reason, await log_of(warehouse)) == ("schema", [])

    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute("ALTER TABLE analytics.replays_away RENAME TO replays")
    assert len((await deliver(warehouse)).loaded) == 2


async def test_two_deliverers_of_the_same_partitions_load_each_transaction_once(warehouse: Warehouse) -> None:
    import asyncio

    first, second = deliverer_of(warehouse), deliverer_of(warehouse)
    await asyncio.gather(first.round([0]), second.round([0]))  # both know position 0
    for number in range(1, 7):
        await put_transaction(warehouse, number, frames(10 * number, 2))

    reports = await asyncio.gather(first.round([0]), second.round([0]))
    await first.close()
    await second.close()

    assert sum(len(report.loaded) for report in reports) == 6
    assert [report.deferred for report in reports] == [None, None]
    assert len(await lines_loaded(warehouse)) == 12


async def test_release_loads_a_mended_transaction_and_only_once(warehouse: Warehouse) -> None:
    record = await put_transaction(warehouse, 1, frames(0, 2), damage={"page_views": misfit()})
    await put_transaction(warehouse, 2, frames(2, 2))
    await deliver(warehouse)
    assert await lines_loaded(warehouse) == [2, 3]
    ports = (warehouse.store, partial(open_session, warehouse.settings.warehouse_url), warehouse.settings, SystemClock())
    with pytest.raises(LoadRejected, match="country"):
        await release(*ports, record.txn_id)
    await put_transaction(warehouse, 1, frames(0, 2))  # the file is what it should have been

    assert (await release(*ports, record.txn_id)).result is Released.LOADED
    assert (await release(*ports, record.txn_id)).result is Released.ALREADY_LOADED

    assert await lines_loaded(warehouse) == [0, 1, 2, 3]
    assert await log_of(warehouse) == [(0, 1, "loaded"), (0, 2, "loaded")]


async def test_release_refuses_lines_that_the_ledger_has(warehouse: Warehouse) -> None:
    record = await put_transaction(warehouse, 1, frames(0, 2), damage={"page_views": misfit()})
    await put_transaction(warehouse, 2, frames(1, 3))
    await deliver(warehouse)
    ports = (warehouse.store, partial(open_session, warehouse.settings.warehouse_url), warehouse.settings, SystemClock())

    answer = await release(*ports, record.txn_id)

    assert (answer.result, answer.present) == (Released.LINES_PRESENT, {BATCH: 1})
    assert await lines_loaded(warehouse) == [1, 2, 3]
    for unknown in ("1-0-9-00", "1-0-2-ffff", "nonsense"):
        with pytest.raises(ConfigurationError):
            await release(*ports, unknown)


async def test_a_file_that_the_warehouse_cannot_read_is_set_aside_alone_and_released_later(warehouse: Warehouse) -> None:
    transactions = [await put_transaction(warehouse, number, frames(10 * number, 2)) for number in (1, 2, 3)]
    bad = transactions[1].txn_id
    warehouse.fail("unreadable", statement=bad)

    report = await deliver(warehouse)
    ports = (warehouse.store, partial(open_session, warehouse.settings.warehouse_url), warehouse.settings, SystemClock())

    assert report.quarantined == (bad,)
    assert set(report.loaded) == {transactions[0].txn_id, transactions[2].txn_id}
    assert await lines_loaded(warehouse) == [10, 11, 30, 31]
    assert control(warehouse.stack, "GET", "/struck")["unreadable"] >= 1
    with pytest.raises(LoadRejected):
        await release(*ports, bad)
    control(warehouse.stack, "DELETE")
    assert (await release(*ports, bad)).result is Released.LOADED
    assert await lines_loaded(warehouse) == [10, 11, 20, 21, 30, 31]
