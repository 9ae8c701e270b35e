"""The bridge's Faust agent: messages on `checkpoints` reach table and book, barriers let an owner begin (T1, T2, T5)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faust.types import TP

from app.core.formats.checkpoint import Barrier, Checkpoint, decode, encode, home_of
from app.errors import EpochMismatch, WorkerStalled
from app.shell.foreign import FOREIGN
from tests.builders.source_log import block
from tests.worlds.agent import new_member
from tests.worlds.bridge_agent import BLOCKS, CHANGELOG, CHECKPOINTS, HOME, HOMES, OTHER, SHARD, Bridge
from tests.worlds.waiting import until


@pytest.fixture
async def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bridge]:
    settings = {"partitions": 2, "checkpoint_partitions": HOMES, "tick_interval_s": 0.01, "stall_timeout_s": 3600}
    with new_member("bridge", tmp_path, monkeypatch, **settings):
        bridge = Bridge()
        async with bridge.module.keep_checkpoints.test_context() as bridge.agent:
            yield bridge


async def test_a_checkpoint_is_acknowledged_only_behind_its_changelog_and_messages_go_one_by_one(bridge: Bridge) -> None:
    bridge.producer.silent = {CHANGELOG}
    await bridge.on_topic(Checkpoint(SHARD, "7", 5), Checkpoint(SHARD, "3", 9))
    first, second = await bridge.deliver(HOME)
    await until(lambda: bridge.producer.sent(CHANGELOG, HOME))
    assert (first.message.acked, second.message.acked) == (False, False)
    assert bridge.module.table.of([HOME]) == [Checkpoint(SHARD, "7", 5)]
    bridge.producer.answer()
    await until(lambda: first.message.acked and second.message.acked)
    further = [Checkpoint(SHARD, "7", 5), Checkpoint(SHARD, "7", 9)]
    assert [decode(value) for value in bridge.producer.sent(CHANGELOG, HOME)] == further, "a checkpoint never goes back"
    assert bridge.module.table.of([HOME, OTHER]) == further[1:]
    assert list(bridge.module.ownership.positions().values()) == [2]


async def test_an_owner_begins_behind_former_checkpoints_once_every_barrier_is_met(bridge: Bridge) -> None:
    known, new = block(b"{}", partition=0), block(b"{}", partition=1)
    await bridge.stream.put([known, new])
    (shard,) = await bridge.stream.shards()
    page = await bridge.stream.records(await bridge.stream.iterator(shard.shard_id, None), 1)
    await bridge.on_topic(Checkpoint(SHARD, page.records[0].sequence, 1), Barrier("of somebody else"))
    await bridge.assign(CHECKPOINTS, HOME, OTHER)
    await until(lambda: bridge.barriers(HOME) == 2 and bridge.barriers(OTHER) == 1)
    assert bridge.app.readiness() == "checkpoints"
    for met in await bridge.deliver(OTHER) + (await bridge.deliver(HOME)):
        assert bridge.worker is None, "not before the last barrier is met"
        await until(lambda: met.message.acked)  # noqa: B023
    await until(bridge.blocks)
    await until(lambda: bridge.app.readiness() is None)
    await bridge.revoke()
    assert bridge.blocks() == [new], "what the former owner recorded is not read again"
    assert not bridge.crashes


async def test_a_checkpoint_reaches_the_worker_that_runs(bridge: Bridge) -> None:
    """Another worker's word that a shard is finished lets its child be pumped (T5)."""
    children = bridge.stream.split(SHARD)
    mine = next(child for child in children if home_of(child, HOMES) != HOME)
    await bridge.serve(OTHER)
    await bridge.stream.put([block(b"{}", batch=n) for n in range(20)])
    arrived = bridge.stream._shards[mine].records
    assert arrived
    ticks = len(bridge.producer.sent(BLOCKS, 0))
    await until(lambda: bridge.crashes or len(bridge.producer.sent(BLOCKS, 0)) > ticks + 2)
    assert bridge.blocks() == [], "its parent is not finished"
    await bridge.on_topic(Checkpoint(SHARD, "99", finished=True), partition=OTHER)
    await bridge.deliver(OTHER)
    await until(lambda: bridge.crashes or bridge.blocks())
    await bridge.revoke()
    assert bridge.blocks() == [record.data for record in arrived]


async def test_revoke_checkpoints_what_was_appended_and_ends_the_pumps(bridge: Bridge) -> None:
    await bridge.serve(*range(HOMES))
    blocks = [block(b"{}", partition=n) for n in range(2)]
    await bridge.stream.put(blocks)
    await until(lambda: len(bridge.blocks()) == 2)
    task = bridge.module.ownership._task
    await bridge.revoke()
    assert task.done()
    assert (bridge.worker, bridge.module.ownership.positions(), bridge.app.readiness()) == (None, {}, None)
    assert bridge.checkpoints()[-1].sequence == bridge.stream._shards[SHARD].records[-1].sequence
    await bridge.serve(HOME)
    await bridge.stream.put(blocks[:1])
    await until(lambda: len(bridge.blocks()) == 3)
    await bridge.revoke()
    assert not bridge.crashes


