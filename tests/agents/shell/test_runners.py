"""An inbox hands out exactly the offsets it was started at, and acknowledges in order (rule E4)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.apps import new_app
from app.errors import SourceGap
from app.settings import Settings
from app.shell.inbox import QUEUE_BYTES, Inbox
from app.shell.runners import PartitionRunners, Work
from app.shell.seeker import MAX_SEEKS, SEEK_PATIENCE_S
from tests.worlds.inbox import Source
from tests.worlds.waiting import until


async def test_it_begins_at_its_offset_and_drops_what_is_older() -> None:
    source = Source()
    await source.put(3, 4, 5, 6)
    await source.inbox.start_at(5)
    assert source.seeks == []  # what waits already begins before it
    assert await source.take() == [5, 6]
    assert source.acked == [3, 4]


async def test_it_seeks_where_nothing_waits() -> None:
    source = Source()
    await source.inbox.start_at(5)
    assert source.seeks == [5]


async def test_it_seeks_back_where_what_waits_begins_too_late() -> None:
    source = Source()
    await source.put(9, 10)
    await source.inbox.start_at(5)
    assert source.seeks == [5]
    await source.put(5, 6)
    assert await source.take() == [5, 6]


async def test_a_gap_is_sought_back_once_and_what_came_before_the_seek_is_dropped() -> None:
    source = Source()
    await source.put(0)
    await source.inbox.start_at(0)
    await source.put(1, 4, 5, 6)
    assert await source.take() == [0, 1]
    assert source.seeks == [2]
    await source.put(7, 2, 3, 4)
    assert await source.take() == [2, 3, 4]
    assert source.seeks == [2]
    assert source.acked == []


async def test_a_gap_that_stays_is_sought_again_and_then_is_an_error() -> None:
    source = Source()
    await source.inbox.start_at(0)
    for _ in range(MAX_SEEKS):
        source.clock.now_s += SEEK_PATIENCE_S + 1
        await source.put(4)
        assert await source.take() == []
    source.clock.now_s += SEEK_PATIENCE_S + 1
    await source.put(4)
    with pytest.raises(SourceGap):
        await source.take()
    assert source.seeks == [0] * (MAX_SEEKS + 1)


async def test_messages_that_come_twice_are_handed_out_once() -> None:
    source = Source()
    await source.put(0, 1, 0, 1, 2)
    await source.inbox.start_at(0)
    assert await source.take() == [0, 1, 2]


async def test_a_copy_of_what_is_not_durable_acknowledges_nothing() -> None:
    """Kafka's committed offset must not pass what was handed out and not stepped: an empty `rows` would look lost."""
    source = Source()
    await source.put(0, 1)
    await source.inbox.start_at(0)
    assert await source.take() == [0, 1]
    await source.put(0, 1, 2)  # the consumer sought back, or lost its session
    assert await source.take() == [2]
    assert source.acked == []
    source.inbox.ack(through=1)
    await source.put(1, 2)
    assert await source.take() == []
    assert source.acked == [0, 1, 1]


async def test_a_later_start_makes_nothing_durable() -> None:
    source = Source()
    await source.put(0, 1, 3)
    await source.inbox.start_at(0)
    await source.take()
    await source.inbox.start_at(2)  # the sink that met a hole reads again from there
    await source.put(0, 1, 2)
    assert await source.take() == [2]
    assert source.acked == []


async def test_acknowledgements_are_in_order_and_stop_at_what_is_durable() -> None:
    source = Source()
    await source.put(0, 1, 2, 3)
    await source.inbox.start_at(0)
    await source.take()
    source.inbox.ack(through=1)
    assert source.acked == [0, 1]
    source.inbox.ack(through=1)
    source.inbox.ack(through=3)
    assert source.acked == [0, 1, 2, 3]


async def test_closing_ends_a_take_and_drops_what_waits() -> None:
    source = Source()
    await source.inbox.start_at(0)
    taking = asyncio.ensure_future(source.inbox.take())
    await asyncio.sleep(0)
    source.inbox.close()
    assert await taking == []
    await source.put(0)
    assert await source.take() == []
    assert source.acked == []


async def test_an_inbox_that_closed_while_its_partition_was_loaded_seeks_no_more() -> None:
    source = Source()
    source.inbox.close()
    await source.inbox.start_at(5)
    assert source.seeks == []
    assert await source.take() == []


async def test_a_full_inbox_makes_the_dispatcher_wait_until_it_closes() -> None:
    source = Source()
    await source.put(*range(100))
    waiting = asyncio.ensure_future(source.put(100))
    await asyncio.sleep(0)
    assert not waiting.done()
    source.inbox.close()
    await waiting


