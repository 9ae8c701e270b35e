"""Warehouses with another schema than the catalogue's: none at all, and that of version 1, which was written by hand."""

import uuid
from pathlib import Path
from typing import Any

import psycopg

from app.sql import views
from tests.worlds.warehouse import Warehouse

VERSION_1 = Path(__file__).parents[1] / "data" / "version_1"


async def empty_warehouse(warehouse: Warehouse) -> Warehouse:
    """Another database of the same stack, with nothing in it but what the stand-in makes; the bucket stays."""
    name = f"e{uuid.uuid4().hex[:12]}"
    await execute(warehouse.stack.url(), f"CREATE DATABASE {name} TEMPLATE instream")
    settings = warehouse.settings.model_copy(update={"warehouse_url": warehouse.stack.url(name)})
    empty = Warehouse(warehouse.stack, settings, warehouse.store)
    await execute(settings.warehouse_url, "DROP SCHEMA analytics CASCADE")
    return empty


async def make_version_1(warehouse: Warehouse) -> None:
    """The schema as `instream init` made it from SQL text: tables and views, no log of changes."""
    lines = [line for line in (VERSION_1 / "tables.sql").read_text().splitlines() if not line.lstrip().startswith("--")]
    tables = [text for text in "\n".join(lines).split(";\n") if text.strip(" \n;")]
    await execute(warehouse.settings.warehouse_url, *tables, *(view.statement for view in views()))


async def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements outside of transactions, as an operator does one by one; the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for statement in statements:
            cursor = await connection.execute(statement.encode())
            rows = await cursor.fetchall() if cursor.description else []
    return rows