async def test_who_owns_no_home_pumps_nothing_and_an_end_while_catching_up_is_no_failure(bridge: Bridge) -> None:
    await bridge.assign(BLOCKS, 0)
    assert bridge.module.ownership._task is None
    await bridge.assign(CHECKPOINTS, 0)
    await until(lambda: bridge.barriers(0))
    await bridge.revoke()
    await bridge.deliver(0)
    await until(lambda: bridge.agent.processed_offset == 1)
    assert (bridge.worker, bridge.crashes) == (None, [])


async def test_messages_of_a_rebalance_are_neither_taken_nor_acknowledged(bridge: Bridge) -> None:
    bridge.app.rebalancing = True
    await bridge.on_topic(Checkpoint(SHARD, "7"))
    (late,) = await bridge.deliver(HOME)
    await until(lambda: bridge.agent.processed_offset == 1)
    bridge.app.rebalancing = False
    await bridge.on_topic(Checkpoint("another", "8"))
    (early,) = await bridge.deliver(HOME)
    await until(lambda: bridge.seeks)
    assert bridge.seeks == [(TP(CHECKPOINTS, HOME), 0)], "nobody would ever say the first one again"
    assert (late.message.acked, early.message.acked) == (False, False)
    bridge.read[HOME] = 0
    for again in await bridge.deliver(HOME):
        await until(lambda: again.message.acked)  # noqa: B023
    assert bridge.module.table.of([HOME]) == [Checkpoint(SHARD, "7"), Checkpoint("another", "8")]


async def test_a_message_that_the_consumer_dropped_is_sought_back(bridge: Bridge) -> None:
    await bridge.on_topic(*(Checkpoint(SHARD, str(n)) for n in range(1, 4)))
    (first, *_) = await bridge.deliver(HOME)
    await until(lambda: bridge.module.ownership.positions() == {TP(CHECKPOINTS, HOME): 3})
    await bridge.on_topic(Checkpoint(SHARD, "4", finished=True), Checkpoint("another", "5"))
    bridge.read[HOME] += 1  # aiokafka hands out the next one only
    (beyond,) = await bridge.deliver(HOME)
    await until(lambda: bridge.seeks)
    assert bridge.seeks == [(TP(CHECKPOINTS, HOME), 3)]
    assert (first.message.acked, beyond.message.acked) == (True, False)
    bridge.read[HOME] = 3
    finished, again = await bridge.deliver(HOME)
    await until(lambda: finished.message.acked and again.message.acked)
    assert Checkpoint(SHARD, "4", finished=True) in bridge.module.table.of([HOME])


async def test_a_block_of_a_later_epoch_ends_the_app(bridge: Bridge) -> None:
    await bridge.stream.put([block(b"{}", epoch=2)])
    await bridge.serve(*range(HOMES))
    await until(lambda: bridge.crashes)
    assert [type(exc) for exc in bridge.crashes] == [EpochMismatch]
    await bridge.revoke()


async def test_an_owner_that_never_meets_its_barrier_ends_the_app(bridge: Bridge) -> None:
    bridge.app.settings = bridge.app.settings.model_copy(update={"stall_timeout_s": 0.01})
    await bridge.assign(CHECKPOINTS, 0)
    await until(lambda: bridge.crashes)
    assert [type(exc) for exc in bridge.crashes] == [WorkerStalled]


@pytest.mark.parametrize(
    "foreign", [b"\xc1", b"", None, b"\x92\xa2at\xa1\xff", encode(Checkpoint(SHARD, "4"))[:-1]], ids=repr
)
async def test_a_message_that_is_no_checkpoint_is_passed_over_and_counted(bridge: Bridge, foreign: bytes | None) -> None:
    """It once ended the bridge at every start."""
    before = FOREIGN.labels(CHECKPOINTS)._value.get()
    await bridge.on_topic(Checkpoint(SHARD, "3"))
    await bridge.producer.send(CHECKPOINTS, None, foreign, HOME)
    await bridge.on_topic(Checkpoint(SHARD, "7"))
    events = await bridge.deliver(HOME)
    await until(lambda: bridge.agent.crash_reason or all(event.message.acked for event in events))
    assert bridge.agent.crash_reason is None
    assert bridge.module.table.of([HOME]) == [Checkpoint(SHARD, "7")]
    assert FOREIGN.labels(CHECKPOINTS)._value.get() == before + 1
    assert bridge.module.ownership.positions() == {TP(CHECKPOINTS, HOME): 3}


@pytest.mark.parametrize("foreign", [b"\xc1", encode(Barrier("t")), encode(Checkpoint("another", "9"))], ids=repr)
async def test_an_entry_of_the_table_that_is_no_checkpoint_of_its_shard_counts_as_none(
    bridge: Bridge, foreign: bytes
) -> None:
    bridge.module.table.data[b"%d/%s" % (HOME, SHARD.encode())] = foreign
    bridge.module.table.data[b"no key of ours"] = foreign
    assert bridge.module.table.of([HOME]) == []
    await bridge.on_topic(Checkpoint(SHARD, "7"))
    (event,) = await bridge.deliver(HOME)
    await until(lambda: bridge.agent.crash_reason or event.message.acked)
    assert bridge.module.table.of([HOME]) == [Checkpoint(SHARD, "7")]
