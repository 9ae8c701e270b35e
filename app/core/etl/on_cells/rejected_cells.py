"""Rows of flow `rejected` out of cells: bots and malformed lines, kept with the reason (rules J1, J4, J5)."""

import numpy as np

from app.core.enrich.bot_agents import EMPTY_USER_AGENT
from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import Enricher
from app.core.etl.cells import Cells
from app.core.etl.classify import Rejection
from app.core.etl.classify_cells import ClassifiedCells
from app.core.etl.on_cells.flow_frames import flow_frame
from app.core.etl.on_cells.line_columns import COLUMN_KINDS, LineColumns
from app.core.etl.rejected_rows import BOT, LINE_SCHEMA, MALFORMED, rejected_values
from app.core.events.canonical_json import storable_text
from app.core.formats.arrow_stream import BufferKind, Frame
from app.core.formats.cell_table import Source, table_of
from app.core.formats.flows import REJECTED
from app.kernels.cells import Ints


class RejectedLines:
    """Makes rows of the lines that a step rejects.

    Args:
        cells: the lines of the step.
        classified: their kinds.
        columns: their columns.
        enricher: look-ups; `rejected` has no column of an enrichment today.
    """

    def __init__(self, cells: Cells, classified: ClassifiedCells, columns: LineColumns, enricher: Enricher) -> None:
        self._cells = cells
        self._classified = classified
        self._columns = columns
        self._enricher = enricher

    def malformed(self, positions: Ints) -> Frame:
        """A row for each malformed line: its fields that are valid, and its text."""
        reasons = self._columns.table.texts("malformed", positions)
        rejections = self._rejections(positions, [reason or "" for reason in reasons])
        payloads = self._columns.table.texts("payload", positions)
        return self._rows(MALFORMED, positions, rejections, [payload or "" for payload in payloads])

    def bots(self, positions: Ints) -> Frame:
        """A row for each bot: the stored line and the rule that named it."""
        starts = self._cells.starts
        arena = memoryview(self._cells.arena)
        lines = [
            bytes(arena[start : end - 1])
            for start, end in zip(starts[positions].tolist(), starts[positions + 1].tolist(), strict=True)
        ]
        payloads = [storable_text(line.decode(errors="replace")) for line in lines]
        return self._rows(BOT, positions, self._rejections(positions, self._rules(positions)), payloads)

    def _rules(self, positions: Ints) -> list[str]:
        """The rule that names each bot, the first of its rules."""
        classified, table = self._classified, self._columns.table
        rules = []
        for driven, key, agent, origin in zip(
            table.integers("webdriver", positions), table.texts("key_kind", positions),
            classified.agents[positions].tolist(), classified.origins[positions].tolist(), strict=True,
        ):  # fmt: skip
            rule = classified.agent_facts[agent].bot_rule
            if rule == EMPTY_USER_AGENT and key == "server":
                rule = None
            network = classified.origin_facts[origin].bot_rule if origin >= 0 else None
            rules.append(WEBDRIVER if driven else rule or network or "")
        return rules

    def _rejections(self, positions: Ints, reasons: list[str]) -> list[Rejection]:
        table = self._columns.table
        columns = [table.texts(name, positions) for name in ("user_agent", "ip", "payload", "event_type")]
        return [Rejection(reason, *facts) for reason, *facts in zip(reasons, *columns, strict=True)]

    def _rows(self, kind: str, positions: Ints, rejections: list[Rejection], payloads: list[str]) -> Frame:
        made = table_of({
            name: (BufferKind.TEXT, values) for name, values in rejected_values(kind, rejections, payloads).items()
        })  # fmt: skip
        lines = np.arange(len(positions))
        columns = {name: Source(made, lines, name, COLUMN_KINDS[name]) for name in made.fields}
        held = self._columns.of(positions, LINE_SCHEMA)
        return flow_frame(REJECTED, len(positions), held, columns, self._enricher)
