"""The ETL's Faust agent: messages reach their partition's work in order, and none that came in a rebalance does."""

from collections.abc import Iterator

import polars as pl
import pytest
from faust.types import TP

import agents.etl.agent
from app.errors import SourceGap
from app.shell.inbox import Inbox
from app.shell.runners import PartitionRunners
from tests.worlds.waiting import until


class Work:
    """Notes what each partition is given and acknowledges it."""

    def __init__(self) -> None:
        self.taken: dict[int, list[tuple[int, bytes]]] = {}

    async def __call__(self, inbox: Inbox) -> None:
        await inbox.start_at(0)
        while not inbox.closing:
            for event in await inbox.take():
                self.taken.setdefault(inbox.partition, []).append((event.message.offset, event.value))
                inbox.ack(through=event.message.offset)

    async def until(self, count: int) -> None:
        await until(lambda: sum(map(len, self.taken.values())) >= count)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()
    app = agents.etl.agent.app
    monkeypatch.setattr(app.hooks, "assigned", [])
    monkeypatch.setattr(app.hooks, "leaving", [])
    monkeypatch.setattr(app, "_readiness_checks", [])
    monkeypatch.setattr(app, "rebalancing", False)

    async def stay(*_: object) -> None:
        """Nothing to seek in: the test puts the messages."""

    monkeypatch.setattr(app, "reposition", stay)
    monkeypatch.setattr(agents.etl.agent, "runners", PartitionRunners(app, agents.etl.agent.topics.blocks.name, work))
    return work


async def test_messages_reach_their_partition_in_order(work: Work) -> None:
    async with agents.etl.agent.etl.test_context() as agent:
        for n in range(6):
            await agent.put(b"block %d" % n, partition=3, wait=False)
        tp = TP(agents.etl.agent.topics.blocks.name, 3)
        await agents.etl.agent.runners._on_assigned(frozenset({tp, TP(agents.etl.agent.topics.rows.name, 3)}))
        await work.until(6)
        await agents.etl.agent.runners.drain()
    assert work.taken == {3: [(n, b"block %d" % n) for n in range(6)]}


async def test_messages_during_a_rebalance_are_dropped(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    async with agents.etl.agent.etl.test_context() as agent:
        await agent.put(b"kept", partition=3, wait=False)
        tp = TP(agents.etl.agent.topics.blocks.name, 3)
        await agents.etl.agent.runners._on_assigned(frozenset({tp}))
        await work.until(1)
        monkeypatch.setattr(agents.etl.agent.app, "rebalancing", True)
        await agent.put(b"late", partition=3, wait=False)
        await until(lambda: agent.processed_offset == 2)
        await agents.etl.agent.runners.drain()
    assert work.taken == {3: [(0, b"kept")]}


@pytest.mark.parametrize("failure", [SourceGap("1"), pl.exceptions.PanicException("index out of bounds")])
async def test_an_exception_in_the_work_ends_the_app(
    work: Work, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    crashes: list[BaseException] = []

    async def crash(exc: BaseException) -> None:
        crashes.append(exc)

    async def fails(inbox: Inbox) -> None:
        raise failure

    monkeypatch.setattr(agents.etl.agent.app, "crash", crash)
    runners = PartitionRunners(agents.etl.agent.app, agents.etl.agent.topics.blocks.name, fails)
    await runners._on_assigned(frozenset({TP(agents.etl.agent.topics.blocks.name, 1)}))
    await until(lambda: crashes)
    assert crashes == [failure]
    await runners.drain()
