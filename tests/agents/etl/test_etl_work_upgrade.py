"""A newer version's blocks, steps and state: an owner of the ETL waits for its upgrade."""

from collections.abc import AsyncIterator
from pathlib import Path

import polars as pl
import pytest

from app.core.etl.meta import EtlMeta, encode_meta
from app.core.formats.columns import pack_frame
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import NO_PREDECESSOR, Changes, StepMessage, encode_step
from app.errors import NewerFormat
from app.testing.memory import MemoryLogs
from tables.store.position import encode_position
from tests.builders.newer import newer_block, newer_step, upgrade
from tests.worlds.etl_owner import Owner, clicks, counted_steps, owner_of, ranges
from tests.worlds.etl_run import ledger_of
from tests.worlds.etl_table import BLOCKS, ROWS, Worker


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, MemoryLogs())
    yield made
    await made.store.stop()


async def waits_for(owner: Owner, why: str) -> None:
    """The work ends with what only an upgrade mends; what makes of that a wait is the runners' (rule E10)."""
    with pytest.raises(NewerFormat, match=why):
        await owner.start()


async def test_a_newer_collectors_block_is_neither_taken_nor_set_aside_before_the_upgrade(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = newer_block(clicks("b", batch=2))
    worker.logs.messages[BLOCKS, 0] = [clicks("a"), newer, clicks("c", batch=3)]
    owner = await owner_of(worker, monkeypatch)
    await waits_for(owner, r"^blocks-e1\[0\]@1: block of version 2, this reader knows versions up to 1$")
    assert (owner.acked, ranges(worker.logs)) == ([0], [(0, 0)])
    again = await owner_of(worker, monkeypatch)  # a restart with the same code
    await waits_for(again, r"blocks-e1\[0\]@1")
    assert (again.seeks, again.acked, ranges(worker.logs)) == ([1], [], [(0, 0)])
    upgrade(monkeypatch)
    upgraded = await owner_of(worker, monkeypatch)
    upgraded.start()
    await upgraded.until_taken(2)
    await upgraded.stop()
    steps = counted_steps(worker.logs)
    assert [letter for step in steps for letter in step.dead_letters] == []
    assert sorted(ledger_of(steps).values()) == [1, 1, 1]


async def test_a_newer_etls_step_ends_no_recovery_and_the_store_goes_on_from_before_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = worker.logs.messages[BLOCKS, 0] = []
    for number in (1, 2):
        blocks.append(clicks(f"e{number}", batch=number))
        owner = await owner_of(worker, monkeypatch)
        owner.start()
        await owner.until_taken(number - 1)
        await owner.stop()
    log = worker.logs.messages[ROWS, 0]
    log[1:] = [newer_step(log[1])]
    worker.store.wipe(0)
    await worker.assign()
    older = await owner_of(worker, monkeypatch)
    await waits_for(older, r"^rows-e1\[0\]@1: step message of version 2, this reader knows versions up to 1$")
    assert (worker.crashes, older.acked, len(log)) == ([], [], 2)
    assert worker.table.position(0).accepted == Accepted(1, 0)
    upgrade(monkeypatch)
    await worker.assign()
    upgraded = await owner_of(worker, monkeypatch)
    worker.logs.messages[BLOCKS, 0].append(clicks("c", batch=3))
    upgraded.start()
    await upgraded.until_taken(2)
    await upgraded.stop()
    assert ranges(worker.logs) == [(0, 0), (1, 1), (2, 2)]


def with_changes(worker: Worker, *changes: Changes, meta: bytes = b"") -> None:
    """The first step of the log is a newer ETL's: what it changes is of a form that nobody knows here."""
    worker.logs.messages[BLOCKS, 0] = [clicks("a")]
    meta = meta or encode_meta(EtlMeta())
    step = StepMessage(1, 0, 1, NO_PREDECESSOR, 0, 0, 0, meta, {}, {}, [], [], list(changes))
    worker.logs.messages[ROWS, 0] = [encode_step(step)]


@pytest.mark.parametrize("form", ["table", "column", "meta", "position"])
async def test_a_newer_etls_state_is_waited_for(worker: Worker, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    match form:
        case "table":
            with_changes(worker, Changes.pack("sessions", 16, [(bytes(16), b"s")]))
            why = r"^rows-e1\[0\]@0: step with changes of table 'sessions'"
        case "column":
            frame = pl.DataFrame({"received_at": [1], "event_id": ["e"], "digest": [b"d"], "size": [9], "later": ["x"]})
            with_changes(worker, Changes.pack("pending", 8, [(bytes(8), pack_frame(frame))]))
            why = r"^state of blocks-e1\[0\]: frame in table pending with column 'later'"
        case "meta":
            with_changes(worker, meta=encode_meta(EtlMeta(version=2)))
            why = r"^state of blocks-e1\[0\]: meta of version 2, this reader knows versions up to 1"
        case "position":
            with_changes(worker)
            await worker.assign(0)
            await worker.recover()
            store = worker.table._db(0)
            store.write()  # what is gathered would be written over it when the store is closed
            packed = encode_position(store.position)
            batch = store._engine.batch()
            batch.put("default", b"position", bytes([packed[0] + 1]) + packed[1:] + b"\xc0")
            store._engine.write(batch)
            await worker.assign()
            why = r"^store of rows-e1\[0\]: position of a store with 6 fields, this reader knows 5"
    owner = await owner_of(worker, monkeypatch)
    await waits_for(owner, why)
    assert (worker.crashes, owner.acked, len(worker.logs.messages[ROWS, 0])) == ([], [], 1)


async def test_a_zombies_newer_step_counts_for_nobody_and_stops_nobody(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not count need not be understood, as far as its number and predecessor can be read."""
    with_changes(worker)
    zombie = StepMessage(1, 0, 1, NO_PREDECESSOR, 0, 0, 0, b"", {}, {}, [], [], [Changes.pack("sessions", 16)])
    worker.logs.messages[ROWS, 0].append(encode_step(zombie))
    worker.logs.messages[BLOCKS, 0].append(clicks("b", batch=2))
    owner = await owner_of(worker, monkeypatch)
    owner.start()
    await owner.until_taken(1)
    await owner.stop()
    assert ranges(worker.logs) == [(0, 0), (1, 1)]
