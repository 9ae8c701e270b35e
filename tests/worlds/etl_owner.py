"""One owned partition of the ETL on a worker in memory: its inbox, its sends, the steps in its log."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

import agents.etl.agent
from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import StepMessage, decode_step
from app.shell.inbox import Inbox
from app.testing.memory import MemoryLogs
from tests.builders.source_log import block, event
from tests.worlds.etl_table import BLOCKS, ROWS, Worker
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import until

DEAD_LETTERS = "dead-letters-e1"


class Owner:
    """A worker that owns partition 0: the agent's `work`, fed from the log at the sought offset."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.logs = worker.logs
        self.ports = SimpleNamespace(clock=StandingClock())
        self.inbox = Inbox(self, TP(BLOCKS, 0), depth=100)
        self.seeks: list[int] = []
        self.acked: list[int] = []
        self.broker_answers = True
        self._running: asyncio.Future[None] | None = None

    async def reposition(self, _: TP, offset: int) -> None:
        self.seeks.append(offset)
        for n in range(offset, len(self.logs.messages[BLOCKS, 0])):
            await self.inbox.put(self._event(n))

    def _event(self, offset: int) -> Any:
        value = self.logs.messages[BLOCKS, 0][offset]
        message = SimpleNamespace(offset=offset, timestamp=2**40, value=value, tp=self.inbox.tp)
        return SimpleNamespace(message=message, value=value, ack=lambda: self.acked.append(offset))

    async def send(self, *, key: None, value: bytes, partition: int) -> "asyncio.Future[Any]":
        """The part of Faust's topic: a future that the broker's answer fulfils."""
        return self._send(ROWS, value, partition)

    async def send_letter(self, *, key: None, value: bytes, partition: int) -> "asyncio.Future[Any]":
        return self._send(DEAD_LETTERS, value, partition)

    def _send(self, topic: str, value: bytes, partition: int) -> "asyncio.Future[Any]":
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        log = self.logs.messages.setdefault((topic, partition), [])
        log.append(value)
        if self.broker_answers:
            answer.set_result(SimpleNamespace(offset=len(log) - 1))
        return answer

    def start(self) -> "asyncio.Future[None]":
        self._running = asyncio.ensure_future(agents.etl.agent.work(self.inbox))
        return self._running

    async def until_taken(self, source_last: int) -> None:
        def taken() -> bool:
            assert self._running is not None
            if self._running.done():
                self._running.result()
            return self.worker.table.position(0).source_last >= source_last

        await until(taken)

    async def stop(self) -> None:
        self.inbox.close()
        if self._running is not None:
            await self._running


def counted_steps(logs: MemoryLogs) -> list[StepMessage]:
    """The accepted steps, as the sink reads them."""
    accepted, steps = Accepted(), []
    for offset, message in enumerate(logs.messages.get((ROWS, 0), [])):
        step = decode_step(message)
        verdict = accepted.judge(step.number, step.predecessor)
        assert verdict is not StepVerdict.GAP
        if verdict is StepVerdict.ACCEPT:
            accepted = accepted.advance(offset)
            steps.append(step)
    return steps


def ranges(logs: MemoryLogs) -> list[tuple[int, int]]:
    return [(step.source_first, step.source_last) for step in counted_steps(logs)]


def clicks(*ids: str, batch: int = 1, **more: int) -> bytes:
    return block(*(event(event_id, "ad_click") for event_id in ids), batch=batch, **more)


async def owner_of(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Owner:
    """Assign and recover partition 0 as Faust does, and let the agent's module work on this world."""
    await worker.assign(0)
    await worker.recover()
    owner = Owner(worker)
    monkeypatch.setattr(agents.etl.agent, "app", worker.app)
    monkeypatch.setattr(agents.etl.agent, "state", worker.table)
    monkeypatch.setattr(agents.etl.agent, "rows", SimpleNamespace(send=owner.send))
    monkeypatch.setattr(agents.etl.agent, "dead_letters", SimpleNamespace(send=owner.send_letter))
    return owner
