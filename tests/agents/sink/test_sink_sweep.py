"""What was staged and never committed: who may delete it, and when (rule S4)."""

import pytest

from agents.sink.chain_store import sweep
from app.core.sink.chain import SWEEP_AGE_MS, Leftover
from app.errors import ServiceUnavailable
from tests.worlds.sink import Died, World


async def die_while_committing(world: World, last_call: str) -> None:
    """A sink that dies right after its first call of `last_call`."""
    process = world.process()

    async def after(call: str, _: str) -> None:
        if call == last_call:
            raise Died

    sink = world.sink(process)
    offset = await sink.open()
    world.feed(sink, offset)
    process.store.after = after
    with pytest.raises(Died):
        await sink.commit()


async def swept(world: World) -> dict[Leftover, int]:
    return await sweep(world.store, world.clock.now_ms())


def one_row() -> World:
    world = World()
    world.emit(page_views=1)
    return world


async def test_what_may_still_be_committed_stays() -> None:
    world = one_row()
    await die_while_committing(world, "put")
    staged = world.keys("jobdata/")
    world.clock.pass_s(SWEEP_AGE_MS / 1000)
    assert await swept(world) == {Leftover.KEEP: 1}
    assert world.keys("jobdata/") == staged != []


async def test_what_lost_its_number_is_deleted_once_it_is_old() -> None:
    world = one_row()
    await die_while_committing(world, "put")
    await world.drain(world.sink())
    staged = world.keys("jobdata/")
    assert staged
    world.clock.pass_s(SWEEP_AGE_MS / 1000 - 1)
    assert await swept(world) == {}
    assert world.keys("jobdata/") == staged
    world.clock.pass_s(1)
    assert await swept(world) == {Leftover.DELETE: 1}
    assert world.keys("jobdata/") == []
    world.check_complete()


async def test_what_is_committed_is_finished_before_it_is_deleted() -> None:
    world = one_row()
    await die_while_committing(world, "put_if_absent")
    assert world.keys("manifests/") == []
    world.clock.pass_s(SWEEP_AGE_MS / 1000)
    assert await swept(world) == {Leftover.FINISH: 1}
    assert world.keys("jobdata/") == []
    world.check_complete()


async def test_a_staged_object_that_arrives_after_its_transaction_was_finished() -> None:
    world = one_row()
    await die_while_committing(world, "put_if_absent")
    late = world.keys("jobdata/")[0]
    body = world.body(late)
    await world.drain(world.sink())
    await world.store.put(late, body)
    world.clock.pass_s(SWEEP_AGE_MS / 1000)
    assert await swept(world) == {Leftover.FINISH: 1}
    assert world.keys("jobdata/") == []
    world.check_complete()


async def test_a_broken_chain_keeps_its_objects_and_does_not_stop_the_sweep() -> None:
    world = one_row()
    await die_while_committing(world, "put")
    key = world.keys("jobdata/")[0]
    other = key.replace("jobdata/1-0-1-", "jobdata/1-9-1-")
    await world.store.put(other, b"x")
    await world.store.put("transactions/1/9/000000000001.json", b"{}")
    await world.drain(world.sink())
    world.clock.pass_s(SWEEP_AGE_MS / 1000)
    assert await swept(world) == {Leftover.DELETE: 1, Leftover.KEEP: 1}
    assert world.keys("jobdata/") == [other]


async def test_strange_keys_are_left_alone_and_failures_repeated() -> None:
    world = one_row()
    await die_while_committing(world, "put")
    await world.drain(world.sink())
    await world.store.put("jobdata/notes.txt", b"x")
    await world.store.put("jobdata/a-b/c", b"x")
    world.clock.pass_s(SWEEP_AGE_MS / 1000)
    failures = iter([ServiceUnavailable("busy")] * 3)

    async def before(call: str, _: str) -> None:
        if error := next(failures, None):
            raise error

    async def no_sleep(_: float) -> None:
        return None

    world.store.before = before
    assert await sweep(world.store, world.clock.now_ms(), no_sleep) == {Leftover.DELETE: 1}
    assert world.keys("jobdata/") == ["jobdata/a-b/c", "jobdata/notes.txt"]
