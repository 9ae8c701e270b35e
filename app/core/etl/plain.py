"""The plain path of a step's lines: an object for each value, columns in polars (`app.core.etl.path`)."""

from collections.abc import Callable, Sequence

from app.core.enrich.enrich import Enricher
from app.core.etl.emit import emit
from app.core.etl.path import StepParts
from app.core.etl.route import Known, RoutedLines, route_lines
from app.core.etl.source import Intake
from app.core.formats.columns import pack_frame
from app.core.formats.step_message import Changes
from app.core.join.join_order import FIRST, SECOND, Due
from app.core.join.window_close import NewFrames, close_due
from app.core.join.window_state import (
    Prepared,
    StoredFrames,
    learn_step,
    left_open,
    load_window,
    prepare,
    window_changes,
)
from app.core.rules import EtlRules
from app.core.state.tables import StateReader


class PlainPath:
    """Holds the index of the open window; everything else is in the tables.

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
        self._window = load_window(state, rules.join, closed)
        self._frames = StoredFrames(state)
        self._prepared: list[Prepared] = []

    def is_left_over(self, stream_time_ms: int) -> bool:
        """Whether something is open that is due before `stream_time_ms`."""
        order = self._window.order
        return bool(order) and order[0].due_ms < stream_time_ms

    def holds_open(self, first: int, last: int) -> bool:
        """Whether events of a step whose first block is one of the source messages `first` to `last` wait in the window."""
        kept = (self._window.first_events, self._window.second_events)
        return any(first <= frame.number <= last for frames in kept for frame in frames.values())

    def decide(self, intake: Intake, *, careful: bool) -> Callable[[int], StepParts]:
        """Take the lines of a step's blocks (`StepPath.decide`)."""
        known = Known(self._state, self._window.joining_keys)
        routed = route_lines(intake.blocks, known, self._rules, self._enricher, careful=careful)
        return lambda budget: self._close(intake, routed, budget)

    def _close(self, intake: Intake, routed: RoutedLines, budget: int) -> StepParts:
        frame_number = intake.blocks[0].offset if intake.blocks else -1
        window = self._window
        new = NewFrames(
            None if routed.first_events is None else window.frame(FIRST, frame_number, routed.first_events),
            None if routed.second_events is None else window.frame(SECOND, frame_number, routed.second_events),
            routed.views,
        )
        closing = close_due(window, new, intake.stream_time_ms, budget)
        emission = emit(routed, closing, self._frames, frame_number, self._enricher)
        opened = left_open(closing, frame_number, routed.first_events, routed.second_events)
        stored = window_changes(window, closing, frame_number, opened)
        emission.verify(intake.blocks, opened)
        self._prepared = prepare(stored, new, closing)
        return StepParts(
            rows={flow: pack_frame(rows) for flow, rows in emission.rows.items()},
            row_counts=emission.row_counts,
            ledger=emission.ledger.entries(),
            changes=[*routed.changes, *stored],
            closed=closing.closed,
            more=closing.more,
        )

    def learn(self, closed: Due, changes: Sequence[Changes]) -> None:
        """Follow a step that counts."""
        learn_step(self._window, closed, changes, self._prepared)
        self._prepared = []
