"""The schema of the warehouse is the catalogue of what the pipeline writes, both ways."""

from app.adapters.warehouse import create_schema
from app.core.formats.flows import OUTPUTS, Column, ColumnKind
from tests.worlds.warehouse import Warehouse

TYPES = {
    ColumnKind.TIMESTAMP: {"timestamp without time zone"}, ColumnKind.BOOLEAN: {"boolean"},
    ColumnKind.INTEGER: {"bigint", "integer", "smallint"},
}  # fmt: skip
DELIVERY_LOG = [
    "txn_id", "epoch", "partition", "number", "status", "load_id", "rows", "stream_time", "detail", "loaded_at",
]  # fmt: skip


async def columns_of_tables(warehouse: Warehouse) -> dict[str, list[tuple[str, str, int | None]]]:
    rows = await warehouse.query(
        "SELECT c.table_name, c.column_name, c.data_type, c.character_maximum_length FROM information_schema.columns c "
        "JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
        "WHERE c.table_schema = 'analytics' AND t.table_type = 'BASE TABLE' ORDER BY c.table_name, c.ordinal_position"
    )
    tables: dict[str, list[tuple[str, str, int | None]]] = {}
    for table, *column in rows:
        tables.setdefault(table, []).append((column[0], column[1], column[2]))
    return tables


def fits(column: Column, data_type: str, length: int | None) -> bool:
    if column.kind is ColumnKind.STRING:
        return data_type == "character varying" and length == column.max_bytes
    return data_type in TYPES[column.kind]


async def test_tables_are_the_catalogue(warehouse: Warehouse) -> None:
    tables = await columns_of_tables(warehouse)

    assert set(tables) == {flow.name for flow in OUTPUTS} | {"delivery_log"}
    for flow in OUTPUTS:
        *found, last = tables[flow.name]
        assert [name for name, _, _ in found] == list(flow.names)
        assert [c.name for c, (_, kind, length) in zip(flow.columns, found, strict=True) if not fits(c, kind, length)] == []
        assert last == ("loaded_at", "timestamp without time zone", None)
    assert [name for name, _, _ in tables["delivery_log"]] == DELIVERY_LOG


async def test_creating_the_schema_again_changes_nothing(warehouse: Warehouse) -> None:
    await warehouse.query(
        "INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t','b',0,1) RETURNING 1"
    )
    before = await columns_of_tables(warehouse)

    await create_schema(warehouse.settings.warehouse_url)

    assert await columns_of_tables(warehouse) == before
    views = await warehouse.query(
        "SELECT table_name FROM information_schema.views WHERE table_schema = 'analytics' ORDER BY 1"
    )
    assert [name for (name,) in views] == ["campaign_profit", "popular_articles", "popular_authors", "trends"]
