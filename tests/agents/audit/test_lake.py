"""The tables of Hive and Athena read the files that the pipeline writes, and their query finds every missing batch."""

import gzip
import json
import re
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.audit.lake import find_missing, judge, lake_of, make_tables
from app.core.formats.athena import statements
from app.core.formats.batch import SealedBatch
from app.core.formats.decoding import LATEST_MS
from app.core.formats.flow_files import encode_output, frame_schema
from app.core.formats.flows import FLOWS, OUTPUTS, ColumnKind
from app.core.formats.object_keys import data_key, export_of, raw_key
from app.core.formats.registry_item import encode_item
from app.errors import ConfigurationError
from app.local.athena.engine import LocalAthena
from app.settings import Settings
from app.sql import missing_batches
from app.testing.memory import MemoryObjectStore
from tests.worlds.audit import START_MS, World, counts

SETTINGS = Settings(bucket="memory")
EXPORT = "20261128T000000/AWSDynamoDB/01-ab"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=12)
VALUES = {
    ColumnKind.STRING: TEXTS,
    ColumnKind.TIMESTAMP: st.integers(0, 4_102_444_800_000),
    ColumnKind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    ColumnKind.BOOLEAN: st.booleans(),
}


async def tables(store: MemoryObjectStore) -> LocalAthena:
    engine = LocalAthena(store)
    await make_tables(engine, SETTINGS)
    return engine


async def exported(world: World) -> str:
    """An export of the registry as DynamoDB writes it."""
    items = [encode_item(item) async for item in world.registry.all_batches()]
    lines = "".join(json.dumps({"Item": item}) + "\n" for item in items)
    await world.store.put(f"registry/{EXPORT}/data/a.json.gz", gzip.compress(lines.encode()))
    await world.store.put(f"registry/{EXPORT}/manifest-summary.json", b"{}")
    return EXPORT


async def missing(world: World, since_ms: int = 0, until_ms: int = LATEST_MS) -> dict[str, tuple[str, int]]:
    found = await find_missing(await tables(world.store), SETTINGS, await exported(world), since_ms, until_ms)
    return {one.batch_id: (one.finding, one.covered_lines) for one in found}


async def cover(world: World, sealed: SealedBatch, *blocks: int) -> None:
    """Committed ledger files of some blocks."""
    for number in blocks:
        await world.commit(sealed.item, number, len(await keys(world.store)) + 1)


async def keys(store: MemoryObjectStore) -> list[str]:
    return [info.key async for info in store.list("data/")]


