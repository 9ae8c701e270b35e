"""The result of a rebuild, and of its comparison with the warehouse."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import polars as pl
from pyroaring import BitMap

from app.core.formats.step_message import LedgerEntry
from app.core.rebuild.compare import RowDifference

NAMED: Final = 20
"""A report names so many differences, and so many batches, if it is not asked for more."""


class Named(msgspec.Struct, frozen=True):
    """One difference, by its line."""

    kind: str
    """`missing` in the warehouse, `extra` there, `doubled` there, or `changed`."""
    flow: str
    batch_id: str
    line: int
    columns: dict[str, tuple[str | None, str | None]] = {}
    """Of a changed row: column -> the warehouse's value and the rebuild's."""


class Moved(msgspec.Struct, frozen=True):
    """Lines of another outcome."""

    before: str
    """The outcome in the warehouse's ledger."""
    after: str
    """The outcome in the rebuild."""
    lines: int
    first: list[tuple[str, int]]
    """Batch and line of the first ones."""


class FlowDifference(msgspec.Struct):
    """The differences of one flow. Counts are rows."""

    missing: int = 0
    extra: int = 0
    doubled: int = 0
    changed: int = 0
    columns: dict[str, int] = {}
    """Column -> rows with another value in it."""


class RebuildComparison(msgspec.Struct):
    """The differences between the warehouse and the rebuild."""

    most: int = NAMED
    compared: int = 0
    """Batches that were compared."""
    uncovered: int = 0
    """Batches that the warehouse's ledger does not cover once, line by line: they are not compared."""
    named_uncovered: list[str] = []
    not_compared: list[str] = []
    """Columns that were not compared."""
    flows: dict[str, FlowDifference] = {}
    """Flow -> its differences; a flow without any is absent."""
    moved: list[Moved] = []
    first: list[Named] = []
    """The first differences."""

    @property
    def is_equal(self) -> bool:
        """Whether everything that was compared is the same."""
        return not (self.flows or self.moved)

    def add_rows(self, flow: str, found: RowDifference) -> None:
        """Count the differences of some rows."""
        if found.is_empty:
            return
        counts = self.flows.setdefault(flow, FlowDifference())
        for kind, lines in (("missing", found.missing), ("extra", found.extra), ("doubled", found.doubled)):
            setattr(counts, kind, getattr(counts, kind) + len(lines))
            self._name([Named(kind, flow, batch_id, line) for batch_id, line in lines[: self.most]])
        counts.changed += found.rows_changed
        for column, rows in found.changed.items():
            counts.columns[column] = counts.columns.get(column, 0) + rows
        self._name([Named("changed", flow, row.batch_id, row.line, row.columns) for row in found.first_changed])

    def add_moved(self, batch_id: str, moved: dict[tuple[str, str], BitMap]) -> None:
        """Count the lines of a batch that have another outcome."""
        for (before, after), lines in moved.items():
            first = [(batch_id, line) for line in lines[: self.most]]
            known = next((each for each in self.moved if (each.before, each.after) == (before, after)), None)
            if known is None:
                self.moved.append(Moved(before, after, len(lines), first))
            else:
                at, more = self.moved.index(known), [*known.first, *first][: self.most]
                self.moved[at] = Moved(before, after, known.lines + len(lines), more)

    def leave_out(self, batch_id: str) -> None:
        """Count a batch that is not compared."""
        self.uncovered += 1
        if len(self.named_uncovered) < self.most:
            self.named_uncovered.append(batch_id)

    def _name(self, differences: Sequence[Named]) -> None:
        self.first += differences[: self.most - len(self.first)]


class RebuildReport(msgspec.Struct, kw_only=True):
    """The result of a rebuild."""

    since: str
    until: str
    batches: int = 0
    lines: int = 0
    rows: dict[str, int] = {}
    """Flow -> rows that the rebuild made."""
    outcomes: dict[str, int] = {}
    """Outcome -> lines."""
    unregistered: list[str] = []
    """Raw files without an item in the registry: they were never acknowledged, and were left out."""
    damaged: list[str] = []
    """Raw files that are not what was registered; they were left out."""
    schema: str | None = None
    """The schema that has the rows now."""
    loaded: int = 0
    """Rows in it, of all flows and the ledger."""
    difference: RebuildComparison | None = None
    took_s: float = 0.0

    def count(self, rows: Mapping[str, pl.DataFrame], ledger: Sequence[LedgerEntry]) -> None:
        """Count the rows and the lines of a step."""
        for flow, frame in rows.items():
            self.rows[flow] = self.rows.get(flow, 0) + frame.height
        for entry in ledger:
            self.outcomes[entry.outcome] = self.outcomes.get(entry.outcome, 0) + entry.lines

    @property
    def is_whole(self) -> bool:
        """Whether no batch was left out, and nothing differs."""
        compared = self.difference is None or (self.difference.is_equal and not self.difference.uncovered)
        return compared and not self.damaged

    @property
    def without_outcome(self) -> int:
        """Lines of the span that have no outcome: none, if every batch was read."""
        return self.lines - sum(self.outcomes.values())
