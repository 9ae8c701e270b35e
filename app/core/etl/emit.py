"""The output of a step: the rows of each flow, the ledger, and the proof that no line is missing (rules J1, E9)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from app.core.enrich.enrich import Enricher
from app.core.etl.conservation import verify_lines, verify_rows
from app.core.etl.flow_rows import PENDING_COLUMNS, SECONDS_COLUMNS, engagement_rows, page_view_rows, take_rows
from app.core.etl.ledger import StepLedger, lines_by_batch
from app.core.etl.route import RoutedLines
from app.core.formats.columns import stack
from app.core.formats.flows import DUPLICATE, ENGAGEMENTS, ERASED, JOINED, PAGE_VIEWS
from app.core.formats.source import AcceptedBlock
from app.core.join.join_order import FIRST, SECOND
from app.core.join.window_close import Closing
from app.core.join.window_state import LeftOpen, StoredFrames


class Emission(NamedTuple):
    """The rows and the ledger of a step."""

    rows: Mapping[str, pl.DataFrame]
    """Flow -> its rows; a flow without rows is absent."""
    ledger: StepLedger
    joined: int
    """Second events that are part of a first event's row."""
    dropped: Mapping[str, int]
    """Outcome -> lines that become nothing: duplicates and erased lines."""
    closed_before: int
    """Events that the step closes or joins out of frames of earlier steps."""

    @property
    def row_counts(self) -> dict[str, int]:
        """Flow -> number of its rows."""
        return {flow: rows.height for flow, rows in self.rows.items()}

    def verify(self, blocks: Sequence[AcceptedBlock], opened: LeftOpen) -> None:
        """See that the step accounts for each line once and emits as many rows as its ledger says (rule E9).

        Args:
            blocks: the blocks that the step takes.
            opened: the events that the step brings and leaves in the window.

        Raises:
            ConservationBroken: the step does not.
        """
        left_open = [lines for frame in opened.frames for lines in lines_by_batch(frame).items()]
        verify_lines(blocks, self.ledger, left_open, self.closed_before)
        verify_rows(self.ledger, self.row_counts, self.joined, self.dropped)


def emit(routed: RoutedLines, closing: Closing, frames: StoredFrames, frame_number: int, enricher: Enricher) -> Emission:
    """The rows of each flow, first of events that arrived, then of events that closed; and the ledger of all of them.

    Args:
        routed: the lines of the step's blocks.
        closing: what closes in the step.
        frames: the events in the window.
        frame_number: number of the frames that the step brings.
        enricher: look-ups.
    """
    ledger = StepLedger()
    rows: dict[str, list[pl.DataFrame]] = {}
    for flow, part in routed.rows:
        rows.setdefault(flow, []).append(part)
    for outcome, lines in routed.outcomes:
        ledger.add_part(lines, outcome)
    if routed.late is not None:
        rows.setdefault(ENGAGEMENTS.name, []).append(routed.late)
        ledger.add(routed.late, ENGAGEMENTS.name)
    joined = [place for place in closing.joined if place]
    taken: Mapping[int, pl.DataFrame] = {}
    if joined or closing.second_events:
        taken = frames.fetch(SECOND, [*joined, *closing.second_events], (frame_number, routed.second_events))
    if closing.first_events:
        held = frames.fetch(FIRST, closing.first_events, (frame_number, routed.first_events))
        first_events = take_rows(held, closing.first_events, PENDING_COLUMNS)
        second_events = take_rows(taken, closing.joined, SECONDS_COLUMNS) if joined else None
        rows.setdefault(PAGE_VIEWS.name, []).append(page_view_rows(first_events, second_events, enricher))
        ledger.add(first_events, PAGE_VIEWS.name)
        if second_events is not None:
            ledger.add(second_events, JOINED)
    if closing.second_events:
        unjoined = take_rows(taken, closing.second_events, SECONDS_COLUMNS)
        rows.setdefault(ENGAGEMENTS.name, []).append(engagement_rows(unjoined, closing.reasons))
        ledger.add(unjoined, ENGAGEMENTS.name)
    closed = [*closing.first_events, *closing.second_events, *joined]
    return Emission(
        rows={flow: stack(parts) for flow, parts in rows.items()},
        ledger=ledger,
        joined=len(joined),
        dropped={
            name: sum(len(lines) for outcome, lines in routed.outcomes if outcome == name) for name in (DUPLICATE, ERASED)
        },
        closed_before=sum(number != frame_number for number, _ in closed),
    )
