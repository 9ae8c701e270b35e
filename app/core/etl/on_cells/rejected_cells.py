"""Rows of flow `rejected` out of cells: bots and malformed lines, kept with the reason (rules J1, J4, J5)."""

from typing import Final

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.etl.cells import Cells
from app.core.etl.classify_cells import ClassifiedCells
from app.core.etl.on_cells.flow_frames import flow_frame
from app.core.etl.on_cells.line_columns import COLUMN_KINDS, LineColumns
from app.core.etl.rejected_rows import BOT, LINE_SCHEMA, MALFORMED, rejected_values
from app.core.events.canonical_json import storable_text
from app.core.formats.arrow_stream import BufferKind, Frame
from app.core.formats.cell_table import Source, repeated, table_of
from app.core.formats.flows import REJECTED
from app.kernels.cells import Ints

_REPEATED: Final = ("kind", "reason", "user_agent")
_RARE: Final = ("ip", "payload")
"""Columns whose values are nearly all distinct."""


class RejectedLines:
    """Makes rows of the lines that a step rejects.

    Args:
        cells: the lines of the step.
        classified: their kinds, and the rejections among them.
        columns: their columns.
        enricher: look-ups; `rejected` has no column of an enrichment today.
    """

    def __init__(self, cells: Cells, classified: ClassifiedCells, columns: LineColumns, enricher: Enricher) -> None:
        self._cells = cells
        self._rejections = classified.rejections
        self._columns = columns
        self._enricher = enricher

    def malformed(self, positions: Ints) -> Frame:
        """A row for each malformed line: its fields that are valid, and its text."""
        return self._rows(MALFORMED, positions, [self._rejections[n].payload or "" for n in positions.tolist()])

    def bots(self, positions: Ints) -> Frame:
        """A row for each bot: the stored line and the rule that named it."""
        starts, ends = self._cells.starts[positions].tolist(), self._cells.starts[positions + 1].tolist()
        arena = self._cells.arena.data
        texts = [str(arena[start : end - 1], "utf-8", "replace") for start, end in zip(starts, ends, strict=True)]
        return self._rows(BOT, positions, [storable_text(text) for text in texts])

    def _rows(self, kind: str, positions: Ints, payloads: list[str]) -> Frame:
        rejections = [self._rejections[n] for n in positions.tolist()]
        made = rejected_values(kind, rejections, payloads)
        columns = {name: repeated(name, COLUMN_KINDS[name], made[name]) for name in _REPEATED}
        rare = table_of({name: (BufferKind.TEXT, made[name]) for name in _RARE})
        lines = np.arange(len(positions))
        columns |= {name: Source(rare, lines, name, BufferKind.TEXT) for name in _RARE}
        columns["event_type"] = Source(self._columns.table, positions, "event_type", BufferKind.TEXT)
        held = self._columns.of(positions, LINE_SCHEMA)
        return flow_frame(REJECTED, len(positions), held, columns, self._enricher)
