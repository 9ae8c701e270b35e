"""Delivery on the warehouse in memory: what is ready, what is bad, and what becomes of it (rules D1, D2)."""

import random
from typing import Any

import pytest
from pyroaring import BitMap

from agents.delivery.deliverer import Deliverer, DeliveryReport
from agents.delivery.load import WarehouseLoad
from agents.delivery.release import Released, release
from app.core.formats.flow_files import encode_output, ledger_frame
from app.core.formats.flows import OUTPUTS
from app.core.formats.step_message import LedgerEntry
from app.errors import AccessDenied, LoadRejected, WarehouseError
from app.settings import Settings
from app.testing.memory import MemoryObjectStore, MemoryWarehouse
from tests.worlds.sink import StandingClock
from tests.worlds.warehouse import Warehouse, put_transaction, rows_of

BATCH = "01900000-0000-7000-8000-000000000001"


class World:
    """A bucket, a warehouse in memory, and one deliverer."""

    def __init__(self) -> None:
        store, settings, clock = MemoryObjectStore(), Settings(partitions=2), StandingClock()
        self.place = Warehouse(None, settings, store)  # type: ignore[arg-type] - nothing runs but the bucket
        self.warehouse = MemoryWarehouse(store)
        load = WarehouseLoad(store, self.warehouse.connect, settings, clock)
        self.deliverer = Deliverer(store, load, settings, clock, random.Random(1))
        self.ports = (store, self.warehouse.connect, settings, clock)

    async def put(self, number: int, lines: range, partition: int = 0, **how: Any) -> str:
        """A transaction with a page view a line, and its ledger; its id."""
        views = rows_of("page_views", len(lines), line=lambda n: lines[n], batch_id=BATCH, txn_id="")
        entry = LedgerEntry(BATCH, "page_views", len(lines), BitMap(lines).serialize())
        frames = {"page_views": views, "ledger": ledger_frame([entry], "")}
        return (await put_transaction(self.place, number, frames, partition, **how)).txn_id

    async def deliver(self) -> DeliveryReport:
        return await self.deliverer.round([0, 1])

    @property
    def lines(self) -> list[int]:
        return sorted(row["line"] for row in self.warehouse.rows("page_views"))

    @property
    def log(self) -> list[tuple[int, int, str]]:
        return sorted((row.partition, row.number, row.status) for row in self.warehouse.log)


def misfit() -> bytes:
    """A file whose text does not fit its column."""
    return encode_output("page_views", rows_of("page_views", 2, country="é" * 65, line=lambda n: n, txn_id="t"))


def other_count() -> bytes:
    """A file with fewer rows than its record says."""
    return encode_output("page_views", rows_of("page_views", 1, line=7, txn_id="t"))


async def test_what_is_ready_is_loaded_once_up_to_the_first_that_is_not() -> None:
    world = World()
    await world.put(1, range(2))
    await put_transaction(world.place, 2, {})
    await world.put(3, range(20, 22), ready=False)
    await world.put(1, range(10, 12), partition=1)
    assert len((await world.deliver()).loaded) == 3
    assert await world.deliver() == DeliveryReport()
    assert world.log == [(0, 1, "loaded"), (0, 2, "loaded"), (1, 1, "loaded")]
    assert world.lines == [0, 1, 10, 11]


async def test_each_load_has_a_name_and_manifests_of_its_own_even_within_a_millisecond() -> None:
    world = World()
    for number in range(1, 4):
        await world.put(number, range(10 * number, 10 * number + 2))
        await world.deliver()
    names = [row.load_id for row in world.warehouse.log]
    assert len(set(names)) == 3
    manifests = [[info.key async for info in world.place.store.list(f"loads/{name}/")] for name in names]
    assert [len(found) for found in manifests] == [2, 2, 2]


async def test_every_output_is_loaded_even_of_a_transaction_without_rows_of_a_flow() -> None:
    world = World()
    whole = {flow.name: rows_of(flow.name, 2, batch_id=BATCH, txn_id="") for flow in OUTPUTS}
    bare = {name: whole[name] for name in ("ledger", "replays")}
    await put_transaction(world.place, 1, whole)
    await put_transaction(world.place, 2, bare)
    assert len((await world.deliver()).loaded) == 2
    expected = {flow.name: 4 if flow.name in bare else 2 for flow in OUTPUTS}
    assert {flow.name: len(world.warehouse.rows(flow.name)) for flow in OUTPUTS} == expected


