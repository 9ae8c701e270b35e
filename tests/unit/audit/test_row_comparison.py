"""Rows of a data file against rows of the warehouse."""

import polars as pl
import pytest
from pyroaring import BitMap

from app.core.audit.deep.rows import TransactionOutput, compare_places, compare_rows, normalised
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import FLOWS, OUTPUTS, ColumnKind

OTHER = {ColumnKind.STRING: "other", ColumnKind.INTEGER: 8, ColumnKind.TIMESTAMP: 8, ColumnKind.BOOLEAN: False}
SOME = {ColumnKind.STRING: "some", ColumnKind.INTEGER: 7, ColumnKind.TIMESTAMP: 7, ColumnKind.BOOLEAN: True}


def rows(output: str, lines: list[int], **changes: object) -> pl.DataFrame:
    flow = next(flow for flow in OUTPUTS if flow.name == output)
    records = [{c.name: SOME[c.kind] for c in flow.columns} | {"batch_id": "b", "line": line} | changes for line in lines]
    return pl.DataFrame([[record[name] for name in flow.names] for record in records], frame_schema(output), orient="row")


def told(output: str, expected: pl.DataFrame, found: pl.DataFrame) -> list[tuple[str, list[int]]]:
    what = TransactionOutput(output, "t", "k", 0, 1)
    differences = compare_rows(what, normalised(output, expected), normalised(output, found))
    return [(one.kind.value, one.lines) for one in differences]


COLUMNS = [
    (flow.name, column) for flow in FLOWS for column in flow.columns if column.name not in {"txn_id", "batch_id", "line"}
]


@pytest.mark.parametrize("flow", [flow.name for flow in FLOWS])
def test_a_change_of_any_column_is_seen_and_named(flow):
    expected = rows(flow, [0, 1])
    for column in [column for name, column in COLUMNS if name == flow]:
        for value in (OTHER[column.kind], None):
            found = pl.concat([rows(flow, [0]), rows(flow, [1], **{column.name: value})])
            what = TransactionOutput(flow, "t", "k", 0, 1)
            (one,) = compare_rows(what, normalised(flow, expected), normalised(flow, found))
            assert (one.kind.value, one.lines) == ("rows_changed", [1])
            assert column.name in one.detail


@pytest.mark.parametrize(
    ("expected", "found", "differences"),
    [
        ([0, 1], [1, 0], []),
        ([0, 1], [0], [("rows_lost", [1])]),
        ([0], [0, 0, 0], [("rows_doubled", [0])]),
        ([0], [0, 5], [("rows_foreign", [5])]),
        ([0, 1, 2], [1, 1, 3], [("rows_doubled", [1]), ("rows_foreign", [3]), ("rows_lost", [0, 2])]),
        ([], [4], [("rows_foreign", [4])]),
    ],
)
def test_lost_doubled_and_foreign_rows(expected, found, differences):
    assert told("redirects", rows("redirects", expected), rows("redirects", found)) == differences


def test_a_changed_copy_beside_its_row_is_doubled():
    found = pl.concat([rows("redirects", [0]), rows("redirects", [0], city="other")])
    assert told("redirects", rows("redirects", [0]), found) == [("rows_doubled", [0])]


def test_empty_text_is_null():
    assert told("redirects", rows("redirects", [0], city=""), rows("redirects", [0], city=None)) == []


def test_without_a_file_rows_are_compared_by_the_lines_of_the_ledger():
    what = TransactionOutput("redirects", "t", "k", 0, 1)
    found = rows("redirects", [1, 1, 3])
    answer = compare_places(what, {"b": BitMap([0, 1]), "c": BitMap([9])}, found)
    assert [(one.kind.value, one.batch_id, one.lines) for one in answer] == [
        ("rows_lost", "b", [0]), ("rows_doubled", "b", [1]), ("rows_foreign", "b", [3]), ("rows_lost", "c", [9]),
    ]  # fmt: skip
