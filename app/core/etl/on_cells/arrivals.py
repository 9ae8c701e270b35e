"""The first half of a step on cells: its blocks' lines become rows, or go into the window (rule J1)."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.etl.cells import Cells
from app.core.etl.classify import EMITTED_TYPES, LineKind
from app.core.etl.classify_cells import CellClassifier, ClassifiedCells
from app.core.etl.dedup_digests import ValidDigests, find_duplicate_digests
from app.core.etl.field_table import FIELD
from app.core.etl.flow_rows import ROW_SCHEMAS
from app.core.etl.ledger import BatchLines
from app.core.etl.on_cells.flow_frames import engagement_frame, flow_frame
from app.core.etl.on_cells.line_columns import LineColumns
from app.core.etl.on_cells.rejected_cells import RejectedLines
from app.core.etl.on_cells.waiting_cells import event_sizes, pack_waiting, schema_of
from app.core.formats.arrow_stream import Frame
from app.core.formats.cell_table import Columns, gather
from app.core.formats.flows import DUPLICATE, ENGAGEMENTS, ERASED, REJECTED
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.join.admit_arrays import Admitted, Arrivals, BlockTimes
from app.core.join.join_order import FIRST, SECOND
from app.core.join.window_arrays import ArrayWindow
from app.core.join.window_close import LATE
from app.core.rules import EtlRules
from app.core.state.encoding import pack_time
from app.core.state.tables import KEY_BYTES, StateReader
from app.kernels.cells import Ints, Words

_REJECTED: Final = frozenset({LineKind.MALFORMED, LineKind.BOT})
_DROPPED: Final[Mapping[int, str]] = {LineKind.DUPLICATE: DUPLICATE, LineKind.ERASED: ERASED}
_NONE: Final = np.empty(0, np.int64)


class OwnEvents:
    """The new first events, or the new second events, of a step."""

    def __init__(self, kind: int, columns: LineColumns, positions: Ints, digests: Words) -> None:
        self.kind = kind
        self._columns = columns
        self._positions = positions
        table = columns.table
        self.arrivals = Arrivals(
            digests=digests[positions],
            received_ms=table.rec[positions, FIELD["received_at"]],
            event_ids=table.rec[positions, FIELD["event_id"]],
            sizes=event_sizes(table, positions),
            blocks=columns.block_of[positions],
        )

    def columns(self) -> Columns:
        """The columns of all of them that the window keeps."""
        return self._columns.of(self._positions, schema_of(self.kind))

    def frame(self) -> Frame:
        """All of them, as a stored frame would hold them, without the columns of its index."""
        return Frame(len(self._positions), gather(len(self._positions), self.columns()))

    def packed(self, kept: Ints) -> bytes | None:
        """The stored frame of some of them, by their places; None of none."""
        if not len(kept):
            return None
        columns = self._columns.of(self._positions[kept], schema_of(self.kind))
        return pack_waiting(columns, self.arrivals.digests[kept], self.arrivals.sizes[kept])

    def batch_lines(self, kept: Ints) -> BatchLines:
        """The batches of some of them."""
        return self._columns.batch_lines(self._positions[kept])


class ArrivedLines(NamedTuple):
    """The lines of a step's blocks, each on its way."""

    rows: list[tuple[str, Frame]]
    """(flow, rows) emitted at once."""
    outcomes: list[tuple[str, BatchLines]]
    """(outcome, lines) that have their ledger entry now."""
    first_events: OwnEvents
    second_events: OwnEvents
    """All new second events; those that are late on arrival have their rows already."""
    admitted: Admitted
    changes: list[Changes]
    """The changes of states `seen`, `blocks` and `views`."""


class Known(NamedTuple):
    """The knowledge of a partition before the step."""

    state: StateReader
    """Its tables."""
    window: ArrayWindow
    """Everything that is open."""
    classifier: CellClassifier
    """Tells the kinds of lines, and remembers what it knows of user agents and addresses."""


def route_cells(cells: Cells, known: Known, rules: EtlRules, enricher: Enricher) -> ArrivedLines:
    """Take the lines of a step's blocks, which the state does not know, in log order.

    Args:
        cells: the lines, each block with stream time at its place.
        known: the knowledge of the partition before the step.
        rules: bounds and limits.
        enricher: look-ups.
    """
    classified = known.classifier.classify(cells)
    seen = _take_out_duplicates(cells, classified, known.state, rules.dedup_window_ms)
    columns = LineColumns(cells, classified, tells_places=enricher.tells_places)
    rejected = RejectedLines(cells, classified, columns, enricher)
    positions = by_code(classified.codes)
    rows: list[tuple[str, Frame]] = []
    outcomes: list[tuple[str, BatchLines]] = []
    for code, lines in positions.items():
        if code >= LineKind.EMITTED:
            flow = EMITTED_TYPES[code - LineKind.EMITTED].flow
            held = columns.of(lines, ROW_SCHEMAS[flow.name])
            rows.append((flow.name, flow_frame(flow, len(lines), held, {}, enricher)))
            outcomes.append((flow.name, columns.batch_lines(lines)))
        elif code in _REJECTED:
            rows.append((REJECTED.name, rejected.malformed(lines) if code == LineKind.MALFORMED else rejected.bots(lines)))
            outcomes.append((REJECTED.name, columns.batch_lines(lines)))
        elif code in _DROPPED:
            outcomes.append((_DROPPED[code], columns.batch_lines(lines)))
    first_events = OwnEvents(FIRST, columns, positions.get(LineKind.FIRST, _NONE), classified.views)
    second_events = OwnEvents(SECOND, columns, positions.get(LineKind.SECOND, _NONE), classified.views)
    admitted = known.window.admit(
        cells.arena, _times(cells.blocks), first_events.arrivals, second_events.arrivals, known.state, rules.dedup_window_ms
    )  # fmt: skip
    if len(admitted.late):
        lines = positions[LineKind.SECOND][admitted.late]
        held = columns.of(lines, ROW_SCHEMAS[ENGAGEMENTS.name])
        rows.append((ENGAGEMENTS.name, engagement_frame(held, [LATE], np.zeros(len(lines), np.int64), enricher)))
        outcomes.append((ENGAGEMENTS.name, columns.batch_lines(lines)))
    changes = [change for change in (seen, admitted.views) if change is not None]
    taken = [(block.header.key, pack_time(block.stored_ms)) for block in cells.blocks]
    changes.append(Changes.pack("blocks", KEY_BYTES["blocks"], taken))
    return ArrivedLines(rows, outcomes, first_events, second_events, admitted, changes)


def by_code(codes: Ints) -> dict[int, Ints]:
    """Code -> the positions of its lines, ascending; in the order of the codes."""
    return {code: np.flatnonzero(codes == code) for code in np.unique(codes).tolist()}


def _take_out_duplicates(
    cells: Cells, classified: ClassifiedCells, state: StateReader, dedup_window_ms: int
) -> Changes | None:
    """Tell duplicates from the other lines. Returns: the changes of state `seen`."""
    valid = np.flatnonzero(classified.codes > LineKind.ERASED)
    lines = ValidDigests(valid, classified.ids[valid], cells.blocks, cells.ends)
    duplicates = find_duplicate_digests(lines, state, dedup_window_ms)
    classified.codes[duplicates.positions] = LineKind.DUPLICATE
    return duplicates.seen


def _times(blocks: Sequence[AcceptedBlock]) -> BlockTimes:
    return BlockTimes(
        now_ms=np.array([block.stream_time_ms for block in blocks], np.int64),
        stored_ms=np.array([block.stored_ms for block in blocks], np.int64),
    )
