"""The output of a step on cells: the rows of each flow, the ledger, and the proof that no line is missing (rules J1, E9)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.etl.conservation import verify_lines, verify_rows
from app.core.etl.flow_rows import ROW_SCHEMAS
from app.core.etl.ledger import StepLedger
from app.core.etl.on_cells.arrivals import ArrivedLines, OwnEvents
from app.core.etl.on_cells.flow_frames import engagement_frame, page_view_frame
from app.core.etl.on_cells.waiting_cells import WaitingCells
from app.core.formats.arrow_stream import Frame, stack_frames
from app.core.formats.flows import DUPLICATE, ENGAGEMENTS, ERASED, JOINED, PAGE_VIEWS
from app.core.formats.source import AcceptedBlock
from app.core.join.close_arrays import REASONS, WindowStep
from app.core.join.join_order import FIRST, SECOND
from app.errors import IllegalMove

_DROPPED: Final = (DUPLICATE, ERASED)


class Emission(NamedTuple):
    """The rows and the ledger of a step."""

    rows: Mapping[str, Frame]
    """Flow -> its rows; a flow without rows is absent."""
    ledger: StepLedger
    joined: int
    """Second events that are part of a first event's row."""
    dropped: Mapping[str, int]
    """Outcome -> lines that become nothing: duplicates and erased lines."""

    @property
    def row_counts(self) -> dict[str, int]:
        """Flow -> number of its rows."""
        return {flow: rows.height for flow, rows in self.rows.items()}

    def verify(self, blocks: Sequence[AcceptedBlock], arrived: ArrivedLines | None, closing: WindowStep) -> None:
        """See that the step accounts for each line once and emits as many rows as its ledger says (rule E9).

        Args:
            blocks: the blocks that the step takes.
            arrived: their lines.
            closing: the events that close, and those that the step leaves in the window.

        Raises:
            ConservationBroken: the step does not.
        """
        kept = [] if arrived is None else [
            (arrived.first_events, closing.kept_firsts), (arrived.second_events, closing.kept_seconds)
        ]  # fmt: skip
        left_open = [lines for events, places in kept for lines in events.batch_lines(places).by_batch()]
        verify_lines(blocks, self.ledger, left_open, closing.closed_before)
        verify_rows(self.ledger, self.row_counts, self.joined, self.dropped)


def emit_cells(
    arrived: ArrivedLines | None, closing: WindowStep, frames: WaitingCells, frame_number: int, enricher: Enricher
) -> Emission:
    """The rows of each flow, first of events that arrived, then of events that closed; and the ledger of all of them.

    Args:
        arrived: the lines of the step's blocks; None without blocks.
        closing: the events that close.
        frames: the events in the window.
        frame_number: number of the frames that the step brings.
        enricher: look-ups.
    """
    ledger = StepLedger()
    rows: dict[str, list[Frame]] = {}
    for flow, frame in arrived.rows if arrived else ():
        rows.setdefault(flow, []).append(frame)
    outcomes = arrived.outcomes if arrived else []
    for outcome, lines in outcomes:
        ledger.add_lines(lines, outcome)
    takes = closing.joined_rows >= 0
    taken = unjoined = None
    if takes.any() or len(closing.second_rows):
        numbers = np.concatenate([closing.joined_frames, closing.second_frames])
        places = np.concatenate([closing.joined_rows, closing.second_rows])
        own = frame_number, _maker(arrived and arrived.second_events)
        found = frames.fetch(SECOND, numbers, places, own)
        count = len(closing.joined_rows)
        taken, unjoined = found.where(slice(0, count)), found.where(slice(count, None))
    if len(closing.first_rows):
        own = frame_number, _maker(arrived and arrived.first_events)
        first_events = frames.fetch(FIRST, closing.first_frames, closing.first_rows, own)
        held = first_events.columns(ROW_SCHEMAS[PAGE_VIEWS.name])
        of_seconds = taken.columns(ROW_SCHEMAS[ENGAGEMENTS.name]) if taken is not None and takes.any() else {}
        frame = page_view_frame(held, len(takes), of_seconds, takes.astype(np.int64), enricher)
        rows.setdefault(PAGE_VIEWS.name, []).append(frame)
        ledger.add_lines(first_events.batch_lines(), PAGE_VIEWS.name)
        if taken is not None and takes.any():
            ledger.add_lines(taken.where(takes).batch_lines(), JOINED)
    if unjoined is not None and len(unjoined.lines):
        held = unjoined.columns(ROW_SCHEMAS[ENGAGEMENTS.name])
        rows.setdefault(ENGAGEMENTS.name, []).append(engagement_frame(held, REASONS, closing.reasons, enricher))
        ledger.add_lines(unjoined.batch_lines(), ENGAGEMENTS.name)
    return Emission(
        rows={flow: stack_frames(parts) for flow, parts in rows.items()},
        ledger=ledger,
        joined=int(takes.sum()),
        dropped={name: sum(len(lines.numbers) for outcome, lines in outcomes if outcome == name) for name in _DROPPED},
    )


def _maker(events: OwnEvents | None) -> Callable[[], Frame]:
    """A function that makes the frame of a step's own events; nothing asks it where there are none."""
    return _no_frame if events is None else events.frame


def _no_frame() -> Frame:
    raise IllegalMove("a step without blocks has no frame of its own")
