"""Avro schemas come from the catalogue: today's are those that were written by hand, and older files can be read."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pytest

from app.core.formats import avro_schema as module
from app.core.formats.avro_schema import avro_schema
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import BY_NAME, FLOWS, Column, ColumnKind, Flow
from app.core.formats.read_files import decode_output
from app.errors import FormatInvalid

VERSION_1 = Path(__file__).parents[2] / "data" / "version_1"
AVRO = [flow.name for flow in FLOWS if flow.format.value.endswith("avro")]


def file_of(schema: dict[str, Any], *records: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, records)
    return file.getvalue()


def test_the_flows_of_version_1_have_their_schemas_as_text() -> None:
    assert sorted(path.stem for path in VERSION_1.glob("*.avsc")) == sorted(AVRO)


@pytest.mark.parametrize("flow", AVRO)
def test_version_1_of_a_schema_is_the_one_that_was_written_by_hand(flow: str) -> None:
    assert avro_schema(flow, 1) == json.loads((VERSION_1 / f"{flow}.avsc").read_text())


@pytest.mark.parametrize("flow", AVRO)
def test_every_column_is_a_field_that_is_null_by_default(flow: str) -> None:
    fields = avro_schema(flow)["fields"]
    assert [field["name"] for field in fields] == list(BY_NAME[flow].names)
    assert all(field["type"][0] == "null" and field["default"] is None for field in fields)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Flow:
    """`rejected` in its next version: a number in the middle, and a text at the end."""
    flow = BY_NAME["rejected"]
    since = flow.version + 1
    number, text = Column("attempts", ColumnKind.INTEGER, since=since), Column("note", max_bytes=64, since=since)
    later = flow._replace(columns=(*flow.columns[:3], number, *flow.columns[3:], text))
    monkeypatch.setitem(BY_NAME, "rejected", later)
    module.schema_of.cache_clear()
    return later


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    module.schema_of.cache_clear()


def test_an_older_version_has_the_columns_that_it_had(newer: Flow) -> None:
    today = newer.version - 1
    names = [field["name"] for field in avro_schema("rejected", today)["fields"]]
    assert names == [name for name in newer.names if name not in {"attempts", "note"}]
    assert avro_schema("rejected") == avro_schema("rejected", newer.version) != avro_schema("rejected", today)


@pytest.mark.usefixtures("newer")
def test_a_file_of_an_older_version_is_read_with_null_for_what_it_lacks() -> None:
    old = file_of(avro_schema("rejected", 1), {"event_id": "e", "kind": "bot", "line": 7, "txn_id": "t"})
    row = decode_output("rejected", old).to_dicts()[0]
    assert row == dict.fromkeys(frame_schema("rejected")) | {"event_id": "e", "kind": "bot", "line": 7, "txn_id": "t"}


@pytest.mark.usefixtures("newer")
def test_a_file_of_a_newer_version_is_read_without_what_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    new = file_of(avro_schema("rejected"), {"event_id": "e", "note": "n", "attempts": 3})
    flow = BY_NAME["rejected"]
    monkeypatch.setitem(BY_NAME, "rejected", flow._replace(columns=tuple(c for c in flow.columns if c.since == 1)))
    module.schema_of.cache_clear()
    assert decode_output("rejected", new)["event_id"].to_list() == ["e"]


def test_a_file_whose_types_are_others_is_refused() -> None:
    schema = avro_schema("rejected")
    fields = [f | {"type": "boolean", "default": False} if f["name"] == "line" else f for f in schema["fields"]]
    with pytest.raises(FormatInvalid):
        decode_output("rejected", file_of(schema | {"fields": fields}, {"event_id": "e", "line": True}))
    with pytest.raises(FormatInvalid):
        decode_output("rejected", file_of(schema | {"name": "ad_clicks"}, {"event_id": "e"}))


def test_what_is_written_names_the_newest_version() -> None:
    from app.core.formats.flow_files import encode_output

    body = encode_output("ad_clicks", pl.DataFrame(schema=frame_schema("ad_clicks")))
    written = fastavro.reader(io.BytesIO(body)).writer_schema
    assert isinstance(written, dict)
    assert [field["name"] for field in written["fields"]] == list(BY_NAME["ad_clicks"].names)
