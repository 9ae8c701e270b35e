"""A partition whose next bytes are a newer version's waits for the upgrade; the worker does all else (rule E10)."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import REGISTRY

from app.errors import NewerFormat
from app.shell.inbox import QUEUE_DEPTH, Inbox
from app.shell.runners import PartitionRunners
from app.shell.upgrade import UpgradeWaits
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import until

TOPIC = "blocks-e1"
NEWER = b"newer"
WHY = "blocks-e1[0]@2: block of version 2, this reader knows versions up to 1"


def waits_at(place: str) -> float | None:
    """What the metric says."""
    return REGISTRY.get_sample_value("instream_waits_for_upgrade", {"place": place})


class Worker:
    """The app around the runners of a topic with two partitions, which end at a newer message."""

    role = "etl"

    def __init__(self) -> None:
        self.ports = SimpleNamespace(clock=StandingClock())
        self.watchdog = self
        self.crashes: list[BaseException] = []
        self.acked: list[tuple[int, int]] = []
        self.reads = b"older"
        self._hooks: list[Callable[..., Any]] = []
        self.runners = PartitionRunners(self, TOPIC, self._work)  # type: ignore[arg-type]
        self.assigned, self.leave, self.positions, self.readiness = self._hooks

    def when_assigned(self, hook: Any) -> None:
        self._hooks.append(hook)

    when_leaving = watch = ready_when = when_assigned

    async def _work(self, inbox: Inbox) -> None:
        await inbox.start_at(0)
        while not inbox.closing:
            for event in await inbox.take():
                if event.value == NEWER != self.reads:
                    raise NewerFormat(f"{TOPIC}[{inbox.partition}]@{event.message.offset}: {WHY.partition(': ')[2]}")
                inbox.ack(event.message.offset)

    async def reposition(self, *_: Any) -> None:
        """What it seeks is given anyway."""

    def is_current(self, _: int) -> bool:
        return True

    async def crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)

    async def own(self) -> None:
        await self.assigned(frozenset({TP(TOPIC, 0), TP(TOPIC, 1)}))

    async def give(self, partition: int, first: int, *values: bytes) -> None:
        for offset, value in enumerate(values, first):
            message = SimpleNamespace(offset=offset, value=value, tp=TP(TOPIC, partition), generation_id=1)
            place = (partition, offset)
            event = SimpleNamespace(message=message, value=value, ack=lambda place=place: self.acked.append(place))
            await self.runners.give(event)


@pytest.fixture
def worker() -> Worker:
    return Worker()


async def test_the_partition_stands_and_says_so_while_the_others_go_on(worker: Worker) -> None:
    await worker.own()
    await worker.give(0, 0, b"a", b"b", NEWER, b"c")
    await until(lambda: worker.readiness() == f"{WHY}: upgrade the etl first")
    assert waits_at(f"{TOPIC}[0]") == 1
    async with asyncio.timeout(10):  # however much comes for it, it holds up nobody
        await worker.give(0, 4, *[b"more"] * (3 * QUEUE_DEPTH))
    await worker.give(1, 0, b"a", b"b")
    await until(lambda: (1, 1) in worker.acked)
    assert worker.acked == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert worker.positions() == {TP(TOPIC, 1): 2}, "the watchdog finds nothing that stands"
    assert worker.crashes == []


async def test_what_stood_is_let_go_with_its_partition_and_goes_on_in_an_upgraded_reader(worker: Worker) -> None:
    await worker.own()
    await worker.give(0, 0, b"a", b"b", NEWER)
    await until(lambda: worker.readiness() == f"{WHY}: upgrade the etl first")
    async with asyncio.timeout(10):
        await worker.leave()
    assert (worker.readiness(), waits_at(f"{TOPIC}[0]")) == (None, None)
    await worker.own()
    await worker.give(0, 0, b"a", b"b", NEWER)
    await until(lambda: worker.readiness() == f"{WHY}: upgrade the etl first")  # nothing was upgraded: it waits again
    await worker.leave()
    worker.reads = NEWER
    await worker.own()
    await worker.give(0, 0, b"a", b"b", NEWER, b"c")
    await until(lambda: (0, 3) in worker.acked)
    assert worker.readiness() is None
    assert worker.crashes == []
    await worker.leave()


async def test_a_newer_format_behind_the_loss_of_the_partition_is_nobodys_wait(worker: Worker) -> None:
    await worker.own()
    await worker.leave()
    await worker.give(0, 0, NEWER)
    assert (worker.readiness(), worker.crashes) == (None, [])


def test_a_wait_is_one_place_s_and_ends_by_itself_only() -> None:
    waits = UpgradeWaits("sink")
    waits.begin("rows-e1[1]", NewerFormat("rows-e1[1]@7: step message of version 2"))
    waits.begin("rows-e1[2]", NewerFormat("rows-e1[2]@9: step message of version 2"))
    assert waits.reason() == "rows-e1[1]@7: step message of version 2: upgrade the sink first"
    waits.end("rows-e1[1]")
    waits.end("rows-e1[1]")
    assert waits.reason() == "rows-e1[2]@9: step message of version 2: upgrade the sink first"
    assert ("rows-e1[1]" in waits, "rows-e1[2]" in waits) == (False, True)
    waits.clear()
    assert (waits.reason(), waits_at("rows-e1[2]")) == (None, None)
