"""Whatever a row holds, the warehouse has it after the real writers and the real COPY: all formats, ledger included."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.adapters.warehouse import Connection, connect, run
from app.core.delivery import statements
from app.core.formats.flow_files import encode_output, frame_schema
from app.core.formats.flows import OUTPUTS, Column, ColumnKind, Flow
from tests.worlds.warehouse import Warehouse

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
NASTY = [
    r"\N", r"\.", "\\.\n", "NULL", "null", '"', '""', "\t", "a\tb", "\r", "\n", "\r\n", "\r\n\\.\r\n",
    "'", "\\", r"\t", r"\0", ",", "|",
    " ", "  x ", "\ufeff", "\ufffd", "😀", "é" * 20, "\u2028", "\x01\x1f\x7f",
    "\x85", "t", "f", "0", "-1", "{}", '{"a": "\\u0000"}',
]  # fmt: skip
SMALL = {"ad_slot": 3, "scroll_pct": 100}
REQUIRED = {"txn_id", "batch_id", "line", "lines", "line_set", "outcome", "block", "attempt", "kind"}


def cut(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")


def values(column: Column) -> st.SearchStrategy[Any]:
    """What a column may hold; NULL and the empty string too, unless the table wants something."""
    required = column.name in REQUIRED
    if column.kind is ColumnKind.STRING:
        characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
        text = st.one_of(st.sampled_from(NASTY), st.text(characters, max_size=12), st.just("y" * column.max_bytes))
        fitting = text.map(lambda value: cut(value, column.max_bytes))
        return fitting.map(lambda value: value or "z") if required else st.none() | st.just("") | fitting
    if column.kind is ColumnKind.TIMESTAMP:
        return st.none() | st.integers(-62_135_596_800_000, 253_402_300_799_999)
    if column.kind is ColumnKind.BOOLEAN:
        return st.none() | st.booleans()
    most = SMALL.get(column.name, 2 ** (8 * column.integer_bytes - 1) - 1)
    number = st.integers(0 if column.name in SMALL or column.integer_bytes < 8 else -(2**63), most) | st.just(most)
    return number if required else st.none() | number


def expected(column: Column, value: Any) -> Any:
    if column.kind is ColumnKind.TIMESTAMP and value is not None:
        return EPOCH + timedelta(milliseconds=value)
    return None if value == "" else value


async def loaded(
    connection: Connection, warehouse: Warehouse, flow: Flow, rows: list[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """The rows after writer, S3 and COPY; nothing is kept."""
    frame = pl.DataFrame(rows, schema=frame_schema(flow.name), orient="row")
    body = encode_output(flow.name, frame)
    url = await warehouse.put_manifest("m", await warehouse.put_file("f", body), meta={"content_length": len(body)})
    try:
        await run(connection, statements.copy(flow, url, "default"))
        assert await run(connection, statements.COPIED) == [(len(rows),)]
        names = ", ".join(f'"{name}"' for name in flow.names)
        cursor = await connection.execute(f"SELECT {names} FROM {statements.table(flow.name)}".encode())
        return await cursor.fetchall()
    finally:
        await connection.rollback()


def multiset(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: f"{flow.name}-{flow.format.value}")
def test_rows_survive_file_and_copy(kept_warehouse: Warehouse, flow: Flow) -> None:
    row = st.tuples(*(values(column) for column in flow.columns))
    with asyncio.Runner() as runner:
        connection = runner.run(connect(kept_warehouse.settings.warehouse_url))

        # no shrinking: every example is a load, and the texts are short as they are
        @settings(
            phases=[Phase.generate], max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(st.lists(row, min_size=1, max_size=6))
        def survives(rows: list[tuple[Any, ...]]) -> None:
            found = runner.run(loaded(connection, kept_warehouse, flow, rows))
            wanted = [tuple(expected(c, v) for c, v in zip(flow.columns, r, strict=True)) for r in rows]
            assert multiset(found) == multiset(wanted)

        survives()
        runner.run(connection.close())


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: f"{flow.name}-{flow.format.value}")
async def test_every_nasty_text_survives_in_every_text_column(kept_warehouse: Warehouse, flow: Flow) -> None:
    def one(column: Column, n: int, text: str) -> Any:
        if column.kind is ColumnKind.STRING:
            return cut(text, column.max_bytes)
        return {ColumnKind.TIMESTAMP: n, ColumnKind.INTEGER: n, ColumnKind.BOOLEAN: True}[column.kind]

    rows = [tuple(one(column, n, text) for column in flow.columns) for n, text in enumerate(NASTY)]
    async with await connect(kept_warehouse.settings.warehouse_url) as connection:
        found = await loaded(connection, kept_warehouse, flow, rows)
    wanted = [tuple(expected(c, v) for c, v in zip(flow.columns, r, strict=True)) for r in rows]
    assert multiset(found) == multiset(wanted)


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: flow.name)
async def test_a_file_without_rows_loads_nothing(kept_warehouse: Warehouse, flow: Flow) -> None:
    async with await connect(kept_warehouse.settings.warehouse_url) as connection:
        assert await loaded(connection, kept_warehouse, flow, []) == []
