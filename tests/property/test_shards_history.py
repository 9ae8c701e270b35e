"""Random histories of a stream and its bridge: puts, splits, merges, lost lists, crashes anywhere, slow checkpoints."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.block import WatermarkMessage, decode_header, encode_control, is_control
from tests.worlds.bridge import HOMES, PARTITIONS, START_MS, Process, World, play
from tests.worlds.bridge_checks import check


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_record_is_lost_and_time_never_passes_one(seed: int) -> None:
    world = World(seed)
    asyncio.run(play(world, turns=60))
    check(world)


async def test_the_check_sees_a_mark_that_runs_ahead_of_an_unlisted_child() -> None:
    world = World()
    process = Process(world, frozenset(range(HOMES)))
    await process.turn(worker=True, pumps=False)
    world.split(0)
    world.clock.ms += 100
    world.put(4)
    world.note()
    bold = dict.fromkeys(process.worker.book.reading(), START_MS + 500)
    for partition in range(PARTITIONS):
        world.append(partition, encode_control(WatermarkMessage(bold, {})))
    for block in world.origin:
        world.append(decode_header(block).partition, block)
    with pytest.raises(AssertionError, match="stream time passed"):
        check(world)


async def test_expired_iterators_are_renewed_where_the_pump_stands() -> None:
    world = World()
    process = Process(world, frozenset(range(HOMES)))
    await process.turn(worker=True, pumps=False)
    world.put(6)
    world.note()
    await process.turn(worker=False, pumps=True)
    world.stream.expire_iterators()
    for _ in range(8):
        await process.turn(worker=False, pumps=True)
    landed = [value for log in world.blocks for value in log if not is_control(value)]
    assert sorted(landed) == sorted(world.origin)
