"""A flow's file by kernels: the rows of steps become the file without a frame, an object or a text for each value.

The bytes are those of `app.core.formats.flow_files` for the same rows. Rows are written some hundreds at a time: what the
kernels work on stays in the processor's cache, and no copy of all rows is held but the file's own text.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.formats import flow_files
from app.core.formats.avro_file import avro_file
from app.core.formats.file_codecs import TSV_CODECS
from app.core.formats.flow_files import FlowFile, Moments, read_columns, received_in
from app.core.formats.flows import BY_NAME, ColumnKind, Flow
from app.core.whole_table import whole_table
from app.kernels import arrow_cells, tsv
from app.kernels.arrow_cells import BITS, DESCRIPTION, LAYOUT, NOTHING, SAME, VALUES, VIEWS, WORDS, gather_cells
from app.kernels.arrow_export import described
from app.kernels.avro import avro_rows
from app.kernels.cells import MOST_FIELDS, PAD, Bytes, Ints, Words
from app.kernels.columns import BOOLEAN, INTEGER, TEXT, TIMESTAMP
from app.kernels.copying import room_for
from app.kernels.tsv import tsv_rows

_LAYOUTS: Final = np.array([layout for _, layout in sorted({
    TEXT: VIEWS, INTEGER: WORDS, TIMESTAMP: WORDS, BOOLEAN: BITS,
}.items())])  # fmt: skip
_ROWS_AT_ONCE: Final = 512
_UNPACKED: Final = 8
"""A file's text seldom has more times the bytes of its packed rows; where it has, it is moved once."""
_KINDS: Final = whole_table(ColumnKind, {
    ColumnKind.STRING: TEXT, ColumnKind.TIMESTAMP: TIMESTAMP, ColumnKind.INTEGER: INTEGER, ColumnKind.BOOLEAN: BOOLEAN,
})  # fmt: skip


class _Doubt(Exception):  # never leaves this module
    """Rows that a kernel does not take."""


class _Cells(NamedTuple):
    """Some rows, in the shapes of `app.kernels.cells`."""

    kinds: Ints
    arena: Bytes
    rec: Ints
    present: Words
    rows: int

    @property
    def room(self) -> int:
        """Bytes that they take at most when written."""
        return room_for(self.kinds, self.rec, self.present, self.rows)


def encode_streams(output: str, streams: Sequence[bytes], txn_id: str) -> FlowFile:
    """The file of a flow's rows in `streams` (Arrow IPC streams, one a step), in their order; `txn_id` is filled in.

    If kernels do not take the rows (a text longer than a cell, a time outside the years 1 to 9999, a flow of more than 64
    columns), `app.core.formats.flow_files` writes them, or refuses them.

    Raises:
        NewerFormat, FormatInvalid: as `app.core.formats.flow_files.encode_streams`.
    """
    flow = BY_NAME[output]
    if len(flow.columns) > MOST_FIELDS:
        return flow_files.encode_streams(output, streams, txn_id)
    try:
        return _written(flow, streams, txn_id)
    except _Doubt:
        return flow_files.encode_streams(output, streams, txn_id)


def _written(flow: Flow, streams: Sequence[bytes], txn_id: str) -> FlowFile:
    pack = TSV_CODECS[flow.format]
    room = _UNPACKED * sum(map(len, streams))
    text = _Avro(room) if pack is None else _Tsv(room)
    rows = _Rows(flow, txn_id)
    received_ms = tuple(rows.write(stream, text) for stream in streams)
    body = avro_file(flow.name, text.written, text.ends) if pack is None else pack(text.written)
    return FlowFile(rows.count, body, received_ms)


