"""Delivery's tests: transactions of page views, a deliverer on the real warehouse stand-in, and the rows that it loaded."""

import random
from functools import partial
from typing import Any

from pyroaring import BitMap

from agents.delivery.deliverer import Deliverer, DeliveryReport
from agents.delivery.load import WarehouseLoad
from app.adapters.warehouse import open_session
from app.clock import SystemClock
from app.core.formats.flow_files import encode_output, ledger_frame
from app.core.formats.step_message import LedgerEntry
from tests.worlds.warehouse import Warehouse, rows_of

BATCH = "01900000-0000-7000-8000-000000000001"


def ledger(lines: range, batch_id: str = BATCH) -> Any:
    entry = LedgerEntry(batch_id, "page_views", len(lines), BitMap(lines).serialize())
    return ledger_frame([entry], "")


def frames(start: int, count: int) -> dict[str, Any]:
    """One page view for each line, and its ledger."""
    views = rows_of("page_views", count, line=lambda n: start + n, batch_id=BATCH, txn_id="", page_view_id="p1")
    return {"page_views": views, "ledger": ledger(range(start, start + count))}


def deliverer_of(warehouse: Warehouse) -> Deliverer:
    settings, clock = warehouse.settings, SystemClock()
    load = WarehouseLoad(warehouse.store, partial(open_session, settings.warehouse_url), settings, clock)
    return Deliverer(warehouse.store, load, settings, clock, random.Random(1))


async def deliver(warehouse: Warehouse) -> DeliveryReport:
    deliverer = deliverer_of(warehouse)
    try:
        return await deliverer.round([0, 1])
    finally:
        await deliverer.close()


async def lines_loaded(warehouse: Warehouse) -> list[int]:
    return [line for (line,) in await warehouse.query("SELECT line FROM analytics.page_views ORDER BY line")]


async def log_of(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return await warehouse.query('SELECT "partition", number, status FROM analytics.delivery_log ORDER BY 1, 2')


def misfit() -> bytes:
    """A file whose text does not fit its column."""
    return encode_output(
        "page_views", rows_of("page_views", 2, country="é" * 65, line=lambda n: n, batch_id=BATCH, txn_id="t")
    )


def other_count() -> bytes:
    """A file with fewer rows than its record says."""
    return encode_output("page_views", rows_of("page_views", 1, line=7, batch_id=BATCH, txn_id="t"))
