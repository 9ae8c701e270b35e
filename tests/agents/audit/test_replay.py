"""A replay sends what it may, and names every batch that it does not send."""

import pytest

from agents.audit.replay import Held, replay
from app.errors import ServiceUnavailable
from tests.worlds.audit import World


@pytest.fixture
def world() -> World:
    return World()


async def test_a_batch_that_a_quarantined_transaction_holds_is_named_and_not_sent(world: World) -> None:
    """Its blocks are known to the ETL, which would drop them: only the release brings the lines."""
    held = await world.batch()
    world.at_ms += 1  # or they have one id
    other = await world.batch(10)
    place = held.item.blocks[0]
    record = await world.commit(held.item, 0, 6)
    world.warehouse.quarantine(1, record.txn_id, place.partition, 6, world.at_ms)
    report = await replay(world.ports, world.settings, [held.item.batch_id, other.item.batch_id])
    assert report.held == [Held(held.item.batch_id, record.txn_id)]
    assert [done.batch_id for done in report.replayed] == [other.item.batch_id]


async def test_without_an_answer_of_the_warehouse_everything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: int) -> None:
        raise ServiceUnavailable("no warehouse")

    monkeypatch.setattr(world.warehouse, "delivery", refuse)
    sealed = await world.batch()
    report = await replay(world.ports, world.settings, None)
    assert [done.batch_id for done in report.replayed] == [sealed.item.batch_id]
