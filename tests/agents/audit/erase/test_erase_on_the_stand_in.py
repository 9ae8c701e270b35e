"""An erasure with the real adapters: S3's stand-in, and the SQL of production on the stand-in for Redshift (rule R7)."""

import random
from contextlib import AsyncExitStack

import polars as pl
from pyroaring import BitMap

from agents.audit.deep.audit import audit_deep
from agents.audit.deep.ports import DeepPorts
from agents.audit.erase.erase import ErasureRequest, erase
from agents.audit.erase.ports import ErasePorts
from agents.delivery.load import WarehouseLoad
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.loaded_rows import WarehouseRows
from app.adapters.warehouse import to_warehouse
from app.clock import SystemClock
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.flow_files import ledger_frame
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import ready_of
from app.testing.memory import MemoryRegistry
from tests.builders.events import event, parse, text
from tests.worlds.warehouse import NOW_MS, Warehouse, filler, put_transaction

LINES = ["alice", "bob", "alice", "bob", None, "alice"]
"""The visitor of each line; line 5 is a duplicate."""
ROWS = {"page_views": [0, 1], "ad_clicks": [2, 3], "rejected": [4]}


async def test_rows_files_and_raw_lines_go_and_the_deep_audit_is_content(warehouse: Warehouse) -> None:
    stored = [
        parse(text(event(event_id=f"e{n}", page_view_id=f"p{n}", visitor_id=name)), received_at_ms=NOW_MS)
        for n, name in enumerate(LINES)
    ]
    settings = warehouse.settings.model_copy(update={"partitions": 1})
    sealed = seal(new_batch_id(NOW_MS, random.Random(1).randbytes(10)), 1, 1, stored)
    await warehouse.store.put(sealed.item.raw_key, sealed.raw)
    registry, batch_id = MemoryRegistry(), sealed.batch_id
    await registry.register(sealed.item)
    await registry.complete(batch_id)
    frames = {flow: _rows(flow, batch_id, lines) for flow, lines in ROWS.items()}
    outcomes = {**ROWS, "duplicate": [5]}
    entries = [LedgerEntry(batch_id, name, len(lines), BitMap(lines).serialize()) for name, lines in outcomes.items()]
    records = [
        await put_transaction(warehouse, 1, frames | {"ledger": ledger_frame(entries, "")}),
        await put_transaction(warehouse, 2, {}),
    ]
    async with AsyncExitStack() as stack:
        load = WarehouseLoad(warehouse.store, to_warehouse(settings), settings, SystemClock())
        ledger, rows = WarehouseLedger(settings.warehouse_url), WarehouseRows(settings.warehouse_url)
        for each in (load, ledger, rows):
            stack.push_async_callback(each.close)
        assert (await load.load([ready_of(record) for record in records], {})).failure is None
        deep = DeepPorts(warehouse.store, registry, ledger, rows, None, SystemClock())
        ports = ErasePorts(deep, to_warehouse(settings))
        planned = await erase(ports, settings, ErasureRequest(["alice"]))
        report = await erase(ports, settings, ErasureRequest(["alice"]), apply=True)
        assert report.is_done, report.refused
        assert report.outcomes == planned.outcomes == {"ad_clicks": 1, "duplicate": 1, "page_views": 1}
        assert (report.lines, report.files, report.raw_files) == ({batch_id: 3}, 3, 1)
        assert (await audit_deep(deep, settings)).differences == []
        assert (await erase(ports, settings, ErasureRequest(["alice"]), apply=True)).lines == {}
    for flow, left in {"page_views": [1], "ad_clicks": [3], "rejected": [4]}.items():
        assert await warehouse.query(f"SELECT line FROM analytics.{flow}") == [(line,) for line in left], flow
    told = await warehouse.query("SELECT outcome, sum(lines) FROM analytics.ledger GROUP BY outcome ORDER BY outcome")
    assert told == [("ad_clicks", 1), ("erased", 3), ("page_views", 1), ("rejected", 1)]
    by_line = "SELECT line FROM analytics.line_fates WHERE outcome = 'erased' ORDER BY line"
    assert await warehouse.query(by_line) == [(0,), (2,), (5,)]
    log = await warehouse.query('SELECT "rows" FROM analytics.delivery_log WHERE number = 1')
    assert log == [(3 + 4,)]


def _rows(flow: str, batch_id: str, lines: list[int]) -> pl.DataFrame:
    frame = filler(flow, "", batch_id, len(lines)).with_columns(line=pl.Series(lines, dtype=pl.Int64))
    ids = {name: [f"{mark}{n}" for n in lines] for name, mark in (("event_id", "e"), ("page_view_id", "p"))}
    ids["visitor_id"] = [LINES[n] for n in lines]
    return frame.with_columns(**{name: pl.Series(ids[name], dtype=pl.String) for name in ids if name in frame.columns})
