"""A sink before what a newer version wrote: it commits what comes before, waits, and goes on once upgraded (rule E10)."""

from typing import Any

import msgspec
import polars as pl
import pytest
from faust.types import TP

from agents.sink.chain_store import sweep
from app.core.formats.object_keys import record_key
from app.core.formats.step_message import StepMessage, decode_step, encode_step
from app.core.formats.transaction_record import Ready, ready_of, refuse_unloadable
from app.core.sink.chain import Leftover, encode_record
from app.errors import NewerFormat
from tests.agents.sink.test_sink_agent import ROWS, P, Sink
from tests.builders.newer import newer_record, newer_step, upgrade
from tests.worlds.agent import new_member, until
from tests.worlds.sink import PLACE, Died, World, ipc


@pytest.fixture
def sink(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with new_member("sink", tmp_path, monkeypatch, partitions=2):  # nothing is due before its time
        yield Sink()


def with_rows(message: bytes, rows: dict[str, bytes]) -> bytes:
    """The step with other rows."""
    step = decode_step(message)
    fields = {name: getattr(step, name) for name in step.__struct_fields__}
    return encode_step(StepMessage(**fields | {"rows": rows}))


async def test_what_comes_before_a_newer_step_is_committed_and_the_step_stays(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sink.log
    log.emit(page_views=2)
    log.emit(ad_clicks=1)
    log.emit(redirects=1)
    log.messages[2] = newer_step(log.messages[2])
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        events = await sink.put(agent)
        why = "rows-e1[1]@2: step message of version 2, this reader knows versions up to 1: upgrade the sink first"
        await until(lambda: sink.crashes or sink.app.readiness() == why)
        assert [event.message.acked for event in events] == [True, True, False]
        assert [(record.first_offset, record.last_offset) for record in log.records()] == [(0, 1)]
        assert sink.module.runners.positions() == {}, "the watchdog does not end it"
        await sink.revoke()
        assert sink.app.readiness() is None
        upgrade(monkeypatch)
        sink.commit_behind(1)
        await sink.assign(ROWS, P)
        await until(lambda: sink.seeks[-1] == (TP(ROWS, P), 1))  # the chain's last step is compared once more
        again = await sink.put(agent, 1)
        await until(lambda: sink.crashes or again[-1].message.acked)
        await sink.revoke()
    assert not sink.crashes
    log.check_complete()


@pytest.mark.parametrize("what", ["flow", "column"])
async def test_rows_that_this_sink_cannot_write_whole_are_a_newer_etls(what: str) -> None:
    world = World()
    offset = world.emit(ad_clicks=1)
    frame = pl.DataFrame({"event_id": ["e0"], "later": [1]})
    rows, why = {
        "flow": ({"refunds": ipc(frame)}, "step with rows of flow 'refunds'"),
        "column": ({"ad_clicks": ipc(frame)}, "step with rows of ad_clicks that have column 'later'"),
    }[what]
    known = world.messages[offset]
    world.messages[offset] = with_rows(known, rows)
    sink = world.sink()
    await sink.open()
    with pytest.raises(NewerFormat, match=why):
        world.feed(sink, 0)
    assert (sink.next_offset, sink.holds_messages) == (0, False)
    world.messages[offset] = known
    world.feed(sink, 0)
    await sink.commit()
    world.check_complete()


async def test_a_zombies_unknown_rows_stop_nobody() -> None:
    world = World()
    world.emit(page_views=1)
    offset = world.zombie()
    world.messages[offset] = with_rows(world.messages[offset], {"refunds": b"nobody reads it"})
    world.emit(redirects=1)
    await world.drain(world.sink(), per_transaction=3)
    world.check_complete()


async def test_behind_a_newer_sinks_transaction_nothing_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    key = record_key(*PLACE, 1)
    body = world.body(key)
    await world.store.put(key, newer_record(body))
    world.emit(ad_clicks=1)
    with pytest.raises(NewerFormat, match="record 1 of partition 0 of epoch 1 of version 2"):
        await world.sink().open()
    assert len(world.keys("transactions/")) == 1
    upgrade(monkeypatch)
    await world.drain(world.sink())
    await world.store.put(key, body)
    world.check_complete()


async def test_a_transaction_that_a_newer_sink_committed_and_did_not_finish_is_finished() -> None:
    """Else nobody finished it: after a step back every sink is older, and delivery waits for its ready.json."""
    world = World()
    world.emit(page_views=2)
    offset = world.emit(ad_clicks=1)
    dying = world.process()

    async def die(call: str, _: str) -> None:
        if call == "put_if_absent":
            raise Died

    dying.store.after = die
    sink = world.sink(dying)
    await sink.open()
    world.feed(sink, 0)
    with pytest.raises(Died):
        await sink.commit()
    [known] = world.records()
    later = {"ad_clicks": {"output": "refunds"}, "page_views": {"version": 9}}
    outputs = [msgspec.structs.replace(out, **later.get(out.output, {})) for out in known.outputs]
    key, body = record_key(*PLACE, 1), encode_record(msgspec.structs.replace(known, outputs=outputs))
    await world.store.put(key, body)
    assert world.keys("manifests/") == []

    older = world.sink()
    await older.open()
    assert older.acknowledged == offset
    assert (world.keys("jobdata/"), world.body(key)) == ([], body)
    assert world.keys("manifests/")[-1] == known.ready_key
    with pytest.raises(NewerFormat, match="page_views of version 9"):
        refuse_unloadable(msgspec.json.decode(world.body(known.ready_key), type=Ready).outputs, "ready.json")
    world.emit(redirects=1)
    await world.drain(world.sink())
    await world.store.put(key, encode_record(known))
    await world.store.put(known.ready_key, msgspec.json.encode(ready_of(known)))
    world.check_complete()


async def test_the_sweep_keeps_what_a_newer_sink_may_need() -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    staged = f"jobdata/{world.records()[0].txn_id}/page_views.tsv.zst"
    await world.store.put(staged, b"file")
    key = record_key(*PLACE, 1)
    await world.store.put(key, newer_record(world.body(key)))
    assert await sweep(world.store, world.clock.now_ms() + 2 * 86_400_000) == {Leftover.KEEP: 1}
    assert world.keys("jobdata/") == [staged]
