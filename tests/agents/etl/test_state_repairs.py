"""The stores take the replacements of damaged steps in place of what the log has at their offsets (rules E2, E5)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.formats import object_keys
from app.core.formats.step_history import Accepted
from app.errors import ServiceUnavailable, StepGap
from app.testing.memory import MemoryLogs, MemoryObjectStore
from tests.agents.etl.test_partition_state import history, step_bytes
from tests.worlds.etl_table import ROWS, Worker

DAMAGED = b"STP1 the rest of it is gone"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, MemoryLogs())
    yield made
    await made.store.stop()


async def repair(worker: Worker, offset: int, message: bytes, partition: int = 0) -> None:
    await worker.app.ports.objects.put(object_keys.repair_key(1, partition, offset), message)


def damaged(worker: Worker, length: int, *offsets: int) -> list[bytes]:
    whole = history(length)
    worker.logs.messages[ROWS, 0] = [DAMAGED if n in offsets else message for n, message in enumerate(whole)]
    return whole


@pytest.mark.parametrize("offsets", [(0,), (2,), (1, 2), (0, 1, 2, 3)])
async def test_recovery_goes_over_damaged_steps_that_are_repaired(worker: Worker, offsets: tuple[int, ...]) -> None:
    whole = damaged(worker, 5, *offsets)
    for offset in offsets:
        await repair(worker, offset, whole[offset])
    await worker.assign(0)
    await worker.recover()
    assert worker.crashes == []
    assert worker.table.position(0).accepted == Accepted(5, 4)
    assert worker.pending() == b"5"


async def test_a_worker_that_met_the_gap_recovers_when_it_starts_again_after_the_repair(worker: Worker) -> None:
    whole = damaged(worker, 4, 1)
    await worker.assign(0)
    await worker.recover()
    assert [type(exc) for exc in worker.crashes] == [StepGap]
    assert "instream repair-log" in str(worker.crashes[0])
    await worker.assign()
    worker.store._failed = False  # a new process
    await repair(worker, 1, whole[1])
    await worker.assign(0)
    await worker.recover()
    assert worker.table.position(0).accepted == Accepted(4, 3)


async def test_a_store_that_ends_in_another_content_than_the_replacement_is_built_again(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(2)
    await worker.assign(0)
    await worker.recover()
    await worker.assign()
    damaged(worker, 3, 1)
    await repair(worker, 1, step_bytes(2, 0, b" decided again"))
    await worker.assign(0)
    assert worker.table.position(0).accepted == Accepted()
    await worker.recover()
    assert worker.table.position(0).accepted == Accepted(3, 2)


async def test_a_store_that_ends_in_the_replacement_is_kept(worker: Worker) -> None:
    whole = damaged(worker, 2, 1)
    await repair(worker, 1, whole[1])
    await worker.assign(0)
    await worker.recover()
    await worker.assign()
    await worker.assign(0)
    assert worker.table.position(0).accepted == Accepted(2, 1)


async def test_repairs_of_other_partitions_and_other_objects_are_nothing_to_a_store(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(2)
    await repair(worker, 1, b"of another one's partition", partition=1)
    await worker.app.ports.objects.put("repairs/1/note.txt", b"by an operator")
    await worker.assign(0)
    await worker.recover()
    assert worker.table.position(0).accepted == Accepted(2, 1)


async def test_without_an_answer_of_s3_a_store_is_restored_all_the_same(worker: Worker) -> None:
    async def refuse(call: str, subject: str) -> None:
        raise ServiceUnavailable(f"{call} {subject}")

    worker.logs.messages[ROWS, 0] = history(2)
    store = worker.app.ports.objects
    assert isinstance(store, MemoryObjectStore)
    store.before = refuse
    await worker.assign(0)
    await worker.recover()
    assert worker.crashes == []
    assert worker.table.position(0).accepted == Accepted(2, 1)
