"""Whatever text the events bring, a file holds it exactly, and readers that are not ours agree."""

import bz2
import csv
import gzip
import io
from datetime import UTC, datetime, timedelta

import fastavro
import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.flow_files import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS, encode_output, frame_schema
from app.core.formats.flows import OUTPUTS, ColumnKind, Flow, Format
from app.core.formats.read_files import decode_output

NASTY = st.sampled_from([
    "", "\t", "\n", "\r", "\r\n", '"', '""', "\\", "\\.", "a\n\\.\nb", "\\N", "NULL", "null", "\ufffd", "\U0001f600",
    "\u202eright to left \u0627\u0644\u0639\u0631\u0628\u064a\u0629", " lead", "trail ", "\u2028", "\u0085",
    "a\tb\nc\"d", "'",
    "https://example.org/" + "x" * 4076, '{"a": {"b": ["\\"", "\\t", {"c": null}]}}', "true", "1e3", "\x01\x7f", "\v\f",
])  # fmt: skip
TEXT = st.one_of(NASTY, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
INT64 = st.one_of(st.sampled_from([2**63 - 1, -(2**63), 0]), st.integers(-(2**63), 2**63 - 1))
VALUES = {
    ColumnKind.STRING: TEXT,
    ColumnKind.INTEGER: INT64,
    ColumnKind.BOOLEAN: st.booleans(),
    ColumnKind.TIMESTAMP: st.one_of(
        st.sampled_from([MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS, 0, -1]), st.integers(MIN_TIMESTAMP_MS, MAX_TIMESTAMP_MS)
    ),
}
OPEN = {
    Format.TSV_ZSTD: lambda body: zstandard.ZstdDecompressor().decompress(body),
    Format.TSV_GZIP: gzip.decompress,
    Format.TSV_BZIP2: bz2.decompress,
}


def frames(flow: Flow) -> st.SearchStrategy[pl.DataFrame]:
    row = st.tuples(*(st.none() | VALUES[column.kind] for column in flow.columns))
    schema = frame_schema(flow.name)
    return st.lists(row, max_size=6).map(lambda rows: pl.DataFrame(rows, schema=schema, orient="row"))


def without_empty_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Avro files have NULL for an empty text, because COPY makes NULL of it in text files only."""
    rows = [tuple(None if value == "" else value for value in row) for row in frame.iter_rows()]
    return pl.DataFrame(rows, schema=frame.schema, orient="row")


def as_csv_sees_it(kind: ColumnKind, value: object) -> str:
    if value is None:
        return ""
    if kind is ColumnKind.BOOLEAN:
        return "true" if value else "false"
    if kind is ColumnKind.TIMESTAMP:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(str(value)))
        return f"{moment.year:04}-{moment:%m-%d %H:%M:%S.%f}"
    return str(value)


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: flow.name)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_files_read_back_as_they_were_and_others_read_the_same(flow: Flow, data: st.DataObject) -> None:
    drawn = data.draw(frames(flow))
    body = encode_output(flow.name, drawn)
    frame = drawn if flow.format in OPEN else without_empty_texts(drawn)
    assert decode_output(flow.name, body).equals(frame, null_equal=True)
    assert encode_output(flow.name, drawn) == body
    if flow.format in OPEN:
        text = OPEN[flow.format](body).decode()
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
        kinds = [column.kind for column in flow.columns]
        assert found == [[as_csv_sees_it(*cell) for cell in zip(kinds, row, strict=True)] for row in frame.iter_rows()]
    else:
        assert list(fastavro.reader(io.BytesIO(body))) == frame.to_dicts()
