"""A finished transaction that has lost its ready.json: delivery says so, and finishes it again (rule S3)."""

import pytest

from app.core.formats.transaction_record import TransactionRecord
from tests.worlds.delivery import DeliveryProcess, DeliveryWorld


async def lost(world: DeliveryWorld, number: int, *, files: bool = False) -> TransactionRecord:
    """Take away the ready.json of a transaction, with its manifests, and with a file if that is asked."""
    record = world.sink.records()[number - 1]
    keys = [record.ready_key, *(out.manifest_key for out in record.outputs if out.manifest_key)]
    if files:
        keys += [out.data_key for out in record.outputs if out.data_key][:1]
    await world.sink.store.delete(keys)
    return record


@pytest.mark.parametrize("number", [1, 2])
async def test_a_transaction_with_a_successor_is_finished_again_byte_for_byte(number: int) -> None:
    world = await DeliveryWorld().committed(3)
    before = {key: world.sink.body(key) for key in world.sink.keys("")}
    await lost(world, number)
    await DeliveryProcess(world).deliver()
    await world.check()
    after = {key: world.sink.body(key) for key in world.sink.keys("") if not key.startswith("loads/")}
    assert after == before


async def test_the_last_transaction_is_the_sinks_to_finish() -> None:
    world = await DeliveryWorld().committed(2)
    await lost(world, 2)
    await DeliveryProcess(world).deliver()
    assert [row.number for row in world.warehouse.log] == [1]
    await world.sink.sink().open()
    await DeliveryProcess(world).deliver()
    await world.check()


async def test_a_file_that_is_gone_is_named_and_nothing_behind_it_is_loaded() -> None:
    world = await DeliveryWorld().committed(3)
    record = await lost(world, 2, files=True)
    report = await DeliveryProcess(world).deliverer.round([0])
    assert report.deferred is not None
    assert report.deferred.reason == "chain"
    assert f"jobdata/{record.txn_id}/" in report.deferred.detail
    assert [row.number for row in world.warehouse.log] == [1]
