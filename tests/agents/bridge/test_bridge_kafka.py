"""The bridge's real process on a real broker and the Kinesis stand-in: joins, SIGTERM, kill -9 and a split."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from app.adapters.kafka import ensure_topics
from app.adapters.kinesis import KinesisBlockStream
from app.core.etl.stream_time import ShardWatermarks, moved_time
from app.core.formats.block import (
    BlockHeader,
    End,
    WatermarkMessage,
    decode_control,
    decode_header,
    encode_block,
    is_control,
)
from app.local.services import aws, kafka
from app.local.stack.ports import own_port
from app.settings import Settings
from app.topics import topics_of
from tests.worlds.waiting import HANGS_S, until

pytestmark = pytest.mark.stack
PARTITIONS = 3


class Stack(NamedTuple):
    settings: Settings
    environment: dict[str, str]
    folder: Path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bridge")
    aws_port, broker_port, controller_port = (own_port() for _ in range(3))
    kafka.prepare(folder / "kafka", kafka.KafkaPorts(broker_port, controller_port), 16 << 20)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "INSTREAM_"))}
    environment = clean | {
        "AWS_ACCESS_KEY_ID": "stand-in", "AWS_SECRET_ACCESS_KEY": "stand-in", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws_port}", "INSTREAM_KAFKA": f"127.0.0.1:{broker_port}",
        "INSTREAM_PARTITIONS": str(PARTITIONS), "INSTREAM_CHECKPOINT_PARTITIONS": "4", "INSTREAM_SLACK_S": "0.5",
        "INSTREAM_REPLICATION_FACTOR": "1", "INSTREAM_MIN_INSYNC_REPLICAS": "1", "INSTREAM_TICK_INTERVAL_S": "0.3",
    }  # fmt: skip
    settings = Settings(
        kafka=environment["INSTREAM_KAFKA"], partitions=PARTITIONS, checkpoint_partitions=4, replication_factor=1,
        min_insync_replicas=1, slack_s=0.5,
    )  # fmt: skip
    with (folder / "stack.log").open("wb") as log:
        commands = [
            [sys.executable, "-m", "app.local.services.aws", "--port", str(aws_port)],
            kafka.command(folder / "kafka"),
        ]
        processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for command in commands]
        try:
            aws.wait_ready(environment["AWS_ENDPOINT_URL"], HANGS_S)
            asyncio.run(kafka.wait_ready(broker_port, HANGS_S))
            yield Stack(settings, environment, folder)
        finally:
            for process in processes:
                process.kill()
                process.wait()


class Worker:
    """One `faust worker` of the bridge, with a data folder and a log of its own."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.log = stack.folder / f"{name}.log"
        environment = stack.environment | {"INSTREAM_DATA_DIR": str(stack.folder / name), "INSTREAM_LOG_FORMAT": "json"}
        command = [sys.executable, "-m", "faust", "-A", "app.worker:bridge", "worker", "-l", "info", "--without-web"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    async def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, HANGS_S)


class Blocks:
    """Everything on topic `blocks`, as it comes."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.logs: dict[int, list[tuple[int, bytes]]] = {n: [] for n in range(PARTITIONS)}

    async def until(self, condition: Callable[[], bool], *workers: Worker) -> None:
        """Read until `condition()`; fails when the last of `workers`, which must be alive, ends."""

        def said() -> str:
            return "\n".join(worker.log.read_text()[-3000:] for worker in workers)

        async def holds() -> bool:
            assert workers[-1].process.poll() is None, said()
            return condition() or await self.read()

        await until(holds, story=said)

    async def read(self) -> bool:
        """Read what comes within a moment. Returns: False, for there may be more."""
        for messages in (await self._consumer.getmany(timeout_ms=200)).values():
            for message in messages:
                self.logs[message.partition].append((message.timestamp, message.value))
        return False

    async def read_to_end(self) -> None:
        """Read everything that is on the topic now."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())

        async def is_read() -> bool:
            return all(len(self.logs[part.partition]) >= end for part, end in ends.items()) or await self.read()

        await until(is_read)

    def values(self) -> list[bytes]:
        return [value for log in self.logs.values() for _, value in log if not is_control(value)]

    def controls(self, partition: int) -> list[WatermarkMessage | End]:
        return [decode_control(value) for _, value in self.logs[partition] if is_control(value)]

    def ended_everywhere(self, shard: str) -> bool:
        return all(End(shard) in self.controls(partition) for partition in self.logs)


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Blocks]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topics_of(settings).blocks.name, n) for n in range(PARTITIONS)])
        yield Blocks(consumer)
    finally:
        await consumer.stop()