class _Text:
    """The bytes that are written so far, and room behind them: pages that nobody touches cost nothing."""

    def __init__(self, room: int) -> None:
        self.end = 0
        self._bytes = np.empty(room, np.uint8)

    @property
    def written(self) -> memoryview:
        """The bytes."""
        return self._bytes.data[: self.end]

    def behind(self, room: int) -> Bytes:
        """A place for `room` bytes more, and for what kernels overwrite behind them."""
        if len(self._bytes) - self.end < room + PAD:
            larger = np.empty(2 * (self.end + room + PAD), np.uint8)
            larger[: self.end] = self._bytes[: self.end]
            self._bytes = larger
        return self._bytes[self.end :]


class _Tsv(_Text):
    """Rows written as TSV."""

    ends: Sequence[int] = ()

    def add(self, cells: _Cells) -> None:
        """Write rows."""
        size = tsv_rows(cells.kinds, cells.arena, cells.rec, cells.present, cells.rows, self.behind(cells.room))
        if size == tsv.DOUBT:
            raise _Doubt
        self.end += size


class _Avro(_Text):
    """Rows written as Avro records."""

    def __init__(self, room: int) -> None:
        super().__init__(room)
        self.ends: list[int] = []

    def add(self, cells: _Cells) -> None:
        """Write rows."""
        ends = np.empty(cells.rows, np.int64)
        size = avro_rows(cells.kinds, cells.arena, cells.rec, cells.present, cells.rows, self.behind(cells.room), ends)
        self.ends += (ends + self.end).tolist()
        self.end += size


class _Rows:
    """The rows of a flow, some at a time."""

    def __init__(self, flow: Flow, txn_id: str) -> None:
        self.count = 0
        self._flow = flow
        self._places = {column.name: place for place, column in enumerate(flow.columns)}
        self._kinds = np.array([_KINDS[column.kind] for column in flow.columns], np.int64)
        self._same = txn_id.encode()
        self._rec = np.empty((_ROWS_AT_ONCE, len(flow.columns)), np.int64)
        self._present = np.empty(_ROWS_AT_ONCE, np.uint64)
        self._arena = self._arena_of(_ROWS_AT_ONCE * 1024)

    def write(self, stream: bytes, text: _Tsv | _Avro) -> Moments:
        """Write the rows of one step. Returns: when they were received."""
        frame = read_columns(self._flow.name, stream)
        if not frame.columns:
            raise _Doubt  # rows without a value: Arrow's protocol has no batch for them
        places = [self._places[name] for name in frame.columns]
        for height, columns in described(frame):
            if (columns[:, LAYOUT] != _LAYOUTS[self._kinds[places]]).any():
                raise _Doubt
            table = self._in_file_order(places, columns)
            for first in range(0, height, _ROWS_AT_ONCE):
                text.add(self._gather(table, first, min(first + _ROWS_AT_ONCE, height)))
            self.count += height
        return received_in(frame)

    def _gather(self, table: Ints, first: int, last: int) -> _Cells:
        used = gather_cells(table, first, last, self._arena, len(self._same), self._rec, self._present)
        if used > len(self._arena) - PAD:
            self._arena = self._arena_of(2 * used)
            used = gather_cells(table, first, last, self._arena, len(self._same), self._rec, self._present)
        if used == arrow_cells.DOUBT:
            raise _Doubt
        return _Cells(self._kinds, self._arena, self._rec, self._present, last - first)

    def _in_file_order(self, places: Sequence[int], columns: Ints) -> Ints:
        """The description of the file's columns: those that are not in `places` hold nothing, but for the transaction."""
        table = np.zeros((len(self._kinds), DESCRIPTION), np.int64)
        table[:, LAYOUT] = NOTHING
        table[places] = columns
        txn_id = self._places["txn_id"]
        table[txn_id, LAYOUT], table[txn_id, VALUES] = SAME, len(self._same)
        return table

    def _arena_of(self, size: int) -> Bytes:
        """An arena that begins with the text that all rows share."""
        arena = np.empty(len(self._same) + size + PAD, np.uint8)
        arena[: len(self._same)] = np.frombuffer(self._same, np.uint8)
        return arena
