"""The same suite over the warehouse (through its stand-in) and the twin in memory: rows as checks of the books read them."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import polars as pl
import pytest

from agents.delivery.load import WarehouseLoad
from app.adapters.loaded_rows import WarehouseRows
from app.adapters.warehouse import to_warehouse
from app.adapters.warehouse_port import LoadedRows, LoadedSpan
from app.clock import SystemClock
from app.core.audit.deep.batches import BatchLedgerRow
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.audit.deep.rows import are_equal, normalised
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import OUTPUTS, ColumnKind
from app.core.formats.transaction_record import TransactionRecord, ready_of
from app.errors import ConfigurationError
from app.testing.memory import MemoryLoadedRows, MemoryWarehouse
from tests.worlds.warehouse import NOW_MS, Warehouse, put_transaction, rows_of

BATCH = "01980000-0000-7000-8000-000000000001"
AWKWARD = ['tab\tand "quotes"', "line\nbreak", "", "NULL", r"\N", "ö€𝄞", " padded ", None]


class Case(NamedTuple):
    rows: LoadedRows
    records: list[TransactionRecord]
    frames: dict[str, pl.DataFrame]


def frame(output: str) -> pl.DataFrame:
    """Rows with every kind of value that a column takes, NULL among them."""
    flow = next(flow for flow in OUTPUTS if flow.name == output)
    given = {}
    for column in flow.columns:
        kinds = {
            ColumnKind.STRING: AWKWARD if column.max_bytes > 40 else ["abc", None] * 4,
            ColumnKind.TIMESTAMP: [NOW_MS, NOW_MS + 1, 0, -1, 253_402_300_799_999, NOW_MS + 999, None, 5],
            ColumnKind.INTEGER: [0, -1, 1, 32767, -32768, 2, None, 7],
            ColumnKind.BOOLEAN: [True, False, None, True, False, None, True, False],
        }
        values = kinds[column.kind]
        if column.required:
            values = ["x" if value in {None, ""} and column.kind is ColumnKind.STRING else value or 0 for value in values]
        given[column.name] = values.__getitem__
    return rows_of(output, 8, **(given | {"batch_id": BATCH, "line": lambda n: n, "kind": "bot", "outcome": "joined"}))


@pytest.fixture(params=["memory", "warehouse"])
async def case(request: pytest.FixtureRequest, warehouse: Warehouse) -> AsyncIterator[Case]:
    frames = {flow.name: frame(flow.name) for flow in OUTPUTS}
    records = [await put_transaction(warehouse, number, frames) for number in (1, 2)]
    memory = MemoryWarehouse(warehouse.store)
    connect = memory.connect if request.param == "memory" else to_warehouse(warehouse.settings)
    load = WarehouseLoad(warehouse.store, connect, warehouse.settings, SystemClock())
    attempt = await load.load([ready_of(record) for record in records], {})
    assert attempt.failure is None
    await load.close()
    if request.param == "memory":
        yield Case(MemoryLoadedRows(memory), records, frames)
        return
    real = WarehouseRows(warehouse.settings.warehouse_url)
    yield Case(real, records, frames)
    await real.close()


async def test_rows_come_back_as_their_file_has_them(case):
    for flow in OUTPUTS:
        found = await case.rows.rows(flow.name, [case.records[0].txn_id, "1-0-9-ff"])
        assert dict(found.schema) == frame_schema(flow.name)
        expected = case.frames[flow.name].with_columns(txn_id=pl.lit(case.records[0].txn_id))
        assert are_equal(normalised(flow.name, found), normalised(flow.name, expected)), flow.name
    assert (await case.rows.rows("redirects", [])).height == 0


async def test_the_log_the_transactions_and_the_rows_of_a_batch(case):
    first, second = case.records
    total = sum(out.rows for out in first.outputs)
    assert await case.rows.log(1, 0, 1, 5) == [
        DeliveryLogRow(record.txn_id, record.number, "loaded", total, record.stream_time_ms) for record in case.records
    ]
    assert await case.rows.log(1, 0, 2, 5) == [DeliveryLogRow(second.txn_id, 2, "loaded", total, second.stream_time_ms)]
    assert await case.rows.log(2, 0, 1, 5) == await case.rows.log(1, 1, 1, 5) == []
    assert await case.rows.transactions("redirects", "", 5) == [(first.txn_id, 8), (second.txn_id, 8)]
    assert await case.rows.transactions("redirects", first.txn_id, 5) == [(second.txn_id, 8)]
    assert await case.rows.transactions("redirects", "", 1) == [(first.txn_id, 8)]
    now_ms = SystemClock().now_ms()
    assert await case.rows.transactions("redirects", "", 5, LoadedSpan(0, now_ms - 3_600_000)) == []
    assert len(await case.rows.transactions("redirects", "", 5, LoadedSpan(now_ms - 3_600_000, now_ms + 3_600_000))) == 2
    found = await case.rows.of_batches("redirects", [BATCH, "other"])
    own = await case.rows.rows("redirects", [first.txn_id, second.txn_id])
    assert are_equal(normalised("redirects", found), normalised("redirects", own))
    assert (await case.rows.of_batches("redirects", ["other"])).height == 0


async def test_rows_are_found_by_ids_and_by_texts_in_payloads(case):
    frame = case.frames["page_views"]
    for column in ("visitor_id", "page_view_id"):
        found = await case.rows.with_ids("page_views", column, [AWKWARD[0], "x", "nobody"])
        values = frame[column].to_list()
        assert found.height == 2 * sum(value in {AWKWARD[0], "x"} for value in values) > 0
    with pytest.raises(ConfigurationError):
        await case.rows.with_ids("page_views", "title", ["x"])
    payloads = case.frames["rejected"]["payload"].to_list()
    for text in ('and "quotes', r"\N", "%", "_", "nobody"):
        assert (await case.rows.payloads(text)).height == 2 * sum(text in (payload or "") for payload in payloads)


async def test_the_ledger_of_batches(case):
    ledger = case.frames["ledger"]
    found = await case.rows.ledger([BATCH, "other"])
    assert list(found) == [BATCH]
    assert sorted(found[BATCH]) == sorted(
        BatchLedgerRow(record.txn_id, "joined", lines, line_set)
        for record in case.records for lines, line_set in ledger.select("lines", "line_set").iter_rows()
    )  # fmt: skip
