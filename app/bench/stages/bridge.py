"""`bridge`: a shard reader copies blocks from Kinesis (in memory) to a real broker, with the worker's own client."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from agents.bridge.shard_reader import BlockScope, ReaderPorts, ShardReader
from app.adapters import kafka_clients
from app.adapters.kafka import LogReader
from app.bench.cluster import cluster
from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.bench.traffic import PartitionTraffic, Shape
from app.clock import SystemClock
from app.core.bridge.shards import Listed, ShardBook
from app.core.formats.checkpoint import Checkpoint
from app.errors import BenchmarkWrong
from app.settings import Settings
from app.testing.memory import MemoryBlockStream
from app.topics import topics_of

PARTITIONS: Final = 4


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: not every block arrived once.
    """
    entries = [entry for entry in PartitionTraffic(Shape(plan.events, plan.block_lines)) if entry.lines]
    with cluster(PARTITIONS, aws=False) as world:
        like_a_worker()
        with plan.profiled():
            return [
                asyncio.run(_run_once(world.settings, [entry.value for entry in entries], plan.events))
                for _ in range(plan.repeats)
            ]


async def _run_once(settings: Settings, blocks: list[bytes], events: int) -> BenchRun:
    topic, clock = topics_of(settings).blocks.name, SystemClock()
    stream = MemoryBlockStream(shards=1)
    await stream.put(blocks)
    producer: Any = AIOKafkaProducer(**kafka_clients.producer(settings))
    await producer.start()
    acknowledged = 0

    async def append(partition: int, value: bytes) -> Awaitable[Any]:
        sent: Awaitable[Any] = await producer.send(topic, value, partition=partition)
        return sent

    async def record(_: int, __: Checkpoint) -> None:
        return None

    try:
        (shard,) = await stream.shards()
        book = ShardBook(frozenset({0}), 1, 2000)
        book.survey({shard.shard_id: Listed(shard.parents, None)}, clock.now_ms())
        for found in book.unrecorded():
            book.learn(Checkpoint(found))
        before = await _end(settings, topic)
        reader = ShardReader(
            shard.shard_id, book, BlockScope(epoch=1, partitions=PARTITIONS), ReaderPorts(stream, append, record, clock)
        )
        meter = Meter()
        meter.start()
        turns = -(-len(blocks) // 1000)
        for _ in range(turns):
            await reader.turn()
        meter.stop()
        acknowledged = await _end(settings, topic) - before
    finally:
        await producer.stop()
    if acknowledged != len(blocks):
        raise BenchmarkWrong(f"{acknowledged} of {len(blocks)} blocks are in Kafka")
    size = sum(map(len, blocks))
    return BenchRun(
        events=events, cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(), bytes_in=size,
        bytes_out=size, more={"blocks": len(blocks), "us_a_block": meter.cpu_s * 1e6 / len(blocks)},
    )  # fmt: skip


async def _end(settings: Settings, topic: str) -> int:
    """The number of messages that partition 0 ever had."""
    async with LogReader(settings) as logs:
        return (await logs.end_offsets(topic, [0]))[0]
