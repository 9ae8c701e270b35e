"""A trace's questions to the warehouse: the same suite over the real adapter and the twin in memory."""

import random
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

import pytest
from pyroaring import BitMap

from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from app.adapters.loaded_fates import WarehouseFates
from app.adapters.warehouse import open_session
from app.adapters.warehouse_port import LoadedFates, TimeRange
from app.clock import SystemClock
from app.core.audit.reconcile import read_lines
from app.core.audit.trace.facts import RowFacts
from app.core.formats.flow_files import ledger_frame
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import TransactionRecord
from app.errors import ServiceUnavailable
from app.local.stack.ports import own_port
from app.testing.memory import MemoryFates, MemoryWarehouse
from tests.worlds.warehouse import NOW_MS, Warehouse, put_transaction, rows_of
from tests.worlds.warehouse_delivery import BATCH, misfit

OTHER = "01900000-0000-7000-8000-000000000002"
AT = {"batch_id": BATCH, "txn_id": "", "received_at": lambda n: NOW_MS + n, "page_view_id": "v1"}


class Case(NamedTuple):
    fates: LoadedFates
    loaded: TransactionRecord
    refused: TransactionRecord


@pytest.fixture(params=["memory", "warehouse"])
async def case(request: pytest.FixtureRequest, warehouse: Warehouse) -> AsyncIterator[Case]:
    """A transaction that is loaded, and one that the warehouse refuses; both through delivery."""
    memory = MemoryWarehouse(warehouse.store)
    url = warehouse.settings.warehouse_url
    connect = memory.connect if request.param == "memory" else partial(open_session, url)
    entries = [(BATCH, "page_views", [0, 1]), (BATCH, "engagements", [4]), (OTHER, "rejected", [7])]
    frames = {
        "page_views": rows_of(
            "page_views", 2, line=lambda n: n, event_id=lambda n: f"e{n}", engagement_id=lambda n: ["s0", None][n],
            joined=lambda n: n == 0, **AT,
        ),
        "engagements": rows_of("engagements", 1, line=4, event_id="s1", reason="late", **AT),
        "rejected": rows_of("rejected", 1, line=7, kind="bot", reason="webdriver", batch_id=OTHER, txn_id=""),
        "ledger": ledger_frame(
            [LedgerEntry(batch, outcome, len(lines), BitMap(lines).serialize()) for batch, outcome, lines in entries], ""
        ),
    }  # fmt: skip
    loaded = await put_transaction(warehouse, 1, frames)
    refused = await put_transaction(warehouse, 2, {"page_views": frames["page_views"]}, damage={"page_views": misfit()})
    load = WarehouseLoad(warehouse.store, connect, warehouse.settings, SystemClock())
    deliverer = Deliverer(warehouse.store, load, warehouse.settings, SystemClock(), random.Random(1))
    await deliverer.round([0])
    await deliverer.close()
    real = WarehouseFates(url)
    yield Case(MemoryFates(memory) if request.param == "memory" else real, loaded, refused)
    await real.close()


async def test_the_ledger_and_the_rows_of_lines(case: Case) -> None:
    fates, txn = case.fates, case.loaded.txn_id
    before_ms = SystemClock().now_ms() + 1000
    outcomes = await fates.outcomes(BATCH)
    assert {(each.txn_id, each.outcome, each.lines) for each in outcomes} == {
        (txn, "page_views", 2),
        (txn, "engagements", 1),
    }
    assert {line for each in outcomes for line in read_lines(each.line_set) or ()} == {0, 1, 4}
    assert all(NOW_MS < each.loaded_at_ms <= before_ms for each in outcomes)
    assert await fates.outcomes(BATCH[:-1] + "9") == []

    joined = RowFacts(BATCH, 0, txn, "e0", "v1", joined=True, engagement_id="s0")
    alone = RowFacts(BATCH, 1, txn, "e1", "v1", joined=False)
    near = TimeRange(NOW_MS, NOW_MS)
    assert sorted(await fates.rows_of("page_views", BATCH, [0, 1, 4], None)) == [joined, alone]
    assert await fates.rows_of("page_views", BATCH, [0, 1], near) == [joined]
    assert await fates.rows_of("page_views", BATCH, [1], None) == [alone]
    assert await fates.rows_of("engagements", BATCH, [4], None) == [RowFacts(BATCH, 4, txn, "s1", "v1", reason="late")]
    assert await fates.rows_of("rejected", OTHER, [7], None) == [RowFacts(OTHER, 7, txn, reason="webdriver", kind="bot")]
    assert await fates.firsts_of("v1", "s0", None) == await fates.firsts_of("v1", "s0", near) == [joined]
    assert (
        await fates.firsts_of("v1", "s0", TimeRange(NOW_MS + 1, NOW_MS + 9)) == await fates.firsts_of("v2", "s0", None) == []
    )

    assert "page_views" in (await fates.refusal(case.refused.txn_id) or "")
    assert await fates.refusal(txn) is None
    assert await fates.refusal("no transaction") is None


async def test_a_warehouse_that_does_not_answer() -> None:
    fates = WarehouseFates(f"postgresql://instream@127.0.0.1:{own_port()}/instream")
    with pytest.raises(ServiceUnavailable):
        await fates.outcomes(BATCH)
