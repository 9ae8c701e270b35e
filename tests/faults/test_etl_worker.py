"""Two ETL workers on a real broker: a join, kill -9, a lost disk, SIGTERM, a zombie - and one history, every line once."""

import asyncio
import random
import shutil
import signal
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from pyroaring import BitMap

from app.adapters.kafka import ensure_topics
from app.core.events.parse import parse_line
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.core.formats.block import WatermarkMessage, decode_header, encode_control
from app.core.formats.step_message import NO_PREDECESSOR, StepMessage, encode_step
from tests.builders.events import AGENT, IP, event, text
from tests.worlds.etl_workers import World, aws, broker

pytestmark = pytest.mark.stack

BATCHES, VIEWS_A_BATCH = 16, 100
SHARD = "shardId-000000000000"


def batches(start_ms: int) -> list[SealedBatch]:
    """Batches a second apart: page views, the second of each later batch's predecessor, a few duplicates, some malformed."""
    chance = random.Random(7)
    sealed, previous = [], ""
    for n in range(BATCHES):
        at_ms = start_ms + n * 1000
        lines = [text(event(event_id=f"v{n}-{i}", page_view_id=f"p{n}-{i}")) for i in range(VIEWS_A_BATCH)]
        if n:
            lines += [
                text(event("engagement", event_id=f"s{n}-{i}", page_view_id=f"p{n - 1}-{i}", dwell_ms=i))
                for i in range(VIEWS_A_BATCH)
            ]
            lines += [text(event(event_id=f"v{n - 1}-{i}", page_view_id=f"p{n - 1}-{i}")) for i in range(5)]  # duplicates
        lines += [b'{"event_type": "page_view"', b"not json"]
        chance.shuffle(lines)
        previous = new_batch_id(at_ms, chance.randbytes(10), previous)
        sealed.append(seal(previous, 1, 4, [parse_line(line, "browser", at_ms, IP, AGENT) for line in lines]))
    return sealed


async def feed(world: World, sealed: list[SealedBatch], mark_ms: int) -> None:
    """Send every block to its partition, one twice (a bridge's retry), then a tick."""
    for batch in sealed:
        for block in batch.blocks:
            await world.send(world.topics.blocks.name, decode_header(block).partition, block)
    again = sealed[0].blocks[0]
    await world.send(world.topics.blocks.name, decode_header(again).partition, again)
    tick = encode_control(WatermarkMessage({SHARD: mark_ms}, {SHARD: []}))
    for partition in range(4):
        await world.send(world.topics.blocks.name, partition, tick)


def ledger_lines(world: World) -> dict[str, list[int]]:
    """Batch -> the lines that the ledger has, as often as it has them."""
    lines: dict[str, list[int]] = {}
    for steps in world.steps.values():
        for entry in (entry for step in steps for entry in step.ledger):
            found = BitMap.deserialize(entry.line_set)
            assert len(found) == entry.lines
            lines.setdefault(entry.batch_id, []).extend(found)
    return lines


async def faults(world: World, sealed: list[SealedBatch], start_ms: int) -> None:
    first, second = world.workers
    parts = [sealed[n : n + BATCHES // 4] for n in range(0, BATCHES, BATCHES // 4)]

    first.start()
    await world.until(first.ready, "the first worker is ready")
    second.start()
    await feed(world, parts[0], start_ms)
    await world.until(second.ready, "the second joins")
    await world.until(world.look, "steps")

    await feed(world, parts[1], start_ms + 1000)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(first.home / "data")  # and its disk is gone
    first.start()
    await feed(world, parts[2], start_ms + 2000)
    await world.until(first.ready, "the killed worker is back")

    assert second.end(signal.SIGTERM) == 0, "it ended by itself, and not at its deadline"
    assert "did not finish in time" not in second.log()
    await feed(world, parts[3], start_ms + 3000)
    second.start()
    await world.until(second.ready, "the second worker is back")

    # A zombie's message: the partition's owner finds out at its next step, and ends.
    zombie = StepMessage(1, 0, 1, NO_PREDECESSOR, 0, 99, 0, b"zombie", {}, {}, [], [], [])
    await world.send(world.topics.rows.name, 0, encode_step(zombie))
    await feed(world, parts[3][:1], start_ms + 4000)
    await world.until(lambda: 1 in (first.poll(), second.poll()), "the owner ends with exit code 1")
    ended = first if first.poll() == 1 else second
    assert "StepConflict" in ended.log()
    ended.start()

    await feed(world, parts[0][:1], start_ms + 600_000)  # past every bound: everything closes


async def run(world: World) -> None:
    start_ms = int(time.time() * 1000) - 900_000
    sealed = batches(start_ms)
    total = sum(batch.item.line_count for batch in sealed)
    async with world:
        await ensure_topics(world.settings)
        await faults(world, sealed, start_ms)

        async def all_decided() -> bool:
            await world.look()
            return sum(map(len, ledger_lines(world).values())) >= total

        await world.until(all_decided, "every line is decided")
        for worker in world.workers:
            await world.until(worker.ready, "both workers are ready")
            assert worker.end(signal.SIGTERM) == 0
        await world.look()

    # one gapless history: look() has judged it, and no source message is taken twice or left out
    for steps in world.steps.values():
        assert [step.source_first for step in steps] == [0, *(step.source_last + 1 for step in steps)][: len(steps)]
    assert world.ignored >= 1

    # every line of every batch exactly once
    found = ledger_lines(world)
    assert {batch: sorted(lines) for batch, lines in found.items()} == {
        batch.batch_id: list(range(batch.item.line_count)) for batch in sealed
    }

    outcomes: Counter[str] = Counter()
    for entry in (entry for steps in world.steps.values() for step in steps for entry in step.ledger):
        outcomes[entry.outcome] += entry.lines
    assert outcomes == {
        "page_views": BATCHES * VIEWS_A_BATCH, "joined": (BATCHES - 1) * VIEWS_A_BATCH,
        "duplicate": (BATCHES - 1) * 5, "rejected": BATCHES * 2,
    }  # fmt: skip
    replays = [replay for steps in world.steps.values() for step in steps for replay in step.replays]
    assert len(replays) >= 6
    assert not [alarm for steps in world.steps.values() for step in steps for alarm in step.alarms]


def test_one_history_through_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        world = World(tmp_path, port, url)
        for name, value in world.aws_environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(world))