def some_blocks(first: int, count: int) -> list[bytes]:
    return [
        encode_block(BlockHeader(1, str(uuid.UUID(int=n * 7919)), 0, 1, 0, 1, n % PARTITIONS, 0, 1), b"frame %d" % n)
        for n in range(first, first + count)
    ]


def split(stack: Stack, shard: str) -> None:
    client = boto3.client("kinesis", endpoint_url=stack.environment["AWS_ENDPOINT_URL"])
    shards = client.list_shards(StreamName=stack.settings.stream)["Shards"]
    bounds = next(s["HashKeyRange"] for s in shards if s["ShardId"] == shard)
    middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2
    client.split_shard(StreamName=stack.settings.stream, ShardToSplit=shard, NewStartingHashKey=str(middle))


def stream_time(log: list[tuple[int, bytes]]) -> int:
    shards, now = ShardWatermarks(), 0
    for append_ms, value in log:
        if is_control(value):
            shards.observe(decode_control(value))
            now = moved_time(now, shards, append_ms)
    return now


async def test_a_bridge_that_is_joined_stopped_killed_and_split_delivers_every_block(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    stream = KinesisBlockStream(stack.settings.model_copy(update={"stream_shards": 2}))
    await stream.ensure()
    await ensure_topics(stack.settings)
    wanted = some_blocks(0, 60)
    await stream.put(wanted)
    workers = [Worker(stack, "one")]
    try:
        async with reading(stack.settings) as blocks:
            await blocks.until(lambda: set(wanted) <= set(blocks.values()), *workers)

            workers.append(Worker(stack, "two"))  # it joins: all pumps stop and are shared out anew
            more = some_blocks(60, 60)
            await stream.put(more)
            wanted += more
            await blocks.until(lambda: "bridge serves" in workers[1].log.read_text(), *workers)
            await blocks.until(lambda: set(wanted) <= set(blocks.values()), *workers)

            await blocks.read_to_end()
            before = len(blocks.values())
            assert await workers[0].end(signal.SIGTERM) == 0
            more = some_blocks(120, 30)
            await stream.put(more)
            wanted += more
            await blocks.until(lambda: set(wanted) <= set(blocks.values()), *workers)
            assert len(blocks.values()) == before + 30, "a clean stop leaves nothing to read again"

            await workers[1].end(signal.SIGKILL)
            split(stack, "shardId-000000000000")  # the stand-in moves the parent's records to its children
            more = some_blocks(150, 30)
            await stream.put(more)
            wanted += more
            workers.append(Worker(stack, "three"))
            await blocks.until(lambda: set(wanted) <= set(blocks.values()), workers[2])
            await blocks.until(lambda: blocks.ended_everywhere("shardId-000000000000"), workers[2])

            def children_have_marks() -> bool:
                ticks = [c for c in blocks.controls(0) if isinstance(c, WatermarkMessage)]
                return {"shardId-000000000002", "shardId-000000000003"} <= set(ticks[-1].watermarks)

            await blocks.until(children_have_marks, workers[2])
            reached = {partition: stream_time(log) for partition, log in blocks.logs.items()}
            await blocks.until(lambda: all(stream_time(log) > reached[n] for n, log in blocks.logs.items()), workers[2])
            assert await workers[2].end(signal.SIGTERM) == 0
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
        await stream.close()
    for partition, log in blocks.logs.items():
        assert {decode_header(value).partition for _, value in log if not is_control(value)} == {partition}
