"""Events that wait in the window, out of cells into stored frames and back.

A stored frame is the one that `app.core.etl.flow_rows` makes: either path reads the frames of the other.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.core.etl.flow_rows import LONG, PENDING_SCHEMA, ROW_BYTES, SECONDS_SCHEMA
from app.core.etl.ledger import BatchLines
from app.core.etl.on_cells.line_columns import COLUMN_KINDS
from app.core.formats.arrow_stream import BufferKind, Buffers, Frame, read_stream, write_stream
from app.core.formats.cell_table import CellTable, Columns, Source, buffers_of_frame, gather, group, table_of_frames
from app.core.formats.columns import unpack_frame
from app.core.join.join_order import FIRST, SECOND
from app.core.join.window_state import columns_in_frame
from app.core.state.tables import StateReader
from app.errors import HistoryBroken
from app.kernels.cells import LEN_MASK, Ints, Words
from app.kernels.digests import pack_digests

_SCHEMAS: Final = {FIRST: PENDING_SCHEMA, SECOND: SECONDS_SCHEMA}
_TABLES: Final = {FIRST: ("pending", b""), SECOND: ("seconds", b"d")}
_NUMBER: Final = struct.Struct(">Q")
_KEY_BYTES: Final = 16


def event_sizes(table: CellTable, lines: Ints) -> Ints:
    """int64[n]: a rough size of each event's row, its long texts with their own length."""
    sizes = np.full(len(lines), ROW_BYTES, np.int64)
    for name in LONG:
        if (field := table.fields.get(name)) is not None:
            held = (table.present[lines] >> np.uint64(field)) & np.uint64(1) == 1
            sizes += np.where(held, table.rec[lines, field] & LEN_MASK, 0)
    return sizes


def pack_waiting(columns: Columns, digests: Words, sizes: Ints) -> bytes:
    """The stored frame of some events.

    Args:
        columns: of a schema of the window.
        digests: uint64[n, 2], of the events' page views.
        sizes: int64[n], see `event_sizes`.
    """
    height = len(sizes)
    keys = np.empty((height, _KEY_BYTES), np.uint8)
    pack_digests(digests, np.arange(height), keys)
    ends = np.arange(0, _KEY_BYTES * height + 1, _KEY_BYTES, dtype=np.int32)
    index = [
        Buffers("digest", BufferKind.BINARY, 0, None, ends, keys.reshape(-1)),
        Buffers("size", BufferKind.INTEGER, 0, None, None, sizes),
    ]
    return write_stream(height, [*gather(height, columns), *index])


class FrameLines(NamedTuple):
    """Some events of the window, as lines of a table."""

    table: CellTable
    lines: Ints
    """int64[n]: for each event its line; `NO_LINE` for none."""

    def columns(self, names: Collection[str]) -> Columns:
        """Those columns that the table has among `names`."""
        return {name: self.column(name) for name in self.table.fields if name in names}

    def column(self, name: str) -> Source:
        """A column that the table has."""
        return Source(self.table, self.lines, name, COLUMN_KINDS[name])

    def batch_lines(self) -> BatchLines:
        """The batches of the events, and their numbers in these."""
        batch_id = self.column("batch_id")
        groups = group([batch_id])
        numbers = self.table.rec[self.lines, self.table.fields["line"]]
        return BatchLines(batch_id.values(groups.firsts), groups.of_line, numbers)

    def where(self, chosen: Ints | npt.NDArray[np.bool_] | slice) -> "FrameLines":
        """The events at some positions."""
        return FrameLines(self.table, self.lines[chosen])


class WaitingCells:
    """Frames of `pending` and `seconds` out of the tables, as cells.

    The frames that the last step read are kept for the next one: a stored frame never changes, and closes in several steps.
    """

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self._kept: dict[int, dict[int, Frame]] = {FIRST: {}, SECOND: {}}

    def fetch(self, kind: int, numbers: Ints, rows: Ints, own: tuple[int, Callable[[], Frame]]) -> FrameLines:
        """The events in some rows of some frames.

        Args:
            kind: of the events, `FIRST` or `SECOND`.
            numbers: int64[n], at least one: for each event the number of its frame.
            rows: int64[n]: for each event its row in the frame; -1 for no event.
            own: the number of the frame that this step brings, which is not stored, and a function that makes it.

        Raises:
            HistoryBroken: the tables lack a frame that the index knows.
            FormatInvalid: a frame cannot be read.
            NewerFormat: a newer ETL stored it.
        """
        wanted = np.unique(numbers[rows >= 0])
        frames = self._frames(kind, wanted.tolist(), own)
        heights = np.array([frame.height for frame in frames], np.int64)
        starts = np.cumsum(heights) - heights
        place = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
        return FrameLines(table_of_frames(frames), np.where(rows >= 0, starts[place] + rows, rows))

    def _frames(self, kind: int, numbers: Sequence[int], own: tuple[int, Callable[[], Frame]]) -> list[Frame]:
        kept = {number: frame for number in numbers if (frame := self._kept[kind].get(number)) is not None}
        table, tag = _TABLES[kind]
        asked = [number for number in numbers if number not in kept and number != own[0]]
        for number, value in zip(asked, self._state.get(table, [_NUMBER.pack(n) + tag for n in asked]), strict=True):
            if value is None:
                raise HistoryBroken(f"table {table} has lost frame {number}, which is still open")
            kept[number] = _read(kind, value)
        self._kept[kind] = kept
        return [own[1]() if number == own[0] else kept[number] for number in numbers]


def _read(kind: int, packed: bytes) -> Frame:
    """A stored frame without the columns of the index."""
    known = [name for name in columns_in_frame(kind, packed) if name in _SCHEMAS[kind]]
    frame = read_stream(packed)
    if frame is None:
        columns = unpack_frame(packed, known)
        return Frame(columns.height, buffers_of_frame(columns))
    return Frame(frame.height, [column for column in frame.columns if column.name in known])


def schema_of(kind: int) -> Mapping[str, object]:
    """The columns of their flow that events of a kind bring themselves."""
    return _SCHEMAS[kind]
