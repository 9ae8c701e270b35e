"""The schema of the warehouse is the catalogue's, and no other than when it was written by hand."""

from pathlib import Path

from app.adapters.warehouse_schema import migrate, read_plan
from app.core.delivery.schema_plan import SchemaPlan
from app.core.formats.tables import TABLES
from app.sql import views
from tests.worlds.warehouse import Warehouse
from tests.worlds.warehouse_schema import VERSION_1, empty_warehouse, make_version_1

ADDED: dict[str, set[str]] = {table.name: {c.name for c in table.columns if c.since > 1} for table in TABLES}
"""Table -> the columns that the catalogue has got since version 1."""
_COLUMNS = (
    "SELECT c.table_name, c.column_name, c.data_type, c.character_maximum_length, c.is_nullable, c.column_default "
    "FROM information_schema.columns c "
    "JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
    "WHERE c.table_schema = 'analytics' AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position"
)
Row = tuple[str, ...]


async def columns_of_tables(warehouse: Warehouse) -> list[Row]:
    rows = await warehouse.query(_COLUMNS)
    return [tuple("" if value is None else str(value) for value in row) for row in rows]


def of_version_1() -> list[Row]:
    lines = Path(VERSION_1 / "columns.tsv").read_text().splitlines()
    return [tuple(line.split("\t")) for line in lines]


async def test_tables_are_those_that_were_written_by_hand_but_for_what_was_added(warehouse: Warehouse) -> None:
    columns = await columns_of_tables(warehouse)

    old = of_version_1()
    tables = {row[0] for row in old}
    assert [row for row in columns if row[0] in tables and row[1] not in ADDED[row[0]]] == old
    assert {(row[0], row[1]) for row in columns} == {(table.name, name) for table in TABLES for name in table.names}


async def test_the_text_of_version_1_makes_the_columns_of_version_1(warehouse: Warehouse) -> None:
    old = await empty_warehouse(warehouse)
    await make_version_1(old)

    assert await columns_of_tables(old) == of_version_1()


async def test_creating_the_schema_again_changes_nothing(warehouse: Warehouse) -> None:
    await warehouse.query(
        "INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t','b',0,1) RETURNING 1"
    )
    before = await columns_of_tables(warehouse)

    assert await read_plan(warehouse.settings.warehouse_url) == SchemaPlan()
    assert await migrate(warehouse.settings.warehouse_url) == []

    assert await columns_of_tables(warehouse) == before
    found = await warehouse.query(
        "SELECT table_name FROM information_schema.views WHERE table_schema = 'analytics' ORDER BY 1"
    )
    assert [name for (name,) in found] == sorted(view.name for view in views())
    assert [name for (name,) in found] == [
        "browser_loss", "campaign_profit", "line_fates", "page_view_engagement", "popular_articles", "popular_authors",
        "trends",
    ]  # fmt: skip
