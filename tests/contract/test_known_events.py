"""The same suite over the warehouse (through its stand-in) and the twin in memory: events by their ids."""

from collections.abc import AsyncIterator

import pytest

from agents.delivery.load import WarehouseLoad
from app.adapters.known_events import IDS_PER_QUERY, WarehouseEvents
from app.adapters.warehouse import to_warehouse
from app.adapters.warehouse_port import KnownEvents
from app.clock import SystemClock
from app.core.formats.transaction_record import ready_of
from app.testing.memory import MemoryKnownEvents, MemoryWarehouse
from tests.worlds.warehouse import NOW_MS, Warehouse, put_transaction, rows_of


def id_of(flow: str):
    return lambda n: f"{flow}-{n}"


@pytest.fixture(params=["memory", "warehouse"])
async def events(request: pytest.FixtureRequest, warehouse: Warehouse) -> AsyncIterator[KnownEvents]:
    place = {"batch_id": "b", "line": lambda n: n}
    view = place | {"page_view_id": lambda n: f"v{n}", "received_at": lambda n: NOW_MS + n}
    frames = {
        "page_views": rows_of(
            "page_views", 2, event_id=id_of("pv"), engagement_id=lambda n: "en-0" if not n else None, **view
        ),
        "redirects": rows_of("redirects", 1, event_id=id_of("re"), **place),
        "rejected": rows_of("rejected", 1, event_id=id_of("bot"), kind="bot", **place),
    }
    record = await put_transaction(warehouse, 1, frames)
    memory = MemoryWarehouse(warehouse.store)
    is_memory = request.param == "memory"
    connect = memory.connect if is_memory else to_warehouse(warehouse.settings)
    load = WarehouseLoad(warehouse.store, connect, warehouse.settings, SystemClock())
    assert (await load.load([ready_of(record)], {})).failure is None
    await load.close()
    if is_memory:
        yield MemoryKnownEvents(memory)
        return
    real = WarehouseEvents(warehouse.settings.warehouse_url)
    yield real
    await real.close()


async def test_events_that_counted_are_found_by_their_ids_joined_ones_too(events: KnownEvents) -> None:
    asked = ["pv-0", "pv-1", "en-0", "re-0", "bot-0", "none", "v0"]
    assert sorted(await events.counted(asked), key=str) == sorted(
        [("pv-0", "v0"), ("pv-1", "v1"), ("en-0", "v0"), ("re-0", None), ("bot-0", None)], key=str
    )
    assert await events.counted(["pv-1"]) == [("pv-1", "v1")]
    assert await events.counted([]) == await events.counted(["x"]) == []
    many = [*(f"x{n}" for n in range(IDS_PER_QUERY + 1)), "pv-0"]
    assert await events.counted(many) == [("pv-0", "v0")]


async def test_first_events_are_found_by_their_page_views(events: KnownEvents) -> None:
    assert sorted(await events.first_events(["v0", "v1", "v2", "pv-0"])) == [
        ("v0", "pv-0", NOW_MS),
        ("v1", "pv-1", NOW_MS + 1),
    ]
    assert await events.first_events([]) == []
