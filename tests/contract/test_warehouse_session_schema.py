"""What a session says of the schema, and what it does where something is missing: the twin as the real warehouse."""

from collections.abc import Awaitable, Callable

import pytest

from app.adapters.warehouse_port import WarehouseSession
from app.core.delivery.schema_found import found_as, lacking
from app.core.formats.flows import PAGE_VIEWS
from app.core.formats.tables import TABLES
from app.errors import WarehouseError
from tests.worlds.warehouse import Warehouse
from tests.worlds.warehouse_session import Case, memory_case, real_case, row, views


class Schema:
    async def test_a_warehouse_has_the_tables_of_the_catalogue(self, case: Case) -> None:
        session = await case.open()
        found = await session.columns()
        assert {name: list(columns) for name, columns in found.items()} == {
            table.name: [found_as(column) for column in table.columns] for table in TABLES
        }
        assert lacking(found) is None
        await session.close()

    async def test_what_is_taken_away_is_missing(self, case: Case) -> None:
        await case.take_away("page_views", "url")
        await case.take_away("replays", None)
        session = await case.open()
        found = await session.columns()
        assert "replays" not in found
        assert [c.name for c in found["page_views"]] == [n for n in (*PAGE_VIEWS.names, "loaded_at") if n != "url"]
        assert lacking(found) == "the warehouse lacks column analytics.page_views.url and 1 more: run `instream init`"
        await session.close()

    @pytest.mark.parametrize(("column", "sqlstate"), [("url", "42703"), (None, "42P01")])
    async def test_a_copy_says_what_is_missing_and_blames_no_file(
        self, case: Case, column: str | None, sqlstate: str
    ) -> None:  # fmt: skip
        await case.take_away("page_views", column)
        session = await case.open()
        with pytest.raises(WarehouseError) as caught:
            await session.copy(PAGE_VIEWS, await case.put("m", views(2)))
        assert caught.value.sqlstate == sqlstate
        await session.rollback()
        assert await session.load_error() is None
        await session.close()

    @pytest.mark.parametrize(
        "ask", [lambda s: s.lock(), lambda s: s.positions(1), lambda s: s.insert_log([row(1)]), lambda s: s.log_status("t")]
    )
    async def test_without_delivery_log_nothing_that_needs_it_goes(
        self, case: Case, ask: Callable[[WarehouseSession], Awaitable[object]]
    ) -> None:
        await case.take_away("delivery_log", None)
        session = await case.open()
        with pytest.raises(WarehouseError) as caught:
            await ask(session)
        assert caught.value.sqlstate == "42P01"
        await session.close()


class TestSchemaInMemory(Schema):
    @pytest.fixture
    def case(self) -> Case:
        return memory_case()


class TestSchemaOnTheStandIn(Schema):
    @pytest.fixture
    def case(self, warehouse: Warehouse) -> Case:
        return real_case(warehouse)
