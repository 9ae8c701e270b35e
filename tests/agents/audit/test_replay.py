"""A replay sends what it may, and names every batch that it does not send."""

import pytest

from agents.audit.replay import EVERY, Chosen, HeldBatch, Terms, replay
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
    report = await replay(world.ports, world.settings, Chosen(batch_ids=[held.item.batch_id, other.item.batch_id]))
    assert report.held == [HeldBatch(held.item.batch_id, record.txn_id)]
    assert [done.batch_id for done in report.replayed] == [other.item.batch_id]


async def test_without_an_answer_of_the_warehouse_everything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: int) -> None:
        raise ServiceUnavailable("no warehouse")

    monkeypatch.setattr(world.warehouse, "delivery", refuse)
    sealed = await world.batch()
    report = await replay(world.ports, world.settings, EVERY)
    assert [done.batch_id for done in report.replayed] == [sealed.item.batch_id]


async def three(world: World) -> list[str]:
    """Batches of three moments, a second apart."""
    found = []
    for _ in range(3):
        world.at_ms += 1000
        found.append((await world.batch()).item.batch_id)
    return found


async def test_a_range_of_time_and_the_batch_behind_which_to_go_on(world: World) -> None:
    first, second, third = await three(world)
    at_ms = world.at_ms

    async def sent(**chosen: object) -> list[str]:
        report = await replay(world.ports, world.settings, Chosen(**chosen))
        assert report.last == (report.replayed[-1].batch_id if report.replayed else "")
        return [done.batch_id for done in report.replayed]

    assert await sent() == [first, second, third]
    assert await sent(since_ms=at_ms - 1000) == [second, third]
    assert await sent(until_ms=at_ms) == [first, second]
    assert await sent(after=first) == [second, third]
    assert await sent(batch_ids=[third, first, third], after=first) == [third]
    assert await sent(after=third) == []


async def test_a_dry_run_counts_and_sends_nothing(world: World) -> None:
    sealed = await world.batch(30)
    report = await replay(world.ports, world.settings, EVERY, Terms(dry_run=True, lines_per_s=0.1))
    assert (report.dry_run, report.blocks, report.lines) == (True, len(sealed.item.blocks), 30)
    assert (await world.blocks(), (await world.item(sealed)).attempts) == ([], 0)


async def test_no_more_lines_a_second_are_sent_than_may_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.at_ms += round(seconds * 1000)

    await three(world)
    monkeypatch.setattr("agents.audit.replay.asyncio.sleep", sleep)
    await replay(world.ports, world.settings, EVERY, Terms(lines_per_s=15))
    assert slept == pytest.approx([2, 2, 2])


async def test_every_batch_is_shown_as_it_is_done(world: World) -> None:
    batches = await three(world)
    shown: list[tuple[str, int, int]] = []
    await replay(
        world.ports,
        world.settings,
        EVERY,
        show=lambda report, total: shown.append((report.last, len(report.replayed), total)),
    )
    assert shown == [(batch_id, number, 3) for number, batch_id in enumerate(batches, 1)]
