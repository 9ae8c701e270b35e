"""The path of a step's lines through cells, arrays and kernels (`app.core.etl.path`)."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.etl.cells import CellReader, Cells
from app.core.etl.classify_cells import CellClassifier
from app.core.etl.on_cells.arrivals import ArrivedLines, Known, route_cells
from app.core.etl.on_cells.emission import emit_cells
from app.core.etl.on_cells.flow_frames import engagement_frame, page_view_frame
from app.core.etl.on_cells.waiting_cells import WaitingCells
from app.core.etl.path import StepParts
from app.core.etl.source import Intake
from app.core.formats.arrow_stream import write_stream
from app.core.formats.step_message import Changes
from app.core.join.close_arrays import REASONS
from app.core.join.join_order import Due
from app.core.join.window_arrays import ArrayWindow, Prepared
from app.core.rules import EtlRules
from app.core.state.tables import MemoryState, StateReader

_OF_WINDOW: Final = frozenset({"views", "pending", "seconds"})
"""The tables from which a window learns."""


class CellPath:
    """Holds the arrays of the open window; everything else is in the tables.

    Args:
        rules: bounds and limits.
        enricher: look-ups, shared by the partitions of a worker.
        state: the partition's tables, read at every step; `pending` and `seconds` are read whole now.
        closed: everything up to here is closed.
    """

    def __init__(self, rules: EtlRules, enricher: Enricher, state: StateReader, closed: Due) -> None:
        self._rules = rules
        self._enricher = enricher
        self._state = state
        self._window = ArrayWindow.load(state, rules.join, closed)
        self._reader = CellReader()
        self._classifier = CellClassifier(enricher)
        self._frames = WaitingCells(state)
        self._prepared: Prepared | None = None

    def is_left_over(self, stream_time_ms: int) -> bool:
        """Whether something is open that is due before `stream_time_ms`."""
        return self._window.leftover(stream_time_ms)

    def holds_open(self, first: int, last: int) -> bool:
        """Whether events of a step whose first block is one of the source messages `first` to `last` wait in the window."""
        return self._window.holds_open(first, last)

    def decide(self, intake: Intake, *, careful: bool) -> Callable[[int], StepParts]:
        """Take the lines of a step's blocks (`StepPath.decide`)."""
        arrived = None
        if intake.blocks:
            reader = self._reader
            cells = reader.read_carefully(intake.blocks, self._rehearse) if careful else reader.read(intake.blocks)
            known = Known(self._state, self._window, self._classifier)
            arrived = route_cells(cells, known, self._rules, self._enricher)
        return lambda budget: self._close(intake, arrived, budget)

    def _close(self, intake: Intake, arrived: ArrivedLines | None, budget: int) -> StepParts:
        number = intake.blocks[0].offset if intake.blocks else -1
        closing = self._window.close(arrived and arrived.admitted, number, intake.stream_time_ms, budget)
        emission = emit_cells(arrived, closing, self._frames, number, self._enricher)
        emission.verify(intake.blocks, arrived, closing)
        pending = arrived and arrived.first_events.packed(closing.kept_firsts)
        stored = closing.changes(pending, arrived and arrived.second_events.packed(closing.kept_seconds))
        changes = [*(arrived.changes if arrived else ()), *stored]
        self._prepared = Prepared(closing, [change for change in changes if change.table in _OF_WINDOW])
        return StepParts(
            rows={flow: write_stream(frame.height, frame.columns) for flow, frame in emission.rows.items()},
            row_counts=emission.row_counts,
            ledger=emission.ledger.entries(),
            changes=changes,
            closed=closing.closed,
            more=closing.more,
        )

    def learn(self, closed: Due, changes: Sequence[Changes]) -> None:
        """Follow a step that counts."""
        self._window.advance(closed, changes, self._prepared)
        self._prepared = None

    def _rehearse(self, cells: Cells) -> None:
        """Put some lines through every later step of their way, and keep nothing."""
        empty = Known(MemoryState(), ArrayWindow(self._rules.join), self._classifier)
        arrived = route_cells(cells, empty, self._rules, self._enricher)
        for _, frame in arrived.rows:
            write_stream(frame.height, frame.columns)
        for events in (arrived.first_events, arrived.second_events):
            events.packed(np.arange(len(events.arrivals.received_ms)))
        if len(first := arrived.first_events.arrivals.received_ms):
            page_view_frame(arrived.first_events.columns(), len(first), {}, np.zeros(len(first), np.int64), self._enricher)
        if len(second := arrived.second_events.arrivals.received_ms):
            held = arrived.second_events.columns()
            engagement_frame(held, REASONS, np.zeros(len(second), np.int64), self._enricher)
