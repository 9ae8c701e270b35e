"""Delivery dies, fails, or stands still at every single call: each transaction is loaded once all the same (D1, D2)."""

import asyncio

import pytest

from app.errors import OutcomeUnknown, ServiceUnavailable, WarehouseError
from tests.worlds.delivery import DeliveryProcess, DeliveryWorld, settle


class Died(BaseException):
    """The process is gone, and no handler of its runs."""


async def moments_of_a_delivery() -> list[str]:
    process = DeliveryProcess(await DeliveryWorld().committed())
    await process.deliver()
    return process.calls


async def test_a_delivery_has_the_moments_that_are_swept_here() -> None:
    calls = await moments_of_a_delivery()
    expected = {"list", "get", "head", "put", "connect", "lock", "columns", "positions", "copy", "copied"}
    assert {call.removeprefix("before ") for call in calls if call.startswith("before ")} == expected | {
        "insert_log", "prune_log", "commit", "rollback",
    }  # fmt: skip


async def test_dying_at_any_call_loses_and_doubles_nothing() -> None:
    for moment, name in enumerate(await moments_of_a_delivery(), 1):
        world = await DeliveryWorld().committed()
        process = DeliveryProcess(world)

        async def die(process: DeliveryProcess = process) -> None:
            process.buried()
            raise Died

        process.at[moment] = die
        try:
            await process.deliver()
            raise AssertionError(f"it never came to {name}")
        except Died:
            pass
        await DeliveryProcess(world, 2).deliver()
        await world.check()


FAILURES = {
    "unavailable": ServiceUnavailable("for a moment"),
    "unknown": OutcomeUnknown("no answer"),
    "connection": WarehouseError(None, "connection lost"),
    "conflict": WarehouseError("XX000", "1023 Serializable isolation violation"),
    "disk full": WarehouseError("53100", "Disk Full"),
    "internal": WarehouseError("XX000", "S3ServiceException"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_any_call_may_fail_before_or_after_it_happened(failure: str) -> None:
    of_storage = failure in {"unavailable", "unknown"}
    for moment, name in enumerate(await moments_of_a_delivery(), 1):
        storage = name.split()[1] in {"list", "get", "head", "put", "connect"}
        if storage and not of_storage:
            continue
        if name == "after commit" and failure not in {"unknown", "connection"}:
            continue  # a COMMIT that went through is never answered by an error
        world = await DeliveryWorld().committed()
        process = DeliveryProcess(world)

        async def fail() -> None:
            raise FAILURES[failure]

        process.at[moment] = fail
        await process.deliver()
        assert process.moments > moment, name
        await world.check()


async def test_a_deliverer_that_stands_still_at_any_call_and_wakes_up_again_does_no_harm() -> None:
    for moment, name in enumerate(await moments_of_a_delivery(), 1):
        world = await DeliveryWorld().committed()
        zombie, other = DeliveryProcess(world), DeliveryProcess(world, 2)
        still, awake = asyncio.Event(), asyncio.Event()

        async def stand_still(still: asyncio.Event = still, awake: asyncio.Event = awake) -> None:
            still.set()
            await awake.wait()

        zombie.at[moment] = stand_still
        first = asyncio.ensure_future(zombie.deliver())
        await still.wait()
        second = asyncio.ensure_future(other.deliver())
        await settle(second)
        awake.set()
        await asyncio.gather(first, second)
        assert len(world.warehouse.log) == 3, name
        await world.check()


async def test_a_zombie_whose_session_the_warehouse_ended_loads_nothing_more() -> None:
    for moment, name in enumerate(await moments_of_a_delivery(), 1):
        world = await DeliveryWorld().committed()
        zombie = DeliveryProcess(world)

        async def cut_off(world: DeliveryWorld = world, zombie: DeliveryProcess = zombie) -> None:
            zombie.buried()
            await DeliveryProcess(world, 2).deliver()

        zombie.at[moment] = cut_off
        await zombie.deliver()
        assert zombie.moments >= moment, name
        await world.check()
