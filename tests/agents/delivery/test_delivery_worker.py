"""Delivery's loop in a worker: what /ready says of it, and how it begins, ends and hands over."""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest
from faust.types import TP

from agents.delivery.deliverer import DeliveryReport
from app import apps
from app.core.delivery.load_plan import Failure, FailureClass
from app.testing.memory import MemoryObjectStore
from tests.worlds.waiting import until

TROUBLE = Failure(FailureClass.DEFER, "lock", "held by somebody")


class Scripted:
    """A deliverer whose rounds a test decides."""

    made: ClassVar[list["Scripted"]] = []

    def __init__(self, *_: object) -> None:
        self.deferred: Failure | None = None
        self.rounds: list[list[int]] = []
        self.closed = False
        self.act: Callable[[], Awaitable[None]] | None = None
        Scripted.made.append(self)

    async def round(self, partitions: Iterable[int]) -> DeliveryReport:
        self.rounds.append(list(partitions))
        if self.act is not None:
            await self.act()
        return DeliveryReport(deferred=self.deferred, pause_s=0.01 if self.deferred else 0)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[ModuleType]:
    monkeypatch.setenv("INSTREAM_HOME", str(tmp_path))
    monkeypatch.setenv("INSTREAM_DELIVERY_INTERVAL_S", "3600")
    monkeypatch.delitem(apps._built, "delivery", raising=False)
    monkeypatch.delitem(sys.modules, "agents.delivery.agent", raising=False)
    module = importlib.import_module("agents.delivery.agent")
    monkeypatch.setattr(module, "Deliverer", Scripted)
    module.app.ports.objects = MemoryObjectStore()
    Scripted.made.clear()
    yield module
    apps._built.pop("delivery", None)
    sys.modules.pop("agents.delivery.agent", None)


def assignment(module: ModuleType, *partitions: int) -> frozenset[TP]:
    return frozenset(TP(module.topics.manifests.name, partition) for partition in partitions)


async def test_it_delivers_what_it_owns_at_once_on_a_message_and_ends_behind_its_round(worker: ModuleType) -> None:
    await worker.owner.begin(assignment(worker, 3, 1) | {TP("another", 7)})
    await until(lambda: Scripted.made and len(Scripted.made[0].rounds) == 1)
    worker.owner.look_sooner()
    await until(lambda: len(Scripted.made[0].rounds) == 2)
    assert Scripted.made[0].rounds == [[1, 3]] * 2
    await worker.owner.end()
    assert Scripted.made[0].closed


async def test_ready_says_what_a_load_waits_for(worker: ModuleType) -> None:
    worker.app._waiting_for = None
    await worker.owner.begin(assignment(worker, 0))
    await until(lambda: Scripted.made)
    assert worker.app.readiness() is None
    Scripted.made[0].deferred = TROUBLE
    assert worker.app.readiness() == "warehouse, lock: held by somebody"
    await worker.owner.end()
    assert worker.app.readiness() is None


async def test_a_round_that_hangs_is_cancelled_and_its_late_end_hides_nothing_of_its_successor(worker: ModuleType) -> None:
    """A revoke does not wait for ever; the next owner may be this worker again while the old round still cleans up."""
    cleaned_up = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned_up.wait()

    await worker.owner.begin(assignment(worker, 0))
    await until(lambda: Scripted.made)
    first = Scripted.made[0]
    first.act = hang
    worker.owner.look_sooner()
    await until(lambda: len(first.rounds) == 2)
    leaving = asyncio.ensure_future(worker.owner.end())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])

    await worker.owner.begin(assignment(worker, 0))
    await until(lambda: len(Scripted.made) == 2)
    Scripted.made[1].deferred = TROUBLE
    cleaned_up.set()
    await until(lambda: first.closed)

    assert worker.owner.waits_for() is not None
    await worker.owner.end()
