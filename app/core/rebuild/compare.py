"""The difference between rows that a rebuild made and the rows of the warehouse: by flow, line and column.

Two rows are the same row if they have the same batch and line. The transaction of a row, and the time of its load, say how
it came and not what it is, so they are not compared.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.formats.flows import ColumnKind, Flow

KEY: Final = ("batch_id", "line")
NOT_COMPARED: Final = frozenset({*KEY, "txn_id"})
NO_OUTCOME: Final = "none"
"""The outcome of a line that a ledger does not have."""
_SHOWN_CHARACTERS: Final = 200


class ChangedRow(NamedTuple):
    """A row that both sides have, with different values."""

    batch_id: str
    line: int
    columns: dict[str, tuple[str | None, str | None]]
    """Column -> the warehouse's value and the rebuild's, as text; None for NULL."""


class RowDifference(NamedTuple):
    """The difference of some rows of one flow; lines are pairs of batch and line."""

    missing: list[tuple[str, int]]
    """Rows that the rebuild made and the warehouse lacks."""
    extra: list[tuple[str, int]]
    """Rows that the warehouse has and the rebuild did not make."""
    doubled: list[tuple[str, int]]
    """Rows that the warehouse has more than once."""
    changed: Mapping[str, int]
    """Column -> number of rows with another value."""
    rows_changed: int
    first_changed: list[ChangedRow]
    """The first rows with another value."""

    @property
    def is_empty(self) -> bool:
        """Whether the rows are the same."""
        return not (self.missing or self.extra or self.doubled or self.rows_changed)


def comparable(flow: Flow, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a step, or of a file, as the warehouse keeps them: every column of the flow, and NULL for an empty text."""
    made = []
    for column in flow.columns:
        name = column.name
        value = pl.col(name) if name in rows.columns else pl.lit(None)
        value = value.cast(_dtype(column.kind))
        if column.kind is ColumnKind.STRING:
            value = pl.when(value != "").then(value)
        elif column.kind is ColumnKind.TIMESTAMP:
            value = value * 1000
        made.append(value.alias(name))
    return rows.select(made)


def found_rows(flow: Flow, rows: Sequence[Sequence[object]]) -> pl.DataFrame:
    """Rows out of the warehouse, the flow's columns in its order, in the form of `comparable`."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(flow.columns)
    made = []
    for column, values in zip(flow.columns, columns, strict=True):
        if column.kind is ColumnKind.TIMESTAMP:
            made.append(pl.Series(column.name, values, dtype=pl.Datetime("us")).cast(pl.Int64))
        else:
            made.append(pl.Series(column.name, values, dtype=_dtype(column.kind)))
    return pl.DataFrame(made)


def _dtype(kind: ColumnKind) -> pl.DataType:
    """Timestamps are microseconds: the warehouse's resolution."""
    return {ColumnKind.STRING: pl.String(), ColumnKind.BOOLEAN: pl.Boolean()}.get(kind, pl.Int64())


def compare_rows(
    flow: Flow, found: pl.DataFrame, rebuilt: pl.DataFrame, left_out: Collection[str] = (), most: int = 100
) -> RowDifference:
    """Compare rows of a flow.

    Args:
        flow: the flow.
        found: the warehouse's rows, of `found_rows`.
        rebuilt: the rebuild's rows, of `comparable`; each line once.
        left_out: columns that are not compared.
        most: how many changed rows the answer names.
    """
    counted = found.group_by(KEY).len()
    doubled = counted.filter(pl.col("len") > 1)
    missing = rebuilt.join(found, on=KEY, how="anti").select(KEY)
    extra = counted.join(rebuilt, on=KEY, how="anti").select(KEY)
    both = found.join(rebuilt, on=KEY, how="inner", suffix="__made")
    names = [name for name in flow.names if name not in NOT_COMPARED and name not in left_out]
    differs = both.select(*KEY, *(pl.col(name).ne_missing(pl.col(f"{name}__made")).alias(name) for name in names))
    changed = {name: count for name in names if (count := int(differs[name].sum()))}
    rows = differs.select(pl.any_horizontal(names).alias("any"))["any"] if names else pl.Series([], dtype=pl.Boolean)
    first = [_changed(row, names) for row in both.filter(rows).sort(KEY).head(most).iter_rows(named=True)] if changed else []
    return RowDifference(_lines(missing), _lines(extra), _lines(doubled), changed, int(rows.sum()), first)


def _lines(frame: pl.DataFrame) -> list[tuple[str, int]]:
    return [(batch_id, line) for batch_id, line in frame.select(KEY).sort(KEY).iter_rows()]


def _changed(row: Mapping[str, object], names: Iterable[str]) -> ChangedRow:
    pairs = {name: (_shown(row[name]), _shown(row[f"{name}__made"])) for name in names}
    differs = {name: pair for name, pair in pairs.items() if row[name] != row[f"{name}__made"]}
    return ChangedRow(str(row["batch_id"]), int(str(row["line"])), differs)


def _shown(value: object) -> str | None:
    return None if value is None else str(value)[:_SHOWN_CHARACTERS]


Outcomes = Mapping[str, BitMap]
"""Outcome -> lines of one batch."""


def moved_lines(found: Outcomes, rebuilt: Outcomes) -> dict[tuple[str, str], BitMap]:
    """(outcome in the warehouse's ledger, outcome in the rebuild) -> the lines of a batch that differ."""
    every = BitMap.union(*found.values(), *rebuilt.values()) if found or rebuilt else BitMap()
    before = {**found, NO_OUTCOME: every - BitMap.union(*found.values()) if found else every}
    after = {**rebuilt, NO_OUTCOME: every - BitMap.union(*rebuilt.values()) if rebuilt else every}
    pairs = {(old, new): lines & others for old, lines in before.items() for new, others in after.items() if old != new}
    return {pair: lines for pair, lines in pairs.items() if lines}
