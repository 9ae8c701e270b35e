"""The ETL agent's work on one partition, whole: real core, real store, logs in memory (rules E2 to E7)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import agents.etl.agent
from app.core.formats.dead_letter import decode_letter
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import StepMessage, encode_step
from app.errors import EpochMismatch, OutcomeUnknown, StepConflict, StoreLost, TopicRecreated
from app.testing.memory import MemoryLogs
from tests.builders.source_log import tick
from tests.worlds.etl_owner import DEAD_LETTERS, clicks, counted_steps, owner_of, ranges
from tests.worlds.etl_run import ledger_of
from tests.worlds.etl_table import BLOCKS, ROWS, Worker


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, MemoryLogs())
    yield made
    await made.store.stop()


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


async def test_a_store_whose_position_is_none_is_rebuilt_from_the_log(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), clicks("b", batch=2)]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(1)
    await owner.stop()
    store = worker.table._db(0)
    before = store.position
    batch = store._engine.batch()
    batch.put("default", b"position", b"\xc1")
    store._engine.write(batch)
    await worker.assign()
    owner = await owner_of(worker, monkeypatch)
    assert worker.table.position(0) == before
    assert worker.crashes == []


async def test_a_message_without_a_value_is_a_dead_letter(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), None, clicks("b", batch=2)]  # type: ignore[list-item]
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(2)
    await owner.stop()
    letters = [letter for step in counted_steps(worker.logs) for letter in step.dead_letters]
    assert [(letter.offset, letter.batch_id) for letter in letters] == [(1, None)]
