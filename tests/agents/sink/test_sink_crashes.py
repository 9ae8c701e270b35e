"""Sinks that die, race, and do not get answers: one history, nothing lost, nothing doubled (rules S1, S3, S4)."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.sink.partition import Displaced
from app.core.formats import object_keys
from app.errors import ChainBroken, OutcomeUnknown, ServiceUnavailable
from tests.worlds.sink import PLACE, Died, Process, World


def busy_world() -> World:
    world = World()
    world.emit(page_views=2, redirects=1)
    world.emit(engagements=1, replays=1)
    world.zombie()
    world.emit(rejected=1)
    return world


async def moments_of_one_life() -> int:
    world = busy_world()
    process = world.process()
    await world.drain(world.sink(process))
    return process.moments


async def test_a_crash_before_or_after_any_call_is_repaired_by_the_successor() -> None:
    moments = await moments_of_one_life()
    assert moments > 50
    for moment in range(moments):
        world = busy_world()
        process = world.process()
        process.dies_at = moment
        with pytest.raises(Died):
            await world.drain(world.sink(process))
        world.check_ready()
        await world.drain(world.sink())
        world.check_complete()
        assert_only_uncommitted_is_staged(world)


def assert_only_uncommitted_is_staged(world: World) -> None:
    """What stays in jobdata/ belongs to no committed transaction."""
    committed = {record.txn_id for record in world.records()}
    assert not {key.split("/")[1] for key in world.keys("jobdata/")} & committed


async def test_a_crash_during_roll_forward_is_rolled_forward() -> None:
    for second_death in range(40):
        world = busy_world()
        first, second = world.process(), world.process()
        commits = [n for n, (call, _) in enumerate(await calls_of_one_life()) if call == "put_if_absent"]
        first.dies_at = 2 * (commits[0] + 1)  # right after the record
        second.dies_at = second_death
        with pytest.raises(Died):
            await world.drain(world.sink(first))
        assert len(world.records()) == 1
        with pytest.raises(Died):
            await world.drain(world.sink(second))
        await world.drain(world.sink())
        world.check_complete()


async def calls_of_one_life() -> list[tuple[str, str]]:
    world = busy_world()
    process = world.process()
    await world.drain(world.sink(process))
    return process.log


async def test_roll_forward_writes_the_same_bytes_at_another_time() -> None:
    world = busy_world()
    await world.drain(world.sink())
    before = {key: world.body(key) for key in world.keys("")}
    world.clock.pass_s(86_400)
    assert await world.sink().open() > 0
    assert {key: world.body(key) for key in world.keys("")} == before


@pytest.mark.parametrize("spoil", ["remove", "change"])
async def test_a_moved_file_that_is_not_what_the_record_says_is_loud(spoil: str) -> None:
    world = busy_world()
    await world.drain(world.sink(), per_transaction=4)
    key = world.keys("data/page_views/")[0]
    await (world.store.delete([key]) if spoil == "remove" else world.store.put(key, b"other"))
    with pytest.raises(ChainBroken):
        await world.sink().open()


async def test_our_commit_whose_answer_is_lost_is_ours() -> None:
    world = busy_world()
    process = world.process()
    lost = iter([OutcomeUnknown("no answer")])

    async def after(call: str, _: str) -> None:
        if call == "put_if_absent" and (error := next(lost, None)):
            raise error

    process.store.after = after
    sink = world.sink(process)
    await sink.open()
    world.feed(sink, 0)
    assert await sink.commit() is None
    assert len(world.records()) == 1
    world.check_complete()


@pytest.mark.parametrize("error", [ServiceUnavailable, OutcomeUnknown])
async def test_calls_that_fail_or_lose_their_answer_are_repeated(error: type[Exception]) -> None:
    world = busy_world()
    process = world.process()
    chance = random.Random(7)

    async def fail(call: str, subject: str) -> None:
        if chance.random() < 0.3:
            raise error(f"{call} {subject}")

    if error is ServiceUnavailable:
        process.store.before = fail
    else:
        process.store.after = fail
    await world.drain(world.sink(process))
    world.check_complete()
    assert world.keys("jobdata/") == []


async def test_a_commit_that_comes_second_follows_the_first() -> None:
    world = busy_world()
    slow, quick = world.sink(), world.sink()
    await slow.open()
    world.feed(slow, 0, 4)
    await quick.open()
    world.feed(quick, 0, 2)
    assert await quick.commit() is None
    assert await slow.commit() == Displaced(read_from=1)
    assert slow.acknowledged == 1
    assert world.keys("jobdata/") == [], "what lost its number to another is deleted"
    world.feed(slow, 1)
    assert await slow.commit() is None
    world.check_complete()


async def test_a_foreign_record_without_its_files_in_place_is_finished_by_whoever_meets_it() -> None:
    world = busy_world()
    slow = world.sink()
    await slow.open()
    world.feed(slow, 0, 4)
    dying = world.process()
    dead = world.sink(dying)
    await dead.open()
    world.feed(dead, 0, 2)
    dying.store.after = _die_after("put_if_absent")
    with pytest.raises(Died):
        await dead.commit()
    assert [key for key in world.keys("manifests/")] == []
    assert isinstance(await slow.commit(), Displaced)
    world.check_ready()
    assert len(world.keys("manifests/")) > 0
    world.feed(slow, 1)
    await slow.commit()
    world.check_complete()


def _die_after(wanted: str) -> Callable[[str, str], Awaitable[None]]:
    async def after(call: str, _: str) -> None:
        if call == wanted:
            raise Died

    return after


async def test_a_record_that_is_not_its_keys_is_loud() -> None:
    world = busy_world()
    await world.drain(world.sink())
    last = world.records()[-1]
    await world.store.put(
        object_keys.record_key(*PLACE, last.number + 1), world.body(object_keys.record_key(*PLACE, last.number))
    )
    with pytest.raises(ChainBroken):
        await world.sink().open()


async def test_a_hole_in_the_chain_is_loud() -> None:
    world = busy_world()
    await world.drain(world.sink(), per_transaction=1)
    await world.store.delete([object_keys.record_key(*PLACE, 2)])
    with pytest.raises(ChainBroken):
        await world.sink().open()


class Turns:
    """Lets concurrent processes make their calls one at a time, in an order that the test chooses."""

    def __init__(self, choices: list[int]) -> None:
        self._choices = iter(choices)
        self._waiting: list[asyncio.Future[None]] = []
        self._came = asyncio.Event()

    def admit(self, process: Process) -> None:
        accepted = process.store.before

        async def before(call: str, subject: str) -> None:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            self._came.set()
            await turn
            assert accepted is not None
            await accepted(call, subject)

        process.store.before = before

    async def run(self, *lives: Awaitable[None]) -> None:
        tasks = [asyncio.ensure_future(life) for life in lives]
        while running := [task for task in tasks if not task.done()]:
            if self._waiting:
                self._waiting.pop(next(self._choices, 0) % len(self._waiting)).set_result(None)
                await asyncio.sleep(0)
                continue
            self._came.clear()
            arrival = asyncio.ensure_future(self._came.wait())
            await asyncio.wait([arrival, *running], return_when=asyncio.FIRST_COMPLETED)
            arrival.cancel()
        await asyncio.gather(*tasks)


@settings(max_examples=60, deadline=None)
@given(
    choices=st.lists(st.integers(0, 7), max_size=200),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    deaths=st.tuples(*[st.none() | st.integers(0, 120)] * 3),
)
def test_sinks_that_race_and_die_write_one_history(
    choices: list[int], sizes: tuple[int, ...], deaths: tuple[int | None, ...]
) -> None:
    async def histories() -> None:
        world = busy_world()
        world.emit(page_views=1)
        world.tick()
        turns = Turns(choices)

        async def live(size: int, dies_at: int | None) -> None:
            process = world.process()
            process.dies_at = dies_at
            turns.admit(process)
            try:
                await world.drain(world.sink(process), per_transaction=size)
            except Died:
                world.check_ready()

        await turns.run(*(live(size, death) for size, death in zip(sizes, deaths, strict=True)))
        await world.drain(world.sink())
        world.check_complete()
        assert_only_uncommitted_is_staged(world)

    asyncio.run(histories())
