"""A bridge before what a newer version wrote: nothing is passed over or claimed, and it says what to upgrade (rule E10)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from agents.bridge import shard_reader
from app.core.backoff import Backoff
from app.core.formats import checkpoint as checkpoint_format
from app.core.formats.block import WatermarkMessage
from app.core.formats.checkpoint import Checkpoint, encode
from tests.agents.bridge.test_bridge import FIRST, block
from tests.agents.bridge.test_bridge import Bridge as Pumps
from tests.builders.newer import newer_block, newer_checkpoint, upgrade
from tests.worlds.agent import new_member, until
from tests.worlds.bridge_agent import CHANGELOG, CHECKPOINTS, HOME, HOMES, OTHER, SHARD, Bridge


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "BACKOFF", Backoff(first_s=0.01, longest_s=0.01))


def marks(bridge: Pumps) -> list[int]:
    ticks = [control for control in bridge.controls(1) if isinstance(control, WatermarkMessage)]
    return [tick.watermarks.get(FIRST, 0) for tick in ticks]


async def test_a_newer_collectors_block_stays_in_its_shard_and_holds_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = Pumps()
    sent = [block(1), newer_block(block(2)), block(3)]
    async with bridge.running():
        await bridge.stream.put(sent)
        why = f"{FIRST}@2: block of version 2, this reader knows versions up to 1: upgrade the bridge first"
        await bridge.until(lambda: bridge.worker.waiting_for() == why)
        turns = len(marks(bridge))
        await bridge.until(lambda: len(marks(bridge)) > turns + 3)
        assert [value for _, value in bridge.blocks()] == sent[:1]
        (arrived,) = {record.arrival_ms for record in bridge.stream._shards[FIRST].records[:1]}
        assert marks(bridge)[-1] == arrived, "time stands where the last block came that was appended"
        upgrade(monkeypatch)
        await bridge.until(lambda: len(bridge.blocks()) == 3)
        await bridge.until(lambda: bridge.worker.waiting_for() is None)
    assert [value for _, value in bridge.blocks()] == sent
    assert [checkpoint.sequence for _, checkpoint in bridge.recorded][-1] == "3"


async def test_a_shard_that_begins_with_a_newer_block_is_at_its_beginning_after_a_restart() -> None:
    bridge = Pumps()
    await bridge.stream.put([newer_block(block(1))])
    async with bridge.running():
        await bridge.until(lambda: "upgrade the bridge first" in (bridge.worker.waiting_for() or ""))
    assert bridge.blocks() == []
    assert {checkpoint.sequence for _, checkpoint in bridge.recorded} == {None}


# --- checkpoints


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    settings = {"partitions": 2, "checkpoint_partitions": HOMES, "tick_interval_s": 0.01, "stall_timeout_s": 1}
    with new_member("bridge", tmp_path, monkeypatch, **settings):
        yield Bridge()


async def newer(bridge: Bridge, checkpoint: Checkpoint, partition: int = HOME) -> None:
    await bridge.producer.send(CHECKPOINTS, None, newer_checkpoint(encode(checkpoint)), partition)


def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge that knows version 2 of a checkpoint, which differs in nothing else."""
    read = checkpoint_format.decode

    def read_both(data: Any) -> Any:
        return read(data.replace(b"\xa3at2", b"\xa2at", 1) if data else data)

    monkeypatch.setattr("agents.bridge.ownership.decode", read_both)


async def test_an_owner_does_not_begin_behind_a_newer_checkpoint_and_does_not_end(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bridge.module.keep_checkpoints.test_context() as bridge.agent:
        await newer(bridge, Checkpoint(SHARD, "7"))
        sent = bridge.producer.sent(CHECKPOINTS, HOME)
        await bridge.assign(CHECKPOINTS, HOME)
        await until(lambda: len(sent) == 2)  # the barrier behind it
        events = await bridge.deliver(HOME)
        why = f"{CHECKPOINTS}[{HOME}]@0: message on checkpoints of version 2, this reader knows versions up to 1"
        await until(lambda: bridge.app.readiness() == f"{why}: upgrade the bridge first")
        stalls_at_s = bridge.app.ports.clock.monotonic_s() + 4 * bridge.app.settings.stall_timeout_s
        await until(lambda: bridge.app.ports.clock.monotonic_s() > stalls_at_s)
        assert (bridge.crashes, bridge.worker) == ([], None)
        assert bridge.module.ownership.positions() == {}
        assert [event.message.acked for event in events] == [False, False]
        await bridge.app.hooks.leave("revoke")
        bridge.read[HOME] = 0
        upgraded(monkeypatch)
        await bridge.assign(CHECKPOINTS, HOME)
        await until(lambda: len(sent) == 3)
        events = await bridge.deliver(HOME)
        await until(lambda: bridge.crashes or bridge.worker is not None)
        assert not bridge.crashes
        assert bridge.worker.book.sequence(SHARD) == "7"
        assert all(event.message.acked for event in events)
        await bridge.revoke()


async def test_a_newer_word_to_a_bridge_that_works_leaves_it_at_work_and_not_ready(bridge: Bridge) -> None:
    """Its own shards need nothing of it; what it cannot read waits on the topic for its successor."""
    async with bridge.module.keep_checkpoints.test_context() as bridge.agent:
        await bridge.serve(*range(HOMES))
        await newer(bridge, Checkpoint("another", "5", finished=True), OTHER)
        *_, event = await bridge.deliver(OTHER)
        await until(lambda: "upgrade the bridge first" in (bridge.app.readiness() or ""))
        await bridge.on_topic(Checkpoint("another", "6"), partition=OTHER)
        (behind,) = await bridge.deliver(OTHER)
        await until(lambda: bridge.agent.processed_offset is not None)
        await bridge.stream.put([block(1, partition=1)])
        await until(lambda: bridge.crashes or bridge.blocks())
        assert (bridge.crashes, event.message.acked, behind.message.acked) == ([], False, False)
        assert TP(CHECKPOINTS, OTHER) not in bridge.module.ownership.positions()
        assert bridge.seeks == []
        await bridge.revoke()
    assert bridge.app.readiness() is None


async def test_a_newer_checkpoint_in_the_table_is_waited_for(bridge: Bridge) -> None:
    async with bridge.module.keep_checkpoints.test_context() as bridge.agent:
        key = b"%d/%s" % (HOME, SHARD.encode())
        bridge.module.table.data[key] = newer_checkpoint(encode(Checkpoint(SHARD, "7")))
        await bridge.assign(CHECKPOINTS, HOME)
        await until(lambda: bridge.barriers(HOME) == 1)
        await bridge.deliver(HOME)
        await until(lambda: bridge.crashes or "upgrade the bridge first" in (bridge.app.readiness() or ""))
        assert (bridge.crashes, bridge.worker) == ([], None)
        assert bridge.producer.sent(CHANGELOG, HOME) == []
        await bridge.revoke()
