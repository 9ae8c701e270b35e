"""Warehouses with another schema than the catalogue's: no schema, the hand-written one of version 1, and an incomplete
one."""

import asyncio
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg
from click.testing import Result
from typer.testing import CliRunner

from app.cli.main import app
from tests.worlds.warehouse import Warehouse

VERSION_1 = Path(__file__).parents[1] / "data" / "version_1"


async def empty_warehouse(warehouse: Warehouse) -> Warehouse:
    """Another database of the same stack, with only the stand-in's own tables in it; the bucket stays."""
    name = f"e{uuid.uuid4().hex[:12]}"
    await execute(warehouse.stack.url(), f"CREATE DATABASE {name} TEMPLATE instream")
    settings = warehouse.settings.model_copy(update={"warehouse_url": warehouse.stack.url(name)})
    empty = Warehouse(warehouse.stack, settings, warehouse.store)
    await execute(settings.warehouse_url, "DROP SCHEMA analytics CASCADE")
    return empty


async def make_version_1(warehouse: Warehouse) -> None:
    """The schema as `instream init` made it from SQL text: tables and views, no log of changes."""
    await execute(warehouse.settings.warehouse_url, *_statements("tables.sql"), *_statements("views.sql"))


def _statements(name: str) -> list[str]:
    lines = [line for line in (VERSION_1 / name).read_text().splitlines() if not line.lstrip().startswith("--")]
    return [text for text in "\n".join([*lines, ""]).split(";\n") if text.strip(" \n;")]


async def older_warehouse(warehouse: Warehouse) -> Warehouse:
    """A warehouse of version 1 that lacks two columns and a table, and has a column of the operator's own, and a row."""
    older = await empty_warehouse(warehouse)
    await make_version_1(older)
    await execute(
        older.settings.warehouse_url,
        "ALTER TABLE analytics.page_views DROP COLUMN engagement_id",
        "ALTER TABLE analytics.engagements DROP COLUMN reason",
        "DROP TABLE analytics.dead_letters",
        "ALTER TABLE analytics.page_views ADD COLUMN note VARCHAR(9)",
        "INSERT INTO analytics.page_views (batch_id, line, txn_id, url, note) VALUES ('b', 7, 't', 'https://x', 'mine')",
    )
    return older


async def everything(warehouse: Warehouse) -> list[object]:
    """Each column of the schema, and the page views."""
    columns = await warehouse.query(
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'analytics' ORDER BY 1, 2"
    )
    return [columns, await warehouse.query("SELECT batch_id, line, txn_id, url FROM analytics.page_views ORDER BY line")]


async def run_init(warehouse: Warehouse, *words: str) -> Result:
    """The command `instream init` on a warehouse, without a running stack."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "INSTREAM_WAREHOUSE_URL": warehouse.settings.warehouse_url, "INSTREAM_HOME": home,
            "INSTREAM_KAFKA": "127.0.0.1:1", "INSTREAM_BUCKET": "lake",  # nothing is asked there: the warehouse comes first
        }  # fmt: skip
        return await asyncio.to_thread(CliRunner(env=environment).invoke, app, ["init", *words])


async def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements outside of transactions, as an operator does one by one; the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for statement in statements:
            cursor = await connection.execute(statement.encode())
            rows = await cursor.fetchall() if cursor.description else []
    return rows
