"""Delivery's Faust agent: a message wakes the loop, nothing depends on one, and a load in hand ends before a revoke does."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.testing.memory import MemorySession, MemoryWarehouse
from tests.worlds.agent import Member, new_member
from tests.worlds.sink import World
from tests.worlds.waiting import until

MANIFESTS = "manifests-e1"


class Delivery(Member):
    """A deliverer's process over a sink's bucket and a warehouse in memory."""

    def __init__(self) -> None:
        super().__init__("delivery")
        self.sink = World()
        self.warehouse = MemoryWarehouse(self.sink.store)
        self.warehouse.before = self._wait_at_lock
        self.app.ports.objects = self.sink.store
        self.sink.store.before = self._count
        self.module.to_warehouse = lambda _: self._open_session
        self.walks = 0
        self.free = asyncio.Event()
        self.free.set()
        self.locking = asyncio.Event()

    async def _open_session(self, *_: str) -> MemorySession:
        return await self.warehouse.connect()

    async def _wait_at_lock(self, call: str, _: str) -> None:
        if call == "lock":
            self.locking.set()
            await self.free.wait()

    async def _count(self, call: str, _: str) -> None:
        self.walks += call == "list"

    async def ready(self) -> None:
        """One more transaction lies ready in S3."""
        self.sink.tick()
        await self.sink.drain(self.sink.sink())

    async def until_loaded(self, *numbers: int) -> None:
        await until(lambda: self.crashes or len(self.warehouse.log) >= len(numbers))
        assert [(row.partition, row.number) for row in self.warehouse.log] == [(0, number) for number in numbers]


@pytest.fixture
def delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Delivery]:
    with new_member("delivery", tmp_path, monkeypatch, partitions=2, delivery_interval_s=3600):
        yield Delivery()


async def test_a_message_wakes_the_loop_long_before_the_interval(delivery: Delivery) -> None:
    async with delivery.module.look_sooner.test_context() as agent:
        await delivery.assign(MANIFESTS, 0)
        await until(lambda: delivery.warehouse.sessions)
        for number in (1, 2):
            await delivery.ready()
            event = await agent.put(delivery.sink.announced[-1], partition=0)
            await delivery.until_loaded(*range(1, number + 1))
            await until(lambda: event.message.acked)  # noqa: B023
        await delivery.revoke()
    assert not delivery.crashes
    assert delivery.walks <= 3, "one round on assignment and one a message"


async def test_what_lies_ready_is_loaded_though_its_message_was_lost(delivery: Delivery) -> None:
    await delivery.ready()
    await delivery.ready()
    await delivery.assign(MANIFESTS, 0)
    await delivery.until_loaded(1, 2)
    await delivery.revoke()


async def test_a_message_that_comes_during_a_round_makes_another_one(delivery: Delivery) -> None:
    await delivery.ready()
    delivery.free.clear()
    async with delivery.module.look_sooner.test_context() as agent:
        await delivery.assign(MANIFESTS, 0)
        await delivery.locking.wait()
        await delivery.ready()
        event = await agent.put(delivery.sink.announced[-1], partition=0)
        await until(lambda: event.message.acked)
        delivery.free.set()
        await delivery.until_loaded(1, 2)
        await delivery.revoke()


async def test_revoke_waits_for_the_load_in_hand_ends_the_loop_and_the_next_owner_goes_on(delivery: Delivery) -> None:
    await delivery.ready()
    delivery.free.clear()
    await delivery.assign(MANIFESTS, 0)
    await delivery.locking.wait()
    await delivery.ready()
    delivery.module.owner.look_sooner()
    leaving = asyncio.ensure_future(delivery.revoke())
    await until(lambda: delivery.module.owner.worker is None)
    delivery.free.set()
    await leaving
    await delivery.until_loaded(1)
    assert not delivery.warehouse.sessions, "the loop has ended and let go of the warehouse"
    await delivery.assign(MANIFESTS, 0)
    await delivery.until_loaded(1, 2)
    await delivery.revoke()
    assert not delivery.crashes


@pytest.mark.parametrize(("topic", "partition"), [("another", 0), (MANIFESTS, 1)])
async def test_nobody_delivers_what_is_not_its_own(delivery: Delivery, topic: str, partition: int) -> None:
    await delivery.ready()
    await delivery.assign(topic, partition)
    if topic == MANIFESTS:
        await until(lambda: delivery.warehouse.sessions)
    await delivery.revoke()
    assert delivery.warehouse.log == ()
    await delivery.assign(MANIFESTS, 0)
    await delivery.until_loaded(1)
    await delivery.revoke()


async def test_an_exception_ends_the_app(delivery: Delivery) -> None:
    async def fail(call: str, _: str) -> None:
        raise RuntimeError(call)

    delivery.sink.store.before = fail
    await delivery.assign(MANIFESTS, 0)
    await until(lambda: delivery.crashes)
    await delivery.revoke()
    assert [str(exc) for exc in delivery.crashes] == ["list"]
    assert not delivery.warehouse.sessions


async def test_ready_says_which_column_is_missing_until_it_is_there(delivery: Delivery) -> None:
    before = delivery.warehouse.tables["page_views"]
    delivery.warehouse.tables["page_views"] = tuple(column for column in before if column.name != "url")
    await delivery.ready()
    await delivery.assign(MANIFESTS, 0)
    await until(lambda: delivery.app.readiness() is not None)
    assert delivery.app.readiness() == (
        "warehouse, schema: the warehouse lacks column analytics.page_views.url: run `instream init`"
    )
    delivery.warehouse.tables["page_views"] = before
    await until(lambda: delivery.app.readiness() is None)
    await delivery.until_loaded(1)
    await delivery.revoke()