@pytest.mark.parametrize("body", [misfit(), other_count(), b"no zstd frame"], ids=["misfit", "count", "unreadable"])
async def test_a_bad_file_sets_only_its_transaction_aside(body: bytes) -> None:
    world = World()
    names = [
        await world.put(n, range(10 * n, 10 * n + 2), damage={"page_views": body} if n == 3 else {}) for n in range(1, 6)
    ]
    report = await world.deliver()
    assert (report.quarantined, len(report.loaded), report.deferred) == ((names[2],), 4, None)
    assert world.lines == [10, 11, 20, 21, 40, 41, 50, 51]
    assert (0, 3, "quarantined") in world.log


async def test_a_search_that_is_interrupted_again_and_again_ends() -> None:
    world = World()
    names = [
        await world.put(n, range(10 * n, 10 * n + 2), damage={"page_views": other_count()} if n in {5, 12} else {})
        for n in range(1, 17)
    ]
    copies = 0

    async def refuse(call: str, _: str) -> None:
        nonlocal copies
        copies += call == "copy"
        if call == "copy" and copies % 5 == 0:
            raise WarehouseError("53100", "Disk Full")

    world.warehouse.before = refuse
    reports = [await world.deliver()]
    while reports[-1].deferred is not None:
        assert len(reports) < 30, "every interrupted search begins anew"
        reports.append(await world.deliver())
    assert reports[-1].quarantined == (names[4], names[11])
    assert len(reports) > 2
    assert len(world.lines) == 2 * 14


@pytest.mark.parametrize("side", ["before", "after"])
async def test_an_unanswered_commit_is_looked_up_at_once(side: str) -> None:
    world = World()
    await world.put(1, range(3))

    async def cut(call: str, _: str) -> None:
        if call == "commit":
            setattr(world.warehouse, side, None)
            raise WarehouseError(None, "connection lost")

    setattr(world.warehouse, side, cut)
    report = await world.deliver()
    assert (len(report.loaded), report.deferred) == (1, None)
    assert (world.lines, world.log) == ([0, 1, 2], [(0, 1, "loaded")])


async def test_a_load_locks_before_it_reads_and_lets_go_of_everything_behind_it() -> None:
    world = World()
    await world.put(1, range(3))
    calls: list[str] = []

    async def note(call: str, _: str) -> None:
        calls.append(call)

    world.warehouse.before = note
    await world.deliver()
    first = calls.index("lock")
    assert calls[:first] == ["connect", "columns", "positions", "rollback"], (
        "where the walk begins is a transaction of its own"
    )
    assert calls[first:] == [
        "lock", "positions", "copy", "copied", "copy", "copied", "insert_log", "commit", "rollback",
        "lock", "positions", "prune_log", "commit", "rollback",  # once a day, behind the loads (rule D6)
    ]  # fmt: skip


async def test_release_loads_a_mended_transaction_whole_and_once() -> None:
    world = World()
    name = await world.put(1, range(2), damage={"page_views": misfit()})
    await world.put(2, range(2, 4))
    await world.deliver()
    with pytest.raises(LoadRejected, match="country"):
        await release(*world.ports, name)
    await world.put(1, range(2))  # the file is what it should have been
    assert (await release(*world.ports, name)).result is Released.LOADED
    assert (await release(*world.ports, name)).result is Released.ALREADY_LOADED
    assert (world.lines, world.log) == ([0, 1, 2, 3], [(0, 1, "loaded"), (0, 2, "loaded")])


async def test_release_refuses_lines_that_the_ledger_has() -> None:
    world = World()
    name = await world.put(1, range(2), damage={"page_views": misfit()})
    await world.put(2, range(1, 4))
    await world.deliver()
    await world.put(1, range(2))
    answer = await release(*world.ports, name)
    assert (answer.result, answer.present) == (Released.LINES_PRESENT, {BATCH: 1})
    assert world.lines == [1, 2, 3]


async def test_a_missing_permission_ends_the_round_and_is_no_deferral(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.put(1, range(2))

    async def denied(key: str) -> bytes:
        raise AccessDenied(f"GetObject {key}: 403")

    monkeypatch.setattr(world.place.store, "get", denied)
    with pytest.raises(AccessDenied):
        await world.deliver()
    monkeypatch.undo()
    await world.deliver()
    assert world.lines == [0, 1]
