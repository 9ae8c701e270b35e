"""What is stuck, damaged or silent holds up nothing but itself, and says so (rules D1, D2)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.adapters.warehouse import connect
from app.adapters.warehouse_port import STATEMENT_TIMEOUT_S
from app.core.delivery.load_plan import FailureClass
from app.core.formats import object_keys
from tests.worlds.waiting import LoopTime
from tests.worlds.warehouse import Warehouse, filler, put_transaction, until_locked_out
from tests.worlds.warehouse_delivery import BATCH, deliver, deliverer_of, frames, lines_loaded, log_of, misfit

BAD = {"redirects": b"no avro"}
Damage = Callable[[Warehouse], Awaitable[None]]


async def unreadable(warehouse: Warehouse) -> None:
    await warehouse.store.put(object_keys.record_key(1, 0, 2), b'{"version": 1}')


async def newer(warehouse: Warehouse) -> None:
    await warehouse.store.put(object_keys.record_key(1, 0, 2), b'{"version": 2}')


async def missing(warehouse: Warehouse) -> None:
    await warehouse.store.delete([object_keys.record_key(1, 0, 2)])


async def foreign(warehouse: Warehouse) -> None:
    await warehouse.store.put(object_keys.chain_prefix(1, 0) + "000000000001.json.bak", b"")


@pytest.mark.parametrize(
    ("damage", "reason"), [(unreadable, "chain"), (missing, "chain"), (foreign, "chain"), (newer, "upgrade")]
)
async def test_a_broken_chain_stops_its_own_partition_only_and_shows(
    warehouse: Warehouse, damage: Damage, reason: str
) -> None:
    for number in (1, 2, 3):
        await put_transaction(warehouse, number, frames(10 * number, 1))
        await put_transaction(warehouse, number, frames(100 * number, 1), partition=1)
    await damage(warehouse)

    report = await deliver(warehouse)

    assert report.deferred is not None
    assert (report.deferred.kind, report.deferred.reason) == (FailureClass.DEFER, reason)
    assert 0 < report.pause_s <= warehouse.settings.delivery_interval_s
    assert await lines_loaded(warehouse) == [10, 100, 200, 300]


async def test_a_warehouse_ahead_of_the_bucket_is_noticed(warehouse: Warehouse) -> None:
    await put_transaction(warehouse, 1, frames(0, 1))
    await put_transaction(warehouse, 2, frames(1, 1))
    await deliver(warehouse)
    await missing(warehouse)

    report = await deliver(warehouse)

    assert report.deferred is not None
    assert "delivery_log has number 2" in report.deferred.detail


async def test_what_fails_alike_holds_up_no_other_output(warehouse: Warehouse) -> None:
    redirects = {"redirects": filler("redirects", "", BATCH, 1)}
    for partition in range(5):
        await put_transaction(warehouse, 1, redirects, partition, damage=BAD)
    await put_transaction(warehouse, 1, frames(7, 2), partition=5)
    deliverer = deliverer_of(warehouse)

    report = await deliverer.round(range(6))
    await deliverer.close()

    assert report.deferred is not None
    assert report.quarantined == ()
    assert await log_of(warehouse) == [(5, 1, "loaded")]


async def test_several_bad_ones_in_front_are_told_from_good_ones_behind(warehouse: Warehouse) -> None:
    redirects = {"redirects": filler("redirects", "", BATCH, 1)}
    for partition in range(6):
        await put_transaction(warehouse, 1, redirects, partition, damage=BAD if partition < 4 else None)
    deliverer = deliverer_of(warehouse)

    while (await deliverer.round(range(6))).deferred is not None:
        pass
    await deliverer.close()

    expected = [(partition, 1, "quarantined" if partition < 4 else "loaded") for partition in range(6)]
    assert await log_of(warehouse) == expected


@pytest.mark.parametrize("seed", range(4))
async def test_a_moments_failure_of_s3_sets_nothing_aside(warehouse: Warehouse, seed: int) -> None:
    await put_transaction(warehouse, 1, frames(0, 2))
    await put_transaction(warehouse, 2, frames(2, 2))
    warehouse.fail("internal", times=2)  # the load, and the first transaction tried alone
    deliverer = deliverer_of(warehouse)
    deliverer._chance = random.Random(seed)

    report = await deliverer.round([0])
    await deliverer.close()

    assert (report.quarantined, len(report.loaded)) == ((), 2)
    assert await lines_loaded(warehouse) == [0, 1, 2, 3]


async def test_a_lock_that_is_never_given_up_is_a_deferral_that_shows(warehouse: Warehouse, loop_time: LoopTime) -> None:
    await put_transaction(warehouse, 1, frames(0, 2))
    deliverer = deliverer_of(warehouse)
    async with await connect(warehouse.settings.warehouse_url) as other:
        await other.execute("LOCK TABLE analytics.delivery_log IN SHARE MODE")  # positions can be read, a load cannot begin
        loading = asyncio.ensure_future(deliverer.round([0]))
        await until_locked_out(warehouse, 1)
        loop_time.pass_s(STATEMENT_TIMEOUT_S)
        report = await loading
        assert report.deferred is not None
        assert f"no answer in {STATEMENT_TIMEOUT_S} s to: LOCK TABLE" in report.deferred.detail
        await other.rollback()

    report = await deliverer.round([0])
    await deliverer.close()
    assert report.deferred is None
    assert await lines_loaded(warehouse) == [0, 1]


async def test_while_the_warehouse_is_away_the_chains_are_not_walked_again_and_again(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    real_list = warehouse.store.list

    def counting(prefix: str, *args: Any) -> Any:
        listed.append(prefix)
        return real_list(prefix, *args)

    monkeypatch.setattr(warehouse.store, "list", counting)
    deliverer = deliverer_of(warehouse)
    await put_transaction(warehouse, 1, frames(0, 2))
    await deliverer.round([0])
    await put_transaction(warehouse, 2, frames(2, 2))
    await deliverer.close()
    warehouse.fail("refuse", times=3)

    reasons = [(await deliverer.round([0])).deferred for _ in range(4)]
    await deliverer.close()

    assert [reason is None for reason in reasons] == [False, False, False, True]
    assert await lines_loaded(warehouse) == [0, 1, 2, 3]
    assert len(listed) == 3


@pytest.mark.parametrize("fault", ["drop_after_commit", "drop_before_commit"])
async def test_a_quarantine_whose_commit_is_not_answered_is_told_all_the_same(warehouse: Warehouse, fault: str) -> None:
    bad = await put_transaction(warehouse, 1, frames(0, 2), damage={"page_views": misfit()})
    await put_transaction(warehouse, 2, frames(2, 2))
    warehouse.fail(fault)  # everything before is rolled back, so that the quarantine's is the first COMMIT

    report = await deliver(warehouse)

    assert warehouse.faults_left() == 0
    assert (report.deferred, report.quarantined, len(report.loaded)) == (None, (bad.txn_id,), 1)
    assert await log_of(warehouse) == [(0, 1, "quarantined"), (0, 2, "loaded")]
