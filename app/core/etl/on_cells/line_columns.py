"""The columns of a step's lines, each from where it lies: the lines' cells, the facts in their agents, their batches."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from app.core.enrich.enrich import AGENT_COLUMNS, ORIGIN_COLUMNS
from app.core.etl.cells import Cells
from app.core.etl.classify_cells import ClassifiedCells
from app.core.etl.field_table import FIELD
from app.core.etl.ledger import BatchLines
from app.core.etl.lines import JUDGED
from app.core.etl.text_facts import LineFacts
from app.core.formats.arrow_stream import BufferKind
from app.core.formats.cell_table import BUFFER_KINDS, NO_LINE, CellTable, Columns, Source, integer_table, table_of
from app.core.formats.flows import FLOWS
from app.kernels.cells import PAD, Ints

COLUMN_KINDS: Final[Mapping[str, BufferKind]] = {
    column.name: BUFFER_KINDS[column.kind] for flow in FLOWS for column in flow.columns
}
"""The kind of each column; flows agree on it."""
_CELLS: Final = frozenset(FIELD) - JUDGED
_AGENT: Final = "user_agent"


class LineColumns:
    """Every column that the lines of a step have themselves.

    Args:
        cells: the lines.
        classified: the facts in their agents and addresses.
        tells_places: whether addresses have a place.
    """

    def __init__(self, cells: Cells, classified: ClassifiedCells, *, tells_places: bool) -> None:
        self.blocks = cells.blocks
        self.table = CellTable(cells.arena[: cells.used + PAD], cells.rec, cells.present, FIELD)
        height = len(cells.present)
        counts = [block.header.lines for block in cells.blocks]
        self.block_of: Ints = np.repeat(np.arange(len(counts)), counts)
        """int64[n]: for each line the place of its block among the step's blocks."""
        shifts = [
            block.header.first_line + block.header.lines - end for block, end in zip(cells.blocks, cells.ends, strict=True)
        ]
        self.numbers: Ints = np.arange(height) + np.array(shifts, np.int64)[self.block_of]
        """int64[n]: for each line its number in its batch."""
        self._batch_ids = [block.header.batch_id for block in cells.blocks]
        self._batches = table_of({"batch_id": (BufferKind.TEXT, self._batch_ids)})
        self._facts = [_facts_of(AGENT_COLUMNS, classified.agents)]
        if tells_places:
            self._facts.append(_facts_of(ORIGIN_COLUMNS, classified.origins))
        self._lines = integer_table("line", self.numbers)

    def of(self, positions: Ints, names: Collection[str]) -> Columns:
        """Those columns that are among `names`, of the lines at some positions in the step."""
        columns = {name: self._source(name, self.table, positions) for name in names if name in _CELLS}
        for table, of_line in self._facts:
            places = of_line[positions]
            columns |= {name: self._source(name, table, places) for name in table.fields if name in names}
        if _AGENT in names:
            # A collector that knows no `key_kind` came with an etl without this column, which must be able to take over.
            has_key = (self.table.present[positions] >> np.uint64(FIELD["key_kind"])) & np.uint64(1) == 1
            columns[_AGENT] = self._source(_AGENT, self.table, np.where(has_key, positions, NO_LINE))
        columns["batch_id"] = self._source("batch_id", self._batches, self.block_of[positions])
        columns["line"] = self._source("line", self._lines, positions)
        return columns

    def batch_lines(self, positions: Ints) -> BatchLines:
        """The batches of the lines at some positions, and their numbers in these."""
        return BatchLines(self._batch_ids, self.block_of[positions], self.numbers[positions])

    @staticmethod
    def _source(name: str, table: CellTable, lines: Ints) -> Source:
        return Source(table, lines, name, COLUMN_KINDS[name])


def _facts_of(names: Sequence[str], facts: LineFacts[Any]) -> tuple[CellTable, Ints]:
    """The facts in some lines as a table, each once; and the place of each line's facts in it."""
    used, of_line = np.unique(facts.numbers, return_inverse=True)
    held = [facts.facts[number] for number in used.tolist()]
    return table_of({name: (BufferKind.TEXT, [getattr(fact, name) for fact in held]) for name in names}), of_line
