"""One sink, undisturbed: what a transaction holds and when it is made (rules S1, S2, S5)."""

import msgspec
import pytest

from app.core.formats import object_keys
from app.core.formats.step_message import encode_step
from app.core.formats.transaction_record import Ready
from app.core.sink.open_transaction import Reception
from app.errors import ChainGap, DigestMismatch, TopicRecreated
from tests.worlds.sink import PLACE, RULES, World


async def test_rows_of_every_flow_become_one_transaction() -> None:
    world = World()
    world.emit(
        page_views=3, ad_impressions=2, ad_clicks=1, redirects=2, engagements=1, rejected=2, replays=1, dead_letters=3
    )
    world.emit(page_views=1)
    sink = world.sink()
    assert await sink.open() == 0
    assert world.feed(sink, 0) == [Reception.COUNTED] * 2
    assert sink.acknowledged == -1
    assert await sink.commit() is None
    assert sink.acknowledged == 1
    world.check_complete()
    record = world.records()[0]
    assert (record.number, record.first_offset, record.last_offset, record.step_number, record.step_offset) == (
        1,
        0,
        1,
        2,
        1,
    )
    assert [out.rows for out in record.outputs] == [4, 2, 1, 2, 1, 2, 7, 1, 3]
    assert world.keys("jobdata/") == []
    assert [msgspec.json.decode(ready, type=Ready).txn_id for ready in world.announced] == [record.txn_id]


async def test_an_empty_flow_is_an_explicit_zero_without_objects() -> None:
    world = World()
    world.emit(ad_clicks=1)
    await world.drain(world.sink())
    world.check_complete()
    written = {key.split("/")[1] for key in world.keys("data/")}
    assert written == {"ad_clicks", "ledger"}


async def test_dt_and_hour_are_those_of_the_commit() -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    record = world.records()[0]
    assert world.keys("data/page_views/") == [f"data/page_views/dt=2023-11-14/hour=22/{record.txn_id}.tsv.zst"]
    assert record.ready_key == f"manifests/dt=2023-11-14/hour=22/{record.txn_id}/ready.json"


async def test_effects_come_in_order() -> None:
    world = World()
    world.emit(page_views=1, rejected=1)
    process = world.process()
    await world.drain(world.sink(process))
    calls = [(call, subject.split("/")[0], subject.rpartition("/")[2]) for call, subject in process.log if call != "list"]
    kinds = [(call, top if name != "ready.json" else name) for call, top, name in calls]
    assert kinds == [
        *[("put", "jobdata")] * 3, ("put_if_absent", "transactions"), *[("copy", "jobdata")] * 3,
        *[("put", "manifests")] * 3, ("put", "ready.json"), ("delete", "jobdata"),
    ]  # fmt: skip


async def test_a_step_of_a_zombie_leaves_no_row_and_is_answered_for() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    world.zombie(page_views=5)
    world.emit(rejected=1)
    world.zombie()
    sink = world.sink()
    await sink.open()
    assert world.feed(sink, 0) == [
        Reception.COUNTED,
        Reception.COUNTED,
        Reception.IGNORED,
        Reception.COUNTED,
        Reception.IGNORED,
    ]
    await sink.commit()
    assert sink.acknowledged == 4
    world.check_complete()
    world.emit(page_views=1)
    await world.drain(world.sink())
    world.check_complete()


async def test_a_step_of_a_zombie_moves_no_time() -> None:
    world = World()
    world.emit(page_views=1)
    moment_ms = world.stream_time_ms
    world.stream_time_ms += 60_000
    world.zombie()
    sink = world.sink()
    await sink.open()
    world.feed(sink, 0)
    await sink.commit()
    assert [record.stream_time_ms for record in world.records()] == [moment_ms]


async def test_a_successor_reads_the_last_counted_message_again_and_goes_on() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    world.zombie()
    await world.drain(world.sink(), per_transaction=3)
    world.emit(redirects=1)
    sink = world.sink()
    assert await sink.open() == 1
    assert world.feed(sink, 1) == [Reception.PAST, Reception.PAST, Reception.COUNTED]
    await sink.commit()
    world.check_complete()


async def test_commit_is_due_by_interval_from_the_first_output() -> None:
    world = World()
    sink = world.sink()
    await sink.open()
    world.tick()
    world.feed(sink, 0)
    world.clock.pass_s(RULES.interval_s * 2)
    assert not sink.due(), "a message with neither rows nor ledger starts no interval"
    offset = world.emit(page_views=1)
    world.feed(sink, offset)
    assert not sink.due()
    world.clock.pass_s(RULES.interval_s - 0.001)
    assert not sink.due()
    world.clock.pass_s(0.001)
    assert sink.due()
    await sink.commit()
    assert not sink.due()
    assert world.records()[0].last_offset == 1


