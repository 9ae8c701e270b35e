"""Two sink workers on a real broker and S3: a join, kill -9, SIGTERM, zombies' messages - every row in one transaction."""

import asyncio
import signal
import uuid
from pathlib import Path

import pytest

from app.adapters.kafka import LogReader, ensure_topics
from app.adapters.s3 import S3ObjectStore
from app.core.sink.chain import ChainId
from app.errors import ObjectMissing
from tests.worlds.etl_workers import Worker, aws, broker
from tests.worlds.etl_workers import World as Stack
from tests.worlds.sink import World as Partition

pytestmark = pytest.mark.stack

PARTITIONS = 4


class SinkWorker(Worker):
    role = "sink"


class SinkStack(Stack):
    """The partitions' logs in the broker, sink workers, and their bucket."""

    def __init__(self, home: Path, kafka_port: int, aws_url: str) -> None:
        super().__init__(home, kafka_port, aws_url)
        self.parts = [Partition(ChainId(1, number), self.settings.bucket) for number in range(PARTITIONS)]
        self._sent = [0] * PARTITIONS

    def _worker(self, number: int) -> Worker:
        fast = {"INSTREAM_COMMIT_INTERVAL_S": "0.5", "INSTREAM_IDLE_COMMIT_INTERVAL_S": "1"}
        return SinkWorker(self.settings.home / f"worker-{number}", {**self._environment, **fast})

    async def feed(self, rounds: int) -> None:
        """Some steps of every partition, a zombie's among them, and send them."""
        for number, part in enumerate(self.parts):
            for _ in range(rounds):
                part.emit(page_views=50, ad_clicks=3, rejected=2, replays=1, dead_letters=1)
                part.tick()
            part.zombie(engagements=7)
            await self._send_new(number)

    async def feed_ticks(self) -> None:
        """Move every partition's time: the idle commit answers for it and for the zombie's step before it."""
        for number, part in enumerate(self.parts):
            part.tick()
            await self._send_new(number)

    async def _send_new(self, number: int) -> None:
        messages = self.parts[number].messages
        for message in messages[self._sent[number] :]:
            await self.send(self.topics.rows.name, number, message)
        self._sent[number] = len(messages)

    async def download(self) -> None:
        """The bucket's objects into each partition's world."""
        objects = S3ObjectStore(self.settings)
        found: dict[str, bytes] = {}
        async for info in objects.list(""):
            try:
                found[info.key] = await objects.get(info.key)
            except ObjectMissing:  # staged, and deleted by a sink meanwhile
                continue
        await objects.close()
        for part in self.parts:
            part.store._objects = {key: (body, 0) for key, body in found.items()}
            part.store._sorted = sorted(found)

    async def all_committed(self) -> bool:
        await self.download()
        ready = [key for key in self.parts[0].keys("manifests/") if key.endswith("ready.json")]
        ends = [part.records()[-1:] for part in self.parts]
        return len(ready) == sum(len(part.records()) for part in self.parts) and all(
            end and end[0].last_offset == len(part.messages) - 1 for end, part in zip(ends, self.parts, strict=True)
        )


async def faults(stack: SinkStack) -> None:
    first, second = stack.workers
    first.start()
    await stack.until(first.ready, "the first worker is ready")
    await stack.feed(5)
    second.start()
    await stack.feed(5)
    await stack.until(second.ready, "the second joins")
    await stack.feed(5)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    await stack.feed(3)
    first.start()
    await stack.until(first.ready, "the killed worker is back")
    await stack.feed(5)
    assert second.end(signal.SIGTERM) == 0
    await stack.feed(2)
    await stack.feed_ticks()


async def run(stack: SinkStack) -> None:
    async with stack:
        await ensure_topics(stack.settings)
        await faults(stack)
        await stack.until(stack.all_committed, "every message is in a transaction")
        for part in stack.parts:
            part.check_complete()
            assert len(part.records()) > 1
        async with LogReader(stack.settings) as logs:
            announced = await logs.end_offsets(stack.topics.manifests.name, range(PARTITIONS))
        assert all(announced[n] >= len(part.records()) for n, part in enumerate(stack.parts))
        assert stack.workers[0].end(signal.SIGTERM) == 0


def test_every_row_once_through_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        stack = SinkStack(tmp_path, port, url)
        for name, value in stack.aws_environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(stack))
