"""The same suite over the warehouse (through its stand-in) and the twin in memory."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest
from pyroaring import BitMap

from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.warehouse import connect
from app.adapters.warehouse_port import Delivered, LoadedLedger, Quarantined
from app.core.audit.reconcile import LedgerLines
from app.errors import ServiceUnavailable
from app.local.stack.ports import own_port
from app.testing.memory import MemoryLoadedLedger
from tests.worlds.warehouse import Warehouse

NOW_MS = 1_795_000_000_123
LINES = base64.b64encode(BitMap([1, 2, 300]).serialize()).decode()


class Logged(NamedTuple):
    epoch: int
    txn_id: str
    partition: int
    number: int
    status: str
    stream_time_ms: int


class Case(NamedTuple):
    ledger: LoadedLedger
    log: Callable[[Logged], Awaitable[None]]
    add_entry: Callable[[str, LedgerLines], Awaitable[None]]
    add_replay: Callable[[str, int, int], Awaitable[None]]
    add_dead_letter: Callable[[str | None, int | None, str], Awaitable[None]]


@pytest.fixture(params=["memory", "warehouse"])
async def case(request: pytest.FixtureRequest, warehouse: Warehouse) -> AsyncIterator[Case]:
    if request.param == "memory":
        yield _memory(MemoryLoadedLedger())
        return
    real = WarehouseLedger(warehouse.settings.warehouse_url)
    yield _real(real, warehouse.settings.warehouse_url)
    await real.close()


def _memory(twin: MemoryLoadedLedger) -> Case:
    async def log(row: Logged) -> None:
        if row.status == "loaded":
            twin.load(row.epoch, row.partition, row.number, row.stream_time_ms)
        else:
            twin.quarantine(row.epoch, row.txn_id, row.partition, row.number, row.stream_time_ms)

    async def add_entry(batch_id: str, entry: LedgerLines) -> None:
        twin.add_entry(batch_id, entry)

    async def add_replay(batch_id: str, block: int, attempt: int) -> None:
        twin.add_replay(batch_id, block, attempt)

    async def add_dead_letter(batch_id: str | None, block: int | None, reason: str) -> None:
        if batch_id is not None and block is not None:
            twin.add_dead_letter(batch_id, block, reason)

    return Case(twin, log, add_entry, add_replay, add_dead_letter)


def _real(ledger: WarehouseLedger, url: str) -> Case:
    async def insert(statement: bytes, *values: object) -> None:
        async with await connect(url) as connection:
            await connection.execute(statement, values)

    async def log(row: Logged) -> None:
        await insert(
            b'INSERT INTO analytics.delivery_log (txn_id, epoch, "partition", number, status, "rows", stream_time)'
            b" VALUES (%s, %s, %s, %s, %s, 1, TIMESTAMP 'epoch' + %s * INTERVAL '0.001 second')",
            row.txn_id, row.epoch, *row[2:],
        )  # fmt: skip

    async def add_entry(batch_id: str, entry: LedgerLines) -> None:
        statement = b"INSERT INTO analytics.ledger (txn_id, batch_id, outcome, lines, line_set) VALUES ('t', %s, %s, %s, %s)"
        await insert(statement, batch_id, *entry)

    async def add_replay(batch_id: str, block: int, attempt: int) -> None:
        statement = b"INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t', %s, %s, %s)"
        await insert(statement, batch_id, block, attempt)

    async def add_dead_letter(batch_id: str | None, block: int | None, reason: str) -> None:
        statement = (
            b"INSERT INTO analytics.dead_letters (txn_id, batch_id, block, attempt, source_offset, reason)"
            b" VALUES ('t', %s, %s, 0, 7, %s)"
        )
        await insert(statement, batch_id, block, reason)

    return Case(ledger, log, add_entry, add_replay, add_dead_letter)


async def test_nothing_is_loaded_at_first(case: Case) -> None:
    delivery = await case.ledger.delivery(1)
    assert (delivery.partitions, delivery.quarantined, delivery.number(3)) == ({}, [], 0)
    assert await case.ledger.entries(["b"]) == {}
    assert await case.ledger.replayed_blocks(["b"]) == {}
    assert await case.ledger.entries([]) == {}


async def test_delivery_is_where_its_last_transactions_are(case: Case) -> None:
    await case.log(Logged(1, "1-0-1-a", 0, 1, "loaded", NOW_MS - 1))
    await case.log(Logged(1, "1-0-2-b", 0, 2, "loaded", NOW_MS))
    await case.log(Logged(1, "1-3-1-c", 3, 1, "quarantined", NOW_MS + 7))
    await case.log(Logged(2, "2-0-9-d", 0, 9, "quarantined", NOW_MS))
    delivery = await case.ledger.delivery(1)
    assert delivery.partitions == {0: Delivered(2, NOW_MS), 3: Delivered(1, NOW_MS + 7)}
    assert delivery.quarantined == [Quarantined("1-3-1-c", 3, 1)]
    assert delivery.number(0) == 2


async def test_entries_and_replays_come_by_batch(case: Case) -> None:
    entry, other = LedgerLines("page_views", 3, LINES), LedgerLines("joined", 3, LINES)
    for batch_id, some in (("b1", entry), ("b1", other), ("b2", entry), ("b3", entry)):
        await case.add_entry(batch_id, some)
    found = await case.ledger.entries(["b1", "b2", "o'ther"])
    assert {batch_id: sorted(entries) for batch_id, entries in found.items()} == {"b1": [other, entry], "b2": [entry]}
    for batch_id, block, attempt in (("b1", 0, 0), ("b1", 1, 1), ("b1", 1, 2), ("b1", 4, 3), ("b2", 0, 0), ("b3", 0, 1)):
        await case.add_replay(batch_id, block, attempt)
    assert await case.ledger.replayed_blocks(["b1", "b2"]) == {"b1": frozenset({1, 4})}


async def test_dead_letters_come_by_batch_and_block(case: Case) -> None:
    assert await case.ledger.dead_letters(["b1"]) == {}
    for batch_id, block in (("b1", 3), ("b1", 5), ("b2", 0), (None, None), ("b3", 1)):
        await case.add_dead_letter(batch_id, block, f"FrameInvalid: {batch_id} {block}")
    assert await case.ledger.dead_letters(["b1", "b2", "b4"]) == {
        "b1": {3: "FrameInvalid: b1 3", 5: "FrameInvalid: b1 5"}, "b2": {0: "FrameInvalid: b2 0"}
    }  # fmt: skip


async def test_more_batches_than_a_query_takes(case: Case) -> None:
    names = [f"b{n}" for n in range(1203)]
    for name in (names[0], names[600], names[-1]):
        await case.add_entry(name, LedgerLines("joined", 3, LINES))
    assert set(await case.ledger.entries(names)) == {names[0], names[600], names[-1]}


async def test_a_dropped_connection_is_made_again(warehouse: Warehouse) -> None:
    ledger = WarehouseLedger(warehouse.settings.warehouse_url)
    assert await ledger.entries(["b"]) == {}
    assert ledger._questions._connection is not None
    backend = ledger._questions._connection.info.backend_pid
    assert backend
    await warehouse.query(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{warehouse.settings.bucket}'"
        " AND pid <> pg_backend_pid()"
    )
    with pytest.raises(ServiceUnavailable):
        await ledger.entries(["b"])
    assert await ledger.entries(["b"]) == {}
    await ledger.close()


async def test_a_warehouse_that_is_gone_is_unavailable() -> None:
    ledger = WarehouseLedger(f"postgresql://instream@127.0.0.1:{own_port()}/instream")
    with pytest.raises(ServiceUnavailable):
        await ledger.delivery(1)


async def test_batches_with_ledger_rows_are_listed_by_their_ids(case: Case) -> None:
    for batch_id in ("b2", "b1", "b2", "c1"):
        await case.add_entry(batch_id, LedgerLines("page_views", 3, LINES))
    assert await case.ledger.batches_between("b1", "c1") == ["b1", "b2"]
    assert await case.ledger.batches_between("b2", "d") == ["b2", "c1"]
    assert await case.ledger.batches_between("d", "e") == []
