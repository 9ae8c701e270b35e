"""The sink takes the replacements of damaged steps in place of what the log has at their offsets (rules E2, S5)."""

import msgspec
import pytest

from app.cli.sink import bridge
from app.core.formats import object_keys
from app.core.formats.step_message import decode_step, encode_step
from app.core.sink.open_transaction import Reception
from app.errors import ChainBroken, ChainGap, DigestMismatch, StepMessageInvalid
from app.settings import Settings
from tests.agents.sink.test_sink_accept_gap import WorldLog
from tests.worlds.sink import PLACE, World

DAMAGED = b"STP1 the rest of it is gone"


async def repair(world: World, offset: int, message: bytes) -> None:
    await world.store.put(object_keys.repair_key(*PLACE, offset), message)


async def test_a_repaired_log_gives_the_rows_of_the_log_before_its_damage() -> None:
    world = World()
    offsets = [world.emit(page_views=n, replays=1) for n in range(1, 6)]
    for offset in offsets[1:3]:
        await repair(world, offset, world.messages[offset])
        world.messages[offset] = DAMAGED
    await world.drain(world.sink())
    world.check_complete()


async def test_without_the_repair_the_sink_stops_and_names_it() -> None:
    world = World()
    for n in range(3):
        world.emit(page_views=n + 1)
    world.messages[1] = DAMAGED
    with pytest.raises(ChainGap, match="instream repair-log"):
        await world.drain(world.sink())


async def test_a_step_that_a_committed_transaction_passed_over_is_taken_after_its_repair() -> None:
    world = World()
    world.emit(page_views=1)
    lost = world.emit(page_views=2, rejected=1)
    good, world.messages[lost] = world.messages[lost], DAMAGED
    sink = world.sink()
    await sink.open()
    assert world.feed(sink, 0) == [Reception.COUNTED, Reception.FOREIGN]
    await sink.commit()  # the transaction answers for the damaged message's offset
    world.emit(page_views=1)
    with pytest.raises(ChainGap):
        await world.drain(world.sink())
    await repair(world, lost, good)
    sink = world.sink()
    start = await sink.open()
    world.clock.pass_s(3600)
    assert not sink.due()  # a transaction without an offset of its own would break the chain
    assert world.feed(sink, start) == [Reception.PAST, Reception.PAST, Reception.COUNTED]
    assert sink.due()
    await sink.commit()
    world.check_complete()


async def test_a_gap_is_not_accepted_where_a_repair_continues_the_chain() -> None:
    world = World()
    world.emit(page_views=1)
    lost = world.emit(page_views=2)
    good, world.messages[lost] = world.messages[lost], DAMAGED
    sink = world.sink()
    await sink.open()
    world.feed(sink, 0)
    await sink.commit()
    world.emit(page_views=1)
    await repair(world, lost, good)
    with pytest.raises(ChainBroken, match="start the sink"):
        await bridge(world.store, WorldLog(world), Settings(partitions=4, epoch=1), PLACE.partition, "ops")  # type: ignore[arg-type]


async def other_content(world: World, offset: int) -> None:
    """A replacement whose rows are others than the lost step's, as another enrichment makes them."""
    step = decode_step(world.messages[offset])
    await repair(world, offset, encode_step(msgspec.structs.replace(step, meta=b"other")))
    world.messages[offset] = DAMAGED


async def test_a_chain_that_ends_in_the_last_of_the_damaged_steps_goes_on() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    await world.drain(world.sink())
    world.emit(page_views=1)
    await other_content(world, 1)
    await world.drain(world.sink())
    world.check_complete()


async def test_a_chain_that_ends_between_damaged_steps_stops_where_their_lines_are_shared_out_otherwise() -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    world.emit(page_views=1)
    world.emit(page_views=1)
    await other_content(world, 0)
    await other_content(world, 1)
    with pytest.raises(DigestMismatch):
        await world.drain(world.sink())


async def test_a_replacement_that_is_no_step_is_named() -> None:
    world = World()
    world.emit(page_views=1)
    await repair(world, 0, b"nonsense")
    with pytest.raises(StepMessageInvalid, match=r"repairs/1/000000/000000000000\.step"):
        await world.sink().open()
