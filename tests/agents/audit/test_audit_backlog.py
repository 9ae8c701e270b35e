"""The audit when much is open or lies behind delivery, or a file is mended under it: bounded work, no wrong replay."""

from collections.abc import AsyncIterator

import pytest

from agents.audit.auditor import CHUNK
from agents.audit.stored_ledger import BEHIND_MOST
from app.core.formats import object_keys
from app.core.formats.flows import LEDGER
from app.core.formats.registry_item import RegistryItem
from app.testing.memory import MemoryRegistry
from tests.worlds.audit import World, counts


@pytest.fixture
def world() -> World:
    return World()


async def test_what_lies_behind_delivery_is_listed_once_for_many_batches(world: World) -> None:
    for _ in range(60):
        world.at_ms += 1
        await world.batch(lines=9)
    world.later()
    listed: list[str] = []

    async def note(call: str, subject: str) -> None:
        if call == "list":
            listed.append(subject)

    world.store.before = note
    assert counts(await world.auditor.round()) == {"judged": 60, "replayed": 60}
    assert sorted(listed) == [object_keys.chain_prefix(1, partition) for partition in range(3)]


async def test_a_batch_is_not_replayed_while_delivery_is_far_behind_where_it_lacks_lines(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    other = await world.batch()
    for number in range(6, 6 + BEHIND_MOST + 1):
        await world.commit(other.item, 1, number)
    read: list[str] = []

    async def note(call: str, subject: str) -> None:
        if call == "get":
            read.append(subject)

    world.store.before = note
    report = await world.auditor.round()

    assert counts(report) == {"judged": 1, "waiting": 1}
    assert report.waits_for == [f"partitions [1]: delivery ({BEHIND_MOST + 1} behind)"]
    assert read == []
    assert await world.blocks() == []


async def test_a_ledger_file_that_was_mended_is_read_again(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    record = await world.commit(sealed.item, 1, 6)
    (ledger_key,) = [output.data_key for output in record.outputs if output.output == LEDGER.name]
    assert ledger_key is not None
    body = await world.store.get(ledger_key)
    await world.store.put(ledger_key, b"damaged")
    world.warehouse.quarantine(1, record.txn_id, record.partition, 6, world.at_ms)
    assert "held" not in counts(await world.auditor.round())

    await world.store.put(ledger_key, body)

    assert counts(await world.auditor.round()) == {"judged": 1, "held": 1}


async def test_transactions_of_one_number_in_two_partitions_are_two(world: World) -> None:
    sealed = await world.batch(lines=90)
    partitions: dict[int, int] = {place.partition: block for block, place in enumerate(sealed.item.blocks)}
    held = sorted(partitions)[:2]
    world.ledger(sealed.item, *(block for partition, block in partitions.items() if partition not in held))
    world.later()
    records = [await world.commit(sealed.item, partitions[partition], 6) for partition in held]
    for record in records:
        world.warehouse.quarantine(1, record.txn_id, record.partition, 6, world.at_ms)
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "held": 1}
    assert sorted(report.held_by) == sorted(record.txn_id for record in records)


async def test_what_is_loaded_while_it_is_judged_is_neither_lost_nor_sent_again(world: World) -> None:
    """How far delivery is is asked before its ledger: what is loaded in between only shows a batch as too incomplete."""
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    partition = sealed.item.blocks[1].partition
    world.later(lagging=partition)

    async def load(call: str, _: str) -> None:
        if call == "entries":
            world.warehouse.after = None
            world.ledger(sealed.item, 1)
            world.warehouse.add_replay(sealed.item.batch_id, 1, attempt=1)
            world.warehouse.load(1, partition, 5, world.at_ms)

    world.warehouse.after = load
    assert counts(await world.auditor.round()) == {"judged": 1, "waiting": 1}
    assert await world.blocks() == []
    assert counts(await world.auditor.round()) == {"judged": 1, "completed": 1}


class Counting(MemoryRegistry):
    """Counts the open batches it has handed out."""

    handed_out = 0

    async def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        async for item in super().open_batches(received_before_ms):
            self.handed_out += 1
            yield item


async def test_open_batches_are_read_as_they_are_judged(world: World) -> None:
    world.registry = registry = Counting()
    world.auditor._ports = world.auditor._ports._replace(registry=registry)
    for _ in range(2 * CHUNK + 50):
        world.at_ms += 1
        await world.batch(lines=1)
    world.later()
    seen: list[int] = []

    async def note(call: str, _: str) -> None:
        if call == "entries":
            seen.append(registry.handed_out)

    world.warehouse.before = note
    report = await world.auditor.round()

    assert seen == [CHUNK, 2 * CHUNK, 2 * CHUNK + 50]
    assert report.judged == 2 * CHUNK + 50
