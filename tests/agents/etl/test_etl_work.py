"""The ETL agent's work on one partition, whole: real core, real store, logs in memory (rules E2 to E7)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

import agents.etl.agent
from app.core.formats.dead_letter import decode_letter
from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import StepMessage, decode_step, encode_step
from app.errors import EpochMismatch, OutcomeUnknown, StepConflict, StoreLost, TopicRecreated
from app.shell.runners import Inbox
from app.testing.memory import MemoryLogs
from tests.builders.source_log import block, event, tick
from tests.worlds.etl_run import ledger_of
from tests.worlds.etl_table import BLOCKS, ROWS, Worker
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import until

DEAD_LETTERS = "dead-letters-e1"


class Owner:
    """A worker that owns partition 0: the agent's `work`, fed from the log wherever it seeks to."""

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
        """What Faust's topic does: a future that the broker's answer fulfils."""
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
    """The one history, as the sink reads it."""
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


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, MemoryLogs())
    yield made
    await made.store.stop()


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


async def test_a_first_start_takes_everything_from_the_beginning(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a", "b"), tick(s0=1), clicks("c", batch=2)]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(2)
    await owner.stop()
    assert owner.seeks == [0]
    assert owner.acked == [0, 1, 2]
    assert ranges(worker.logs) == [(0, 1), (2, 2)]
    assert set(ledger_of(counted_steps(worker.logs)).values()) == {1}


async def test_the_next_owner_goes_on_behind_what_is_applied(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), clicks("b", batch=2)]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(1)
    await owner.stop()
    worker.logs.messages[BLOCKS, 0] += [clicks("a", batch=3), clicks("b", batch=2, attempt=1)]
    successor = await owner_of(worker, monkeypatch)
    successor.start()
    await successor.until_taken(3)
    await successor.stop()
    assert successor.seeks == [2]
    assert ranges(worker.logs) == [(0, 1), (2, 3)]
    last = counted_steps(worker.logs)[-1]
    assert [entry.outcome for entry in last.ledger] == ["duplicate"]
    assert len(last.replays) == 1


async def test_a_step_that_was_stored_but_not_answered_is_found_by_recovery(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a", "b")]
    owner = await owner_of(worker, monkeypatch)
    owner.broker_answers = False
    monkeypatch.setattr(agents.etl.agent, "APPEND_TIMEOUT_S", 0.01)
    with pytest.raises(OutcomeUnknown, match="no answer"):
        await owner.start()
    assert owner.acked == []
    assert worker.table.position(0).accepted == Accepted()
    successor = await owner_of(worker, monkeypatch)
    worker.logs.messages[BLOCKS, 0].append(clicks("c", batch=2))
    successor.start()
    await successor.until_taken(1)
    await successor.stop()
    assert ranges(worker.logs) == [(0, 0), (1, 1)]


async def test_a_worker_that_is_not_alone_any_more_ends_unacknowledged(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a")]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(0)
    stranger = StepMessage(1, 0, 2, 0, 1, 1, 0, b"", {}, {}, [], [], [])
    worker.logs.messages[ROWS, 0].append(encode_step(stranger))
    worker.logs.messages[BLOCKS, 0].append(clicks("b", batch=2))
    await owner.inbox.put(owner._event(1))
    assert owner._running is not None
    with pytest.raises(StepConflict):
        await owner._running
    assert owner.acked == [0]
    assert counted_steps(worker.logs)[-1] == stranger


@pytest.mark.parametrize("applied", [0, 2])
async def test_source_messages_that_retention_took_are_declared_with_an_alarm(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, applied: int
) -> None:
    blocks = worker.logs.messages[BLOCKS, 0] = [clicks(f"e{n}", batch=n) for n in range(applied)]
    if applied:
        owner = await owner_of(worker, monkeypatch)
        owner.start()
        await owner.until_taken(applied - 1)
        await owner.stop()
    blocks += [clicks(f"e{n}", batch=n) for n in range(applied, 6)]
    worker.logs.trimmed[BLOCKS, 0] = 5
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(5)
    await owner.stop()
    assert owner.seeks == [5]
    *_, gap, taken = counted_steps(worker.logs)
    assert (gap.source_first, gap.source_last) == (applied, 4)
    assert f"source offsets {applied} to 4 are gone" in gap.alarms[0]
    assert (taken.source_first, taken.source_last, len(taken.ledger)) == (5, 5, 1)


async def test_a_source_that_ends_before_what_is_applied_is_refused(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), clicks("b", batch=2)]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(1)
    await owner.stop()
    worker.logs.messages[BLOCKS, 0] = [clicks("c", batch=3)]  # somebody recreated the topic
    successor = await owner_of(worker, monkeypatch)
    with pytest.raises(TopicRecreated, match="raise INSTREAM_EPOCH"):
        await successor.start()
    assert ranges(worker.logs) == [(0, 1)]


async def test_a_block_of_another_epoch_ends_the_work_with_nothing_taken(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), clicks("b", batch=2, epoch=2)]
    owner = await owner_of(worker, monkeypatch)
    with pytest.raises(EpochMismatch, match="block of epoch 2"):
        await owner.start()
    assert (counted_steps(worker.logs), owner.acked) == ([], [])


async def test_a_log_too_short_to_begin_with_is_refused(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a")]
    steps = [StepMessage(1, 0, n + 1, n - 1, 0, 0, 0, b"", {}, {}, [], [], []) for n in range(3)]
    worker.logs.messages[ROWS, 0] = [encode_step(step) for step in steps]
    worker.logs.trimmed[ROWS, 0] = 2
    owner = await owner_of(worker, monkeypatch)
    with pytest.raises(StoreLost):
        await owner.start()
    assert (owner.seeks, len(worker.logs.messages[ROWS, 0])) == ([], 3)


async def test_a_block_that_cannot_be_read_stops_neither_its_partition_nor_its_own_copy(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clicks("b", "c", batch=2)
    worker.logs.messages[BLOCKS, 0] = [
        clicks("a"), good[:-4], clicks("b", "c", batch=2, attempt=1), b"neither", clicks("d", batch=3)
    ]  # fmt: skip
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(4)
    await owner.stop()
    steps = counted_steps(worker.logs)
    assert [letter.offset for step in steps for letter in step.dead_letters] == [1, 3]
    assert [replay for step in steps for replay in step.replays] == []
    assert sum(entry.lines for step in steps for entry in step.ledger) == 4
    letters = [decode_letter(message) for message in worker.logs.messages[DEAD_LETTERS, 0]]
    assert [(letter.head.offset, letter.body) for letter in letters] == [(1, good[:-4]), (3, b"neither")]


async def test_a_dead_letter_without_its_step_is_sent_again_and_known_by_its_place(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), clicks("b", batch=2)[:-4]]
    owner = await owner_of(worker, monkeypatch)
    owner.broker_answers = False  # neither for the letter nor for the step
    monkeypatch.setattr(agents.etl.agent, "APPEND_TIMEOUT_S", 0.01)
    with pytest.raises(OutcomeUnknown, match="dead-letters"):
        await owner.start()
    assert counted_steps(worker.logs) == []
    successor = await owner_of(worker, monkeypatch)
    successor.start()
    await successor.until_taken(1)
    await successor.stop()
    [step] = counted_steps(worker.logs)
    first, second = map(decode_letter, worker.logs.messages[DEAD_LETTERS, 0])
    assert first == second
    assert [(letter.offset, letter.reason) for letter in step.dead_letters] == [(1, first.head.reason)]
