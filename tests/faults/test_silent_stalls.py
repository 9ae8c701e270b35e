"""Kafka clients that fall silent without an error: the worker ends by itself, and its successor does what was left."""

import asyncio
import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from app.adapters.kafka import LogReader, ensure_topics
from tests.builders.source_log import block, event
from tests.worlds.etl_workers import Worker, World, aws, broker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

STALL_S = 4
ROOT = Path(__file__).parents[2]


class StallingWorker(Worker):
    """A worker of a role whose client can be silenced."""

    module = "tests.faults.stalling"

    def __init__(self, role: str, fault: str, home: Path, environment: dict[str, str]) -> None:
        self.role = role
        self.silence = home / f"{role}.silent"
        super().__init__(home / role, environment | {
            "STALL": fault, "STALL_WHEN": str(self.silence), "INSTREAM_STALL_TIMEOUT_S": str(STALL_S),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        })  # fmt: skip


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
        await world.until(world.workers[2].ready, "the audit is ready")

        for worker in world.workers:
            worker.silence.touch()
        sent = 1
        while None in (codes := [worker.poll() for worker in world.workers]):
            assert sent < 150, (codes, [worker.tail() for worker in world.workers])
            sent += 1
            await world.send(blocks, 0, clicks(sent))
            await world.send(manifests, 0, b"look")
            await asyncio.sleep(0.3)
        assert codes == [1, 1, 1]
        for worker, reason in zip(world.workers, reasons, strict=True):
            assert "worker stalled" in worker.log(), worker.tail()
            assert reason in worker.log(), worker.tail()
        await world.look()
        assert world.steps[0][-1].source_last > await world.committed("etl", blocks), "it worked on, and nobody heard of it"

        for worker in world.workers:
            worker.silence.unlink()
            worker.start()
        await world.wait_committed("etl", blocks, sent)
        await world.wait_committed("delivery", manifests, sent)
        await world.until(world.workers[2].ready, "the audit is ready again")
        await world.look()
        assert sum(entry.lines for step in world.steps[0] for entry in step.ledger) == sent
        for worker in world.workers:
            assert worker.end(signal.SIGTERM) == 0


def test_silent_workers_end_and_their_successors_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        world = StallWorld(tmp_path, port, url)
        for name, value in world.aws_environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(world))