def read_back(kind: ColumnKind, value: Any) -> Any:
    """A value of a view, as a frame holds it."""
    if kind is not ColumnKind.TIMESTAMP or value is None:
        return value
    return round(value.replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("output", [flow.name for flow in OUTPUTS])
@settings(max_examples=8)
@given(data=st.data())
async def test_a_view_has_every_row_of_the_files_with_the_catalogues_types(output: str, data: st.DataObject) -> None:
    flow = next(flow for flow in OUTPUTS if flow.name == output)
    rows = data.draw(st.lists(st.tuples(*(st.none() | VALUES[column.kind] for column in flow.columns)), max_size=4))
    frame = pl.DataFrame(
        [dict(zip(flow.names, row, strict=True)) | {"txn_id": "1-0-1-ab"} for row in rows], schema=frame_schema(output)
    )
    store = MemoryObjectStore()
    await store.put(data_key(output, "1-0-1-ab", START_MS), encode_output(output, frame))
    found = await (await tables(store)).run(f"SELECT * FROM instream.{output}")
    place = f"{datetime.fromtimestamp(START_MS / 1000, UTC):%Y-%m-%d %H}".split()
    assert [[row["dt"], row["hour"]] for row in found] == [place] * len(rows)
    plain = [tuple(read_back(column.kind, row[column.name]) for column in flow.columns) for row in found]
    assert plain == [tuple(None if value == "" else value for value in row) for row in frame.rows()]


async def test_a_file_of_an_older_version_lacks_only_the_newer_columns() -> None:
    for flow in FLOWS:
        order = [column.since for column in flow.columns]
        assert order == sorted(order) or "avro" in flow.format.value, f"{flow.name}: texts are read by their place"


async def test_a_line_break_in_a_text_costs_only_the_columns_behind_it() -> None:
    schema = frame_schema("page_views")
    row = dict.fromkeys(schema) | {
        "event_id": "e",
        "batch_id": "b",
        "line": 3,
        "txn_id": "t",
        "url": "a\nb",
        "title": "lost",
    }
    store = MemoryObjectStore()
    await store.put(data_key("page_views", "t", START_MS), encode_output("page_views", pl.DataFrame([row], schema=schema)))
    found = await (await tables(store)).run("SELECT event_id, batch_id, line, url, title FROM instream.page_views")
    assert found == [{"event_id": "e", "batch_id": "b", "line": 3, "url": "a", "title": None}]


async def test_raw_lines_are_read_with_the_file_that_holds_them() -> None:
    world = World()
    sealed = await world.batch(5)
    found = await (await tables(world.store)).run(
        "SELECT \"$path\" AS path, json_extract_scalar(line, '$.n') AS n FROM instream.raw_lines"
    )
    assert sorted(row["n"] for row in found) == ["0", "1", "2", "3", "4"]
    assert {row["path"] for row in found} == {f"s3://memory/{raw_key(sealed.item.batch_id, START_MS)}"}


async def test_the_query_names_each_batch_that_is_not_covered_or_not_completed() -> None:
    world = World()
    whole, waits, lacks, nothing, twice, damaged = [await world.batch() for world.at_ms in range(START_MS, START_MS + 6)]
    for sealed in (whole, waits, twice):
        await cover(world, sealed, *range(len(sealed.item.blocks)))
    await cover(world, damaged, 1, 2)
    await cover(world, lacks, 1, 2)
    await cover(world, twice, 0)
    for sealed in (whole, damaged):
        await world.registry.complete(sealed.item.batch_id)
    found = await missing(world)
    assert found == {
        waits.item.batch_id: ("uncompleted", 30),
        lacks.item.batch_id: ("missing", 30 - lacks.item.blocks[0].lines),
        nothing.item.batch_id: ("missing", 0),
        twice.item.batch_id: ("excess", 30 + twice.item.blocks[0].lines),
        damaged.item.batch_id: ("missing", 30 - damaged.item.blocks[0].lines),
    }
    assert list(found) == [each.item.batch_id for each in (waits, lacks, nothing, twice, damaged)], "oldest first"
    assert list(await missing(world, START_MS + 2, START_MS + 4)) == [lacks.item.batch_id, nothing.item.batch_id]


async def test_what_the_query_finds_is_what_the_audit_finds() -> None:
    world = World()
    batches = [await world.batch() for world.at_ms in range(START_MS, START_MS + 4)]
    for number, sealed in enumerate(batches):
        blocks = range(len(sealed.item.blocks))[number:]
        await cover(world, sealed, *blocks)
        world.ledger(sealed.item, *blocks)
    world.later()
    found = await missing(world)
    report = await judge(world.ports, world.settings, list(found))
    assert counts(report) == {"judged": 4, "completed": 1, "replayed": 3}
    await world.auditor.round()
    assert {batch_id for batch_id, (finding, _) in found.items() if finding == "missing"} == set(await missing(world))


async def test_another_epochs_batches_are_nobodys_business() -> None:
    world = World()
    await world.batch(epoch=2)
    assert await missing(world) == {}


def test_every_statement_is_of_one_database_and_safe_to_repeat() -> None:
    made = statements(lake_of(Settings(athena_database="media", bucket="theirs")))
    assert [one.name for one in made] == [
        "media", "raw_lines", "registry_exports",
        *(name for flow in OUTPUTS for name in (f"{flow.name}_files", flow.name)),
    ]  # fmt: skip
    for one in made[1:]:
        assert re.match(rf"CREATE (EXTERNAL TABLE IF NOT EXISTS|OR REPLACE VIEW) media\.{one.name}\b", one.sql)
        assert "s3://theirs/" in one.sql or "CREATE OR REPLACE VIEW" in one.sql


@pytest.mark.parametrize("export", ["", "a' OR '1' = '1", "a b", "a\nb"])
def test_an_export_that_is_no_name_is_refused(export: str) -> None:
    with pytest.raises(ValueError, match="is no export of the registry"):
        missing_batches("instream", export, 1, 0, 1)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT * FROM instream.nothing", "there is no table or view nothing"),
        ("SELECT FROM WHERE", "this is not Athena's SQL"),
        ("SELECT no_such_column FROM instream.ledger", "the query failed"),
        ("DROP TABLE ledger", "a statement drop is not known"),
    ],
)
async def test_what_the_stand_in_cannot_do_is_said(sql: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        await (await tables(MemoryObjectStore())).run(sql)


def test_an_export_is_known_by_its_data() -> None:
    assert export_of(f"registry/{EXPORT}/data/x.json.gz") == EXPORT
    assert export_of(f"registry/{EXPORT}/manifest-files.json") is None
