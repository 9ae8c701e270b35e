"""A warehouse that lacks a table or column: delivery says which and how to mend it, sets nothing aside, and goes on."""

import pytest
from structlog.testing import CapturingLogger

from agents.delivery import deliverer
from agents.delivery.release import Released, release
from app.adapters.warehouse_schema import migrate
from app.core.delivery.load_plan import Failure, FailureClass
from app.core.delivery.schema_found import FoundColumn
from app.errors import LoadDeferred, WarehouseError
from tests.agents.delivery.test_delivery_in_memory import World, misfit
from tests.worlds.warehouse import Warehouse, filler, put_transaction
from tests.worlds.warehouse_delivery import BATCH, deliverer_of, frames, lines_loaded, log_of
from tests.worlds.warehouse_schema import execute

LACKS_URL = "the warehouse lacks column analytics.page_views.url: run `instream init`"


@pytest.fixture
def world() -> World:
    return World()


def without(world: World, table: str, column: str) -> tuple[FoundColumn, ...]:
    """Take a column away; what was there."""
    before = world.warehouse.tables[table]
    world.warehouse.tables[table] = tuple(found for found in before if found.name != column)
    return before


async def test_what_is_missing_is_known_before_the_first_load(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.put(1, range(3))
    before = without(world, "page_views", "url")
    calls: list[str] = []

    async def note(call: str, _: str) -> None:
        calls.append(call)

    world.warehouse.before = note
    monkeypatch.setattr(deliverer, "log", logged := CapturingLogger())
    report = await world.deliver()

    assert report.deferred is not None
    assert report.deferred == Failure(FailureClass.DEFER, "schema", LACKS_URL)
    assert calls == ["connect", "columns", "rollback"]
    assert [(call.args, call.kwargs["detail"]) for call in logged.calls] == [(("load deferred",), LACKS_URL)]
    world.warehouse.tables["page_views"] = before
    assert len((await world.deliver()).loaded) == 1
    assert world.lines == [0, 1, 2]


async def test_columns_are_compared_once(world: World) -> None:
    calls: list[str] = []

    async def note(call: str, _: str) -> None:
        calls.append(call)

    world.warehouse.before = note
    for number in (1, 2, 3):
        await world.put(number, range(3 * number, 3 * number + 3))
        await world.deliver()
    assert calls.count("columns") == 1


async def test_a_column_that_goes_while_delivery_runs_is_named_and_nothing_is_set_aside(world: World) -> None:
    await world.put(1, range(3))
    await world.deliver()
    before = without(world, "page_views", "url")
    for number in (2, 3, 4, 5, 6):
        await world.put(number, range(3 * number, 3 * number + 3))

    reports = [await world.deliver() for _ in range(3)]

    assert [report.deferred and report.deferred.detail for report in reports] == [LACKS_URL] * 3
    assert world.log == [(0, 1, "loaded")]
    world.warehouse.tables["page_views"] = before
    assert len((await world.deliver()).loaded) == 5


async def test_a_log_that_goes_while_delivery_runs_is_named(world: World) -> None:
    await world.put(1, range(3))
    await world.deliver()
    before = world.warehouse.tables.pop("delivery_log")
    await world.put(2, range(3, 6))
    assert [report.deferred.detail for report in [await world.deliver(), await world.deliver()] if report.deferred] == [
        "the warehouse lacks table analytics.delivery_log: run `instream init`"
    ] * 2
    world.warehouse.tables["delivery_log"] = before
    assert len((await world.deliver()).loaded) == 1


async def test_a_statement_that_misses_what_is_there_again_is_told_in_its_own_words(world: World) -> None:
    await world.put(1, range(3))

    async def miss(call: str, _: str) -> None:
        if call == "lock":
            world.warehouse.before = None
            raise WarehouseError("42P01", 'relation "delivery_log" does not exist')

    world.warehouse.before = miss
    report = await world.deliver()
    assert report.deferred is not None
    assert report.deferred.detail == '42P01: relation "delivery_log" does not exist'
    assert len((await world.deliver()).loaded) == 1


async def test_the_log_of_changes_is_nothing_that_a_load_needs(world: World) -> None:
    await world.put(1, range(3))
    del world.warehouse.tables["schema_log"]
    assert len((await world.deliver()).loaded) == 1


async def test_release_says_it_too_and_loads_once_it_is_there(world: World) -> None:
    name = await world.put(1, range(2), damage={"page_views": misfit()})
    await world.put(2, range(2, 4))
    await world.deliver()
    await world.put(1, range(2))
    before = without(world, "page_views", "url")
    with pytest.raises(LoadDeferred, match=r"run `instream init`"):
        await release(*world.ports, name)
    world.warehouse.tables["page_views"] = before
    assert (await release(*world.ports, name)).result is Released.LOADED


# --- on the stand-in


DROPPED = {
    "column": ("ALTER TABLE analytics.page_views DROP COLUMN engagement_id", "column analytics.page_views.engagement_id"),
    "table": ("DROP TABLE analytics.dead_letters", "table analytics.dead_letters"),
    "log": ("DROP TABLE analytics.delivery_log", "table analytics.delivery_log"),
}


@pytest.mark.parametrize("what", DROPPED)
@pytest.mark.parametrize("is_known", [False, True], ids=["before the first load", "while it runs"])
async def test_delivery_goes_on_by_itself_once_init_has_run(warehouse: Warehouse, what: str, *, is_known: bool) -> None:
    url, running = warehouse.settings.warehouse_url, deliverer_of(warehouse)
    statement, place = DROPPED[what]
    if is_known:
        await running.round([0])
    await put_transaction(warehouse, 1, frames(0, 2) | {"dead_letters": filler("dead_letters", "", BATCH, 1)})
    await execute(url, statement)

    reports = [await running.round([0]) for _ in range(2)]
    assert [report.deferred and report.deferred.detail for report in reports] == [
        f"the warehouse lacks {place}: run `instream init`"
    ] * 2

    await migrate(url)
    report = await running.round([0])
    await running.close()
    assert (report.deferred, report.quarantined, len(report.loaded)) == (None, (), 1)
    assert await lines_loaded(warehouse) == [0, 1]
    assert await log_of(warehouse) == [(0, 1, "loaded")]