async def test_replays_alone_start_an_interval() -> None:
    world = World()
    sink = world.sink()
    await sink.open()
    world.emit(replays=1)
    world.feed(sink, 0)
    world.clock.pass_s(RULES.interval_s)
    assert sink.due()
    await sink.commit()
    world.check_complete()


async def test_commit_is_due_by_bytes() -> None:
    world = World()
    sink = world.sink()
    await sink.open()
    while not sink.due():
        offset = world.emit(rejected=2_000)
        world.feed(sink, offset)
    assert sum(map(len, world.messages[:-1])) < RULES.bytes <= sum(map(len, world.messages))


async def test_an_idle_partition_shows_that_its_time_moves() -> None:
    world = World()
    sink = world.sink()
    await sink.open()
    world.clock.pass_s(RULES.idle_s)
    assert not sink.due(), "nothing came"
    world.tick()
    world.feed(sink, 0)
    assert sink.due()
    await sink.commit()
    record = world.records()[0]
    assert (record.stream_time_ms, record.last_offset, sum(out.rows for out in record.outputs)) == (2_000, 0, 0)
    world.check_complete()
    world.feed(sink, world.emit())
    world.clock.pass_s(RULES.idle_s)
    assert not sink.due(), "stream time stood"
    world.feed(sink, world.tick())
    assert sink.due()


async def test_a_missing_message_is_asked_for_again() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    sink = world.sink()
    await sink.open()
    assert sink.take(1, world.messages[1]) is Reception.BEYOND
    assert sink.next_offset == 0
    world.feed(sink, sink.next_offset)
    await sink.commit()
    world.check_complete()


async def test_a_trimmed_log_stops_the_sink() -> None:
    world = World()
    for _ in range(3):
        world.emit(page_views=1)
    sink = world.sink()
    await sink.open()
    world.feed(sink, 0, 1)
    await sink.commit()
    world.earliest = 2
    with pytest.raises(ChainGap, match="accept-gap"):
        await world.sink().open()
    world.earliest = 1
    assert await world.sink().open() == 1, "what a transaction answers for may be gone"


async def test_a_first_start_on_a_trimmed_log_stops_the_sink() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    world.earliest = 1
    with pytest.raises(ChainGap):
        await world.sink().open()


async def test_a_recreated_topic_stops_the_sink() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    await world.drain(world.sink())
    again = World()
    again.store = world.store
    again.emit(page_views=1)
    with pytest.raises(TopicRecreated):
        await again.sink().open()
    again.emit(redirects=1)
    again.emit(redirects=1)
    sink = again.sink()
    with pytest.raises(DigestMismatch):
        again.feed(sink, await sink.open())


async def test_a_number_beyond_the_next_stops_the_sink() -> None:
    world = World()
    world.emit(page_views=1)
    world._number += 1
    world.emit(page_views=1)
    sink = world.sink()
    with pytest.raises(ChainGap):
        world.feed(sink, await sink.open())


async def test_a_message_that_is_no_step_of_this_partition_is_passed_over() -> None:
    world = World()
    sink = world.sink()
    await sink.open()
    other = msgspec.structs.replace(world._step(1, -1, {}, counts=False), partition=5)
    world.messages += [b"something else", b"", encode_step(other)]
    world.emit(page_views=1)
    world.messages.append(b"STP1 and no more")
    offset = world.emit(ad_clicks=1)
    world.feed(sink, 0)
    await sink.commit()
    assert sink.acknowledged == offset
    assert [(record.first_offset, record.last_offset, record.step_number) for record in world.records()] == [(0, offset, 2)]
    world.check_complete()


async def test_the_end_of_a_long_chain_is_found_with_few_listings() -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    first = world.records()[0]
    for number in range(2, 5_000):
        record = msgspec.structs.replace(first, number=number)
        await world.store.put(object_keys.record_key(*PLACE, number), msgspec.json.encode(record))
    process = world.process()
    await world.sink(process).open()
    listings = [call for call, _ in process.log if call == "list"]
    assert len(listings) <= 8
    assert ("get", object_keys.record_key(*PLACE, 4_999)) in process.log


async def test_row_messages_are_let_go_once_they_are_files() -> None:
    world = World()
    world.emit(page_views=3)
    process = world.process()
    sink = world.sink(process)
    await sink.open()
    world.feed(sink, 0)
    assert sink._open.streams
    held: list[int] = []

    async def look(call: str, _: str) -> None:
        held.append(len(sink._open.streams))

    process.store.before = look
    assert await sink.commit() is None
    assert set(held) == {0}
    world.check_complete()
