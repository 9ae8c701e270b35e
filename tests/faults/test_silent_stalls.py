"""Kafka clients that fall silent without an error: the worker ends by itself, and its successor does what was left."""

import asyncio
import signal
import time
import uuid
from pathlib import Path

import pytest

from app.adapters.kafka import LogReader, ensure_topics
from tests.builders.source_log import block, event
from tests.faults.stalling import MODULE, SETTINGS, Watch
from tests.worlds.etl_workers import Worker, World, aws, broker

pytestmark = pytest.mark.stack

BLOCKS = 6
"""That the etl works on before it ends."""


class StallingWorker(Worker):
    """A worker of a role whose client can be silenced."""

    module = MODULE

    def __init__(self, role: str, fault: str, home: Path, environment: dict[str, str]) -> None:
        self.role = role
        self.watch = Watch(home / role)
        super().__init__(home / role, environment | SETTINGS | {"STALL": fault, "WATCH": str(home / role)})

    def begun(self, times: int) -> bool:
        """Whether so many processes of it have begun their work. /ready of an audit waits here: there is no warehouse."""
        return self.log().count('"worker ready"') >= times


class StallWorld(World):
    """One worker each of some roles."""

    numbers = (1, 2, 3)

    def _worker(self, number: int) -> Worker:
        role, fault = (("etl", "commit"), ("delivery", "fetch"), ("audit", "thread"))[number - 1]
        return StallingWorker(role, fault, self.settings.home, self._environment)

    async def committed(self, role: str, topic: str) -> int:
        """Up to where a role's group has acknowledged partition 0 of a topic."""
        async with LogReader(self.settings) as logs:
            return (await logs.committed(f"instream-{role}-e1")).get((topic, 0), 0)

    async def has_stepped(self, blocks: int) -> bool:
        """Whether so many blocks of partition 0 are in steps."""
        await self.look()
        return self.steps[0][-1].source_last == blocks - 1

    async def wait_committed(self, role: str, topic: str, offset: int) -> None:
        async def reached() -> bool:
            return await self.committed(role, topic) >= offset

        await self.until(reached, f"{role} has committed {topic} up to {offset}")


def clicks(batch: int) -> bytes:
    return block(event(f"e{batch}", "ad_click"), batch=batch, received_at_ms=int(time.time() * 1000))


async def run(world: StallWorld) -> None:
    blocks, manifests = world.topics.blocks.name, world.topics.manifests.name
    reasons = ("is committed up to", "is committed up to", "thread has not answered")
    async with world:
        await ensure_topics(world.settings)
        for worker in world.workers:
            worker.start()
        await world.send(blocks, 0, clicks(1))
        await world.send(manifests, 0, b"look")
        await world.wait_committed("etl", blocks, 1)
        await world.wait_committed("delivery", manifests, 1)
        await world.until(lambda: world.workers[2].begun(1), "the audit has begun")

        for worker in world.workers:
            worker.watch.fall_silent()
        for batch in range(2, BLOCKS + 1):
            await world.send(blocks, 0, clicks(batch))
        await world.until(lambda: world.has_stepped(BLOCKS), "the etl works on, and nothing waits for it")
        sent = 1

        async def have_ended() -> bool:
            nonlocal sent
            sent += 1
            await world.send(manifests, 0, b"look")  # a fetch that was under way may still have brought the ones before
            for worker in world.workers:
                worker.watch.pass_s()
            return None not in [worker.poll() for worker in world.workers]

        await world.until(have_ended, "all end")
        assert [worker.poll() for worker in world.workers] == [1, 1, 1]
        for worker, reason in zip(world.workers, reasons, strict=True):
            assert "worker stalled" in worker.log(), worker.tail()
            assert reason in worker.log(), worker.tail()
        assert world.steps[0][-1].source_last > await world.committed("etl", blocks), "it worked on, and nobody heard of it"

        await world.send(blocks, 0, clicks(BLOCKS + 1))
        for worker in world.workers:
            worker.watch.answer()
            worker.start()
        await world.wait_committed("etl", blocks, BLOCKS + 1)
        await world.wait_committed("delivery", manifests, sent)
        await world.until(lambda: world.workers[2].begun(2), "the audit has begun again")
        await world.look()
        assert sum(entry.lines for step in world.steps[0] for entry in step.ledger) == BLOCKS + 1
        for worker in world.workers:
            assert worker.end(signal.SIGTERM) == 0


def test_silent_workers_end_and_their_successors_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        world = StallWorld(tmp_path, port, url)
        for name, value in world.aws_environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(world))
