"""The rows of a transaction in the warehouse against the rows of its data file (rule A3).

Both come as frames with a flow's columns (`app.core.formats.flow_files.frame_schema`). COPY loads an empty text as NULL, so
both count as NULL here. A row's place is its batch and line; rows of the ledger are found by batch and outcome.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.reconcile import read_lines
from app.core.formats.flows import BY_NAME, DEAD_LETTERS, LEDGER, REPLAYS, ColumnKind

Row = tuple[Any, ...]
Place = tuple[Any, ...]

_PLACES: Final = {
    LEDGER.name: ("batch_id", "outcome"), REPLAYS.name: ("batch_id", "block", "attempt"),
    DEAD_LETTERS.name: ("source_offset",),
}  # fmt: skip
_PLACE: Final = ("batch_id", "line")
SHOWN: Final = 40
"""Longest part of a value in a difference's words."""


class TransactionOutput(NamedTuple):
    """One output of one transaction, as differences name it."""

    output: str
    txn_id: str
    key: str | None
    partition: int
    number: int

    def difference(self, kind: DifferenceKind, detail: str, batch_id: str = "", lines: Iterable[int] = ()) -> Difference:
        """A difference of this output."""
        return Difference(
            kind=kind, batch_id=batch_id, flow=self.output, lines=sorted(set(lines)), detail=detail, txn_id=self.txn_id,
            key=self.key or "", partition=self.partition, number=self.number,
        )  # fmt: skip


def normalised(output: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the flow's columns in their order, and NULL in place of empty texts."""
    return rows.select(_columns(output))


@cache
def _columns(output: str) -> list[pl.Expr]:
    return [
        pl.when(pl.col(column.name) == "").then(None).otherwise(pl.col(column.name)).alias(column.name)
        if column.kind is ColumnKind.STRING else pl.col(column.name)
        for column in BY_NAME[output].columns
    ]  # fmt: skip


def are_equal(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    """Whether two normalised frames have the same rows, each as often, in any order: by 64-bit hashes of the rows."""
    return one.height == other.height and one.hash_rows().sort().equals(other.hash_rows().sort())


def compare_rows(what: TransactionOutput, expected: pl.DataFrame, found: pl.DataFrame) -> list[Difference]:
    """The differences of the warehouse's rows from those of the file, a difference for each kind and batch.

    Args:
        what: the output and its transaction.
        expected: normalised rows of the file.
        found: normalised rows of the warehouse with this transaction's id.
    """
    if are_equal(expected, found):
        return []
    names = expected.columns
    ours, theirs = Counter(expected.iter_rows()), Counter(found.iter_rows())
    missing, surplus = _by_place(what.output, names, ours - theirs), _by_place(what.output, names, theirs - ours)
    known = {_place(what.output, names, row) for row in ours}
    faults = _Faults(what, names)
    for place, rows in surplus.items():
        left = missing.get(place, [])
        for row in rows:
            if row in ours:
                faults.note(DifferenceKind.ROWS_DOUBLED, row)
            elif left:
                faults.note(DifferenceKind.ROWS_CHANGED, left.pop(), row)
            else:
                faults.note(DifferenceKind.ROWS_DOUBLED if place in known else DifferenceKind.ROWS_FOREIGN, row)
    for rows in missing.values():
        for row in rows:
            faults.note(DifferenceKind.ROWS_LOST, row)
    return faults.differences()


def compare_places(what: TransactionOutput, expected: Mapping[str, BitMap], found: pl.DataFrame) -> list[Difference]:
    """As `compare_rows`, of an output whose file cannot be read: by the lines that the ledger names, without the content.

    Args:
        what: the output, one of the six flows.
        expected: batch -> its lines with this outcome in the transaction's ledger.
        found: the warehouse's rows; batch_id and line are enough.
    """
    there: dict[str, Counter[int]] = {}
    for batch_id, line in found.select("batch_id", "line").iter_rows():
        there.setdefault(batch_id, Counter())[line] += 1
    differences = []
    for batch_id in sorted(expected.keys() | there.keys()):
        lines, rows = expected.get(batch_id, BitMap()), there.get(batch_id, Counter())
        for kind, some in (
            (DifferenceKind.ROWS_LOST, lines - BitMap(rows)),
            (DifferenceKind.ROWS_DOUBLED, [line for line, count in rows.items() if count > 1 and line in lines]),
            (DifferenceKind.ROWS_FOREIGN, [line for line in rows if line not in lines]),
        ):
            if some:
                differences.append(what.difference(kind, f"{len(some)} rows, by the ledger", batch_id, some))
    return differences


def foreign_rows(what: TransactionOutput, found: pl.DataFrame, why: str) -> list[Difference]:
    """The differences that rows of a transaction make that must have none in the warehouse."""
    faults = _Faults(what, found.columns, why)
    for row in found.iter_rows():
        faults.note(DifferenceKind.ROWS_FOREIGN, row)
    return faults.differences()


class _Faults:
    """Gathers rows by kind and batch."""

    def __init__(self, what: TransactionOutput, names: Sequence[str], why: str = "") -> None:
        self._what = what
        self._names = names
        self._why = why
        self._lines: dict[tuple[DifferenceKind, str], BitMap] = {}
        self._rows: Counter[tuple[DifferenceKind, str]] = Counter()
        self._words: dict[tuple[DifferenceKind, str], str] = {}

    def note(self, kind: DifferenceKind, row: Row, changed: Row | None = None) -> None:
        """A row (of the file, if the file has it) and, of kind changed, the warehouse's."""
        values = dict(zip(self._names, row, strict=True))
        at = (kind, values["batch_id"] or "")
        self._rows[at] += 1
        self._lines.setdefault(at, BitMap()).update(_lines(self._what.output, values))
        if at not in self._words:
            self._words[at] = _changed(self._names, row, changed) if changed else _where(self._what.output, values)

    def differences(self) -> list[Difference]:
        """One for each kind and batch."""
        found = []
        for (kind, batch_id), count in sorted(self._rows.items()):
            words = self._words[kind, batch_id]
            detail = f"{count} {'row' if count == 1 else 'rows'}" + (f", the first: {words}" if words else "")
            detail += f"; {self._why}" if self._why else ""
            found.append(self._what.difference(kind, detail, batch_id, self._lines[kind, batch_id]))
        return found


def _by_place(output: str, names: Sequence[str], rows: Counter[Row]) -> dict[Place, list[Row]]:
    found: dict[Place, list[Row]] = {}
    for row in rows.elements():
        found.setdefault(_place(output, names, row), []).append(row)
    return found


def _place(output: str, names: Sequence[str], row: Row) -> Place:
    return tuple(row[names.index(name)] for name in _PLACES.get(output, _PLACE))


def _lines(output: str, values: Mapping[str, Any]) -> Iterator[int]:
    if output == LEDGER.name:
        yield from read_lines(values["line_set"] or "") or ()
    elif values.get("line") is not None and values["line"] >= 0:
        yield values["line"]


def _where(output: str, values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in _PLACES.get(output, _PLACE) if name != "batch_id")


def _changed(names: Sequence[str], row: Row, changed: Row) -> str:
    differ = [
        f"{name} is {_short(there)} and should be {_short(here)}"
        for name, here, there in zip(names, row, changed, strict=True)
        if here != there
    ]
    return ", ".join(differ)


def _short(value: object) -> str:
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