@pytest.mark.parametrize("size", [QUEUE_BYTES, QUEUE_BYTES // 2])
async def test_an_inbox_is_full_by_bytes_and_has_room_again_when_they_are_taken(size: int) -> None:
    source = Source()
    await source.inbox.start_at(0)
    held = QUEUE_BYTES // size
    for offset in range(held):
        await source.inbox.put(source.event(offset, bytes(size)))
    waiting = asyncio.ensure_future(source.put(held))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await source.take() == list(range(held))
    await waiting
    assert await source.take() == [held]


async def test_whoever_leaves_second_waits_for_the_first(tmp_path: Path) -> None:
    """A stop that comes while a revoke drains must not take the stores away from the step in flight."""
    app = new_app("etl", Settings(home=tmp_path, partitions=1, replication_factor=1, min_insync_replicas=1))
    begun: list[str] = []
    free = asyncio.Event()

    async def drain() -> None:
        begun.append("drain")
        if len(begun) == 1:
            await free.wait()

    app.when_leaving(drain)
    first, second = (asyncio.ensure_future(app.hooks.leave(why)) for why in ("revoke", "stop"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (begun, second.done()) == (["drain"], False)
    free.set()
    await asyncio.gather(first, second)
    assert begun == ["drain", "drain"]


class Owner:
    """The app around the runners of a topic with one partition."""

    role = "etl"

    def __init__(self, work: Work) -> None:
        self.source = Source()
        self.ports, self.reposition, self.watchdog = self.source.ports, self.source.reposition, self
        self.crashes: list[BaseException] = []
        self._hooks: list[Any] = []
        self.runners = PartitionRunners(self, self.source.inbox.tp.topic, work)

    def when_assigned(self, hook: Any) -> None:
        self._hooks.append(hook)

    when_leaving = watch = ready_when = when_assigned

    def is_current(self, _: int) -> bool:
        return True

    async def crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)

    async def assign(self) -> None:
        await self._hooks[0](frozenset({self.source.inbox.tp}))

    async def leave(self) -> None:
        await self._hooks[1]()

    async def give(self, *offsets: int) -> None:
        for offset in offsets:
            event = self.source.event(offset)
            event.message.generation_id = 1
            await self.runners.give(event)


async def test_what_is_in_hand_when_partitions_are_lost_may_finish() -> None:
    """Leaving ends behind it; what would begin anew finds its inbox closed."""
    started, goes_on = asyncio.Event(), asyncio.Event()
    finished: list[int] = []

    async def work(inbox: Inbox) -> None:
        await inbox.start_at(0)
        while not inbox.closing:
            for event in await inbox.take():
                started.set()
                await goes_on.wait()
                finished.append(event.message.offset)

    owner = Owner(work)
    await owner.assign()
    await owner.give(0)
    await started.wait()
    leaving = asyncio.ensure_future(owner.leave())
    await until(lambda: not owner.runners.positions())
    assert not leaving.done()
    goes_on.set()
    await leaving
    assert (finished, owner.crashes) == ([0], [])


async def test_work_that_ends_although_its_partition_is_owned_ends_the_worker() -> None:
    """Nobody would look at the partition any more."""

    async def work(inbox: Inbox) -> None:
        await inbox.start_at(0)

    owner = Owner(work)
    await owner.assign()
    await until(lambda: owner.crashes)
    assert "ended although it is still owned" in str(owner.crashes[0])


async def test_values_are_let_go_while_their_events_wait_for_their_acknowledgement() -> None:
    source = Source()
    for offset in range(3):
        await source.inbox.put(source.event(offset, b"value"))
    await source.inbox.start_at(0)
    first = await source.inbox.take(timeout_s=0, limit=2)
    assert [event.value for event in first] == [b"value"] * 2
    [last] = await source.inbox.take(timeout_s=0)
    assert [(event.value, event.message.value) for event in first] == [(None, None)] * 2
    assert last.value == b"value"
    source.inbox.ack(through=2)
    assert source.acked == [0, 1, 2]


async def test_what_was_sought_and_never_came_is_sought_again_even_if_nothing_follows() -> None:
    source = Source()
    await source.inbox.start_at(5)
    await source.put(8)  # was on its way at the seek; what is sought was dropped, and the log ends here
    assert await source.take() == []
    source.clock.now_s += SEEK_PATIENCE_S - 1
    assert await source.take() == []
    assert source.seeks == [5]
    source.clock.now_s += 1
    assert await source.take() == []
    assert await source.take() == []
    assert source.seeks == [5, 5]
    source.clock.now_s += 2 * SEEK_PATIENCE_S
    assert await source.take() == []
    assert source.seeks == [5, 5, 5]
    await source.put(5, 6)
    assert await source.take() == [5, 6]
    source.clock.now_s += 1000
    assert await source.take() == []
    assert source.seeks == [5, 5, 5], "nothing is sought any more"


async def test_an_idle_partition_is_sought_ever_more_seldom_and_is_no_gap() -> None:
    source = Source()
    await source.inbox.start_at(0)
    for _ in range(1000):
        source.clock.now_s += 1
        assert await source.take() == []
    assert len(source.seeks) == 1 + 4 + (1000 - 75) // 80
