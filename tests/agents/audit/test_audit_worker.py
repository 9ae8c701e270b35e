"""The audit's real process on a real broker and stand-ins of S3, Kinesis, registry and warehouse; a second takes over."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pyroaring import BitMap

from app.adapters.kafka import ensure_topics
from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.warehouse import connect
from app.clock import SystemClock
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.core.formats.block import decode_header
from app.core.formats.registry_item import BatchState, RegistryItem
from app.core.formats.stored_line import StoredLine
from app.local.services import kafka
from app.local.stack.ports import own_port
from app.settings import Settings
from tests.worlds.waiting import HANGS_S, PAUSE_S, until
from tests.worlds.warehouse import AWS_ENVIRONMENT, Warehouse

pytestmark = pytest.mark.stack
PARTITIONS = 2


class Broker(NamedTuple):
    address: str
    folder: Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("audit")
    port, controller_port = own_port(), own_port()
    kafka.prepare(folder / "kafka", kafka.KafkaPorts(port, controller_port), 16 << 20)
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen(kafka.command(folder / "kafka"), stdout=log, stderr=log)
        try:
            asyncio.run(kafka.wait_ready(port, HANGS_S))
            yield Broker(f"127.0.0.1:{port}", folder)
        finally:
            process.kill()
            process.wait()


class World(NamedTuple):
    settings: Settings
    environment: dict[str, str]
    folder: Path
    warehouse: Warehouse
    registry: DynamoRegistry
    stream: KinesisBlockStream

    async def batch(self, lines: int = 20) -> SealedBatch:
        now_ms = SystemClock().now_ms() - 200_000
        stored = [StoredLine(b'{"received_at":%d}' % now_ms, b"k%d" % n, True, None, now_ms) for n in range(lines)]
        sealed = seal(new_batch_id(now_ms, os.urandom(10)), 1, PARTITIONS, stored)
        await self.warehouse.store.put(sealed.item.raw_key, sealed.raw)
        await self.registry.register(sealed.item)
        return sealed

    async def execute(self, statement: bytes, *values: object) -> None:
        async with await connect(self.settings.warehouse_url) as connection:
            await connection.execute(statement, values)

    async def load(self, item: RegistryItem) -> None:
        line_set = base64.b64encode(BitMap(range(item.line_count)).serialize()).decode()
        await self.execute(
            b"INSERT INTO analytics.ledger (txn_id, batch_id, outcome, lines, line_set) VALUES ('t', %s, 'joined', %s, %s)",
            item.batch_id, item.line_count, line_set,
        )  # fmt: skip

    async def deliver(self) -> None:
        for partition in range(PARTITIONS):
            await self.execute(
                b'INSERT INTO analytics.delivery_log (txn_id, epoch, "partition", number, status, "rows", stream_time)'
                b" VALUES (%s, 1, %s, 1, 'loaded', 1, GETDATE())",
                f"1-{partition}-1-a", partition,
            )  # fmt: skip

    async def item(self, batch_id: str) -> RegistryItem:
        item = await self.registry.get(batch_id)
        assert item is not None
        return item


@pytest.fixture
async def world(warehouse: Warehouse, broker: Broker) -> AsyncIterator[World]:
    name = warehouse.settings.bucket
    own = {
        "INSTREAM_KAFKA": broker.address, "INSTREAM_PARTITIONS": str(PARTITIONS), "INSTREAM_REPLICATION_FACTOR": "1",
        "INSTREAM_MIN_INSYNC_REPLICAS": "1", "INSTREAM_AUDIT_INTERVAL_S": "0.3", "INSTREAM_AUDIT_GRACE_S": "1",
        "INSTREAM_BUCKET": name, "INSTREAM_STREAM": name, "INSTREAM_REGISTRY_TABLE": name,
        "INSTREAM_WAREHOUSE_URL": warehouse.settings.warehouse_url, "INSTREAM_LOG_FORMAT": "json",
    }  # fmt: skip
    settings = Settings(
        kafka=broker.address, partitions=PARTITIONS, replication_factor=1, min_insync_replicas=1, bucket=name, stream=name,
        registry_table=name, warehouse_url=warehouse.settings.warehouse_url,
    )  # fmt: skip
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "INSTREAM_"))}
    environment = clean | AWS_ENVIRONMENT | {"AWS_ENDPOINT_URL": warehouse.stack.aws_url} | own
    registry, stream = DynamoRegistry(settings), KinesisBlockStream(settings)
    await asyncio.gather(registry.ensure(), stream.ensure(), ensure_topics(settings))
    yield World(settings, environment, broker.folder, warehouse, registry, stream)
    await registry.close()
    await stream.close()


class Worker:
    """One `faust worker` of the audit."""

    def __init__(self, world: World, name: str) -> None:
        self.log = world.folder / f"{name}.log"
        environment = world.environment | {"INSTREAM_DATA_DIR": str(world.folder / name)}
        command = [sys.executable, "-m", "faust", "-A", "app.worker:audit", "worker", "-l", "info", "--without-web"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def said(self) -> str:
        """Its last words."""
        return self.log.read_text()[-4000:]

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition; fails when the worker ends."""

        async def holds() -> bool:
            assert self.process.poll() is None, self.said()
            return await condition()

        await until(holds, PAUSE_S, self.said)

    async def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, HANGS_S)


async def test_it_completes_and_replays_and_hands_over(world: World) -> None:
    covered, missing = await world.batch(), await world.batch()
    await world.load(covered.item)
    workers = [Worker(world, "first")]
    try:

        async def is_complete(sealed: SealedBatch) -> bool:
            return (await world.item(sealed.item.batch_id)).state is BatchState.COMPLETE

        async def has_attempts() -> bool:
            return (await world.item(missing.item.batch_id)).attempts > 0

        await workers[0].until(lambda: is_complete(covered))
        assert not await has_attempts(), "nothing is loaded beyond the batch's time yet"
        await world.deliver()
        await workers[0].until(has_attempts)
        found = []
        for shard in await world.stream.shards():
            page = await world.stream.records(await world.stream.iterator(shard.shard_id, None), 100)
            found += [decode_header(record.data) for record in page.records]
        assert {(h.batch_id, h.block) for h in found} == {(missing.item.batch_id, n) for n in range(len(missing.blocks))}
        assert min(header.attempt for header in found) == 1

        workers.append(Worker(world, "second"))
        await workers[1].until(lambda: _said(workers[1], "partitions assigned"))
        assert await workers[0].end(signal.SIGTERM) == 0
        await world.load(missing.item)
        await workers[1].until(lambda: is_complete(missing))
        assert await workers[1].end(signal.SIGTERM) == 0
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()


async def _said(worker: Worker, text: str) -> bool:
    return text in worker.log.read_text()
