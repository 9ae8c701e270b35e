"""Tables of cells with names, and the columns of frames gathered out of them.

A column of a frame comes out of some table, line by line: the fields of a step's lines, the facts in their user agents, or
values that were just computed. `gather` copies all columns of a frame out of their tables in a few passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from app.core.formats.arrow_stream import BufferKind, Buffers, Frame
from app.core.formats.flows import ColumnKind
from app.core.whole_table import whole_table
from app.errors import FormatInvalid
from app.kernels.cells import LEN_BITS, LEN_MASK, MOST_FIELDS, PAD, Bytes, Ints, Words
from app.kernels.distinct import group_lines
from app.kernels.gather import gather_integers, gather_texts, spread_integers, spread_texts, text_bytes
from app.kernels.secret import SECRET

BUFFER_KINDS: Final[Mapping[ColumnKind, BufferKind]] = whole_table(ColumnKind, {
    ColumnKind.STRING: BufferKind.TEXT, ColumnKind.TIMESTAMP: BufferKind.INTEGER, ColumnKind.INTEGER: BufferKind.INTEGER,
    ColumnKind.BOOLEAN: BufferKind.BOOLEAN,
})  # fmt: skip
"""The buffers of each kind of column."""
NO_LINE: Final = -1
"""The number of a line that has no field at all."""
_MAX_BYTES: Final = 2**31 - 1
_NO_BITS: Final = np.zeros(0, np.uint8)


class CellTable(NamedTuple):
    """Lines with named fields; see `app.kernels.cells`."""

    arena: Bytes
    rec: Ints
    present: Words
    fields: Mapping[str, int]
    """Name -> field, for each field that the table has."""

    def texts(self, name: str, lines: Iterable[int]) -> list[str | None]:
        """The text of each of `lines` in a field of texts."""
        field, text = self.fields[name], self.arena.data
        numbers = np.fromiter(lines, np.int64)
        held = (self.present[numbers] >> np.uint64(field)) & np.uint64(1)
        held[numbers < 0] = 0
        return [
            str(text[cell >> LEN_BITS : (cell >> LEN_BITS) + (cell & LEN_MASK)], "utf-8") if has else None
            for cell, has in zip(self.rec[numbers, field].tolist(), held.tolist(), strict=True)
        ]

    def integers(self, name: str, lines: Iterable[int]) -> list[int | None]:
        """The integer, or the boolean as 0 or 1, of each of `lines`."""
        field, numbers = self.fields[name], np.fromiter(lines, np.int64)
        held = (self.present[numbers] >> np.uint64(field)) & np.uint64(1)
        held[numbers < 0] = 0
        pairs = zip(self.rec[numbers, field].tolist(), held.tolist(), strict=True)
        return [value if has else None for value, has in pairs]


class Source(NamedTuple):
    """The place of a column: a field of some lines of a table."""

    table: CellTable
    lines: Ints
    """int64[n]: for each value its line; `NO_LINE` for NULL."""
    name: str
    """The field's name in the table."""
    kind: BufferKind

    @property
    def field(self) -> int:
        """The field."""
        return self.table.fields[self.name]

    def values(self, picks: Ints) -> list[Any]:
        """The values at some positions of the column."""
        lines = self.lines[picks].tolist()
        if self.kind is BufferKind.TEXT:
            return self.table.texts(self.name, lines)
        found = self.table.integers(self.name, lines)
        return [None if v is None else bool(v) for v in found] if self.kind is BufferKind.BOOLEAN else found


Columns = Mapping[str, Source]
"""Name of a column -> where it comes from."""


def table_of(columns: Mapping[str, tuple[BufferKind, Sequence[Any]]]) -> CellTable:
    """A table of values: name -> (kind, a value for each line, None where there is none)."""
    height = max((len(values) for _, values in columns.values()), default=0)
    rec, present = np.zeros((height, max(1, len(columns))), np.int64), np.zeros(height, np.uint64)
    pieces: list[bytes] = []
    at = 0
    for field, (kind, values) in enumerate(columns.values()):
        held = np.array([value is not None for value in values], np.uint64)
        present |= held << np.uint64(field)
        if kind is BufferKind.TEXT:
            texts = [value.encode() if value else b"" for value in values]
            sizes = np.array(list(map(len, texts)), np.int64)
            if height and sizes.max() > LEN_MASK:
                raise FormatInvalid(f"a text of {sizes.max()} bytes is too long")
            ends = at + np.cumsum(sizes)
            rec[:, field] = (ends - sizes) << LEN_BITS | sizes
            pieces += texts
            at = int(ends[-1]) if height else at
        else:
            rec[:, field] = [value or 0 for value in values]
    return CellTable(arena_of(pieces), rec, present, {name: field for field, name in enumerate(columns)})


def repeated(name: str, kind: BufferKind, values: Sequence[Any]) -> Source:
    """A column of values of which few are distinct."""
    numbers: dict[Any, int] = {}
    lines = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
    return Source(table_of({name: (kind, list(numbers))}), lines, name, kind)


def integer_table(name: str, values: Ints) -> CellTable:
    """A table with one field of integers, in every line."""
    return CellTable(arena_of([]), np.ascontiguousarray(values.reshape(-1, 1)), np.ones(len(values), np.uint64), {name: 0})


def table_of_frames(frames: Sequence[Frame]) -> CellTable:
    """One table with the lines of all frames, one behind the other; a column that a frame lacks is absent in its lines.

    Args:
        frames: columns of texts and integers; of one name all have one kind.

    Raises:
        FormatInvalid: a text is too long for a cell, or the columns are too many.
    """
    fields = {name: n for n, name in enumerate(dict.fromkeys(c.name for frame in frames for c in frame.columns))}
    if len(fields) > MOST_FIELDS:
        raise FormatInvalid(f"a frame with {len(fields)} columns")
    height = sum(frame.height for frame in frames)
    rec, present = np.zeros((height, max(1, len(fields))), np.int64), np.zeros(height, np.uint64)
    pieces: list[Any] = []
    start = at = 0
    for frame in frames:
        lines = slice(start, start + frame.height)
        for column in frame.columns:
            validity = _NO_BITS if column.validity is None else column.validity
            has_nulls = column.validity is not None
            place = fields[column.name], rec[lines], present[lines]
            if column.offsets is None:
                spread_integers(column.data, validity, has_nulls, *place)
                continue
            if len(column.data) > LEN_MASK and int(np.diff(column.offsets).max()) > LEN_MASK:
                raise FormatInvalid(f"column {column.name} has a text of more than {LEN_MASK} bytes")
            spread_texts(column.offsets, validity, has_nulls, at, *place)
            pieces.append(column.data)
            at += len(column.data)
        start += frame.height
    return CellTable(arena_of(pieces), rec, present, fields)


def buffers_of_frame(frame: pl.DataFrame) -> list[Buffers]:
    """The columns of texts, bytes and integers of a frame of polars, value by value; for the few that polars wrote."""
    columns = []
    for series in frame:
        nulls = series.null_count()
        validity = np.packbits(series.is_not_null().to_numpy(), bitorder="little") if nulls else None
        if series.dtype in (pl.String, pl.Binary):
            texts = [value.encode() if isinstance(value, str) else value or b"" for value in series.to_list()]
            offsets = np.array([0, *accumulate(map(len, texts))], np.int32)
            kind = BufferKind.TEXT if series.dtype == pl.String else BufferKind.BINARY
            columns.append(
                Buffers(series.name, kind, nulls, validity, offsets, np.frombuffer(bytearray().join(texts), np.uint8))
            )
        else:
            values = series.fill_null(0).to_numpy().astype(np.int64)
            columns.append(Buffers(series.name, BufferKind.INTEGER, nulls, validity, None, values))
    return columns


def gather(height: int, columns: Columns) -> list[Buffers]:
    """The columns of a frame, in order, less those without a value."""
    made: dict[str, Buffers] = {}
    groups: dict[tuple[int, int, bool], list[str]] = {}
    for name, source in columns.items():
        if source.kind is BufferKind.BOOLEAN:
            made[name] = _booleans(name, source)
        else:
            is_text = source.kind is BufferKind.TEXT
            groups.setdefault((id(source.table), id(source.lines), is_text), []).append(name)
    for (_, _, is_text), names in groups.items():
        some = [columns[name] for name in names]
        for column in (_texts if is_text else _integers)(names, some[0].table, some[0].lines, [s.field for s in some]):
            made[column.name] = column
    return [made[name] for name in columns if made[name].nulls < height]


def _texts(names: Sequence[str], table: CellTable, lines: Ints, fields: Sequence[int]) -> Iterable[Buffers]:
    which, count, height = np.array(fields, np.int64), len(fields), len(lines)
    size = text_bytes(table.rec, table.present, lines, which)
    if size > _MAX_BYTES:
        raise FormatInvalid(f"a frame with {size} bytes of texts")
    offsets, data = np.empty((count, height + 1), np.int32), np.empty(size + PAD, np.uint8)
    bounds, nulls = np.empty(count + 1, np.int64), np.empty(count, np.int64)
    validity = np.zeros((count, (height + 7) // 8), np.uint8)
    gather_texts(table.arena, table.rec, table.present, lines, which, offsets, data, bounds, validity, nulls)
    ends = bounds.tolist()
    for n, (name, missing) in enumerate(zip(names, nulls.tolist(), strict=True)):
        valid = validity[n] if missing else None
        yield Buffers(name, BufferKind.TEXT, missing, valid, offsets[n], data[ends[n] : ends[n + 1]])


def _integers(names: Sequence[str], table: CellTable, lines: Ints, fields: Sequence[int]) -> Iterable[Buffers]:
    which, count, height = np.array(fields, np.int64), len(fields), len(lines)
    values, nulls = np.empty((count, height), np.int64), np.empty(count, np.int64)
    validity = np.zeros((count, (height + 7) // 8), np.uint8)
    gather_integers(table.rec, table.present, lines, which, values, validity, nulls)
    for n, (name, missing) in enumerate(zip(names, nulls.tolist(), strict=True)):
        yield Buffers(name, BufferKind.INTEGER, missing, validity[n] if missing else None, None, values[n])


def _booleans(name: str, source: Source) -> Buffers:
    (column,) = _integers([name], source.table, source.lines, [source.field])
    return column._replace(kind=BufferKind.BOOLEAN, data=np.packbits(column.data != 0, bitorder="little"))


class Groups(NamedTuple):
    """The distinct combinations of values in some columns."""

    of_line: Ints
    """int64[n]: for each line of the columns the number of its combination."""
    firsts: Ints
    """int64[combinations]: for each the first line that has it, as a position in the columns."""


def group(columns: Sequence[Source]) -> Groups:
    """Number the distinct combinations of values that the lines of some columns have."""
    first = columns[0]
    if all(source.table is first.table and source.lines is first.lines for source in columns):
        fields = np.array([source.field for source in columns], np.int64)
        return _group(first.table, first.lines, fields, [source.kind is BufferKind.TEXT for source in columns])
    rec = np.stack([group([source]).of_line for source in columns], axis=1)
    height, count = rec.shape
    numbers = CellTable(arena_of([]), np.ascontiguousarray(rec), np.full(height, (1 << count) - 1, np.uint64), {})
    return _group(numbers, np.arange(height), np.arange(count), [False] * count)


def _group(table: CellTable, lines: Ints, fields: Ints, are_texts: Sequence[bool]) -> Groups:
    height = len(lines)
    slots = np.full(1 << (2 * height).bit_length(), -1, np.int64)
    of_line, firsts, texts = np.empty(height, np.int64), np.empty(height, np.int64), np.array(are_texts, np.uint8)
    count = group_lines(table.arena, table.rec, table.present, lines, fields, texts, SECRET, slots, of_line, firsts)
    return Groups(of_line, firsts[:count])


def arena_of(pieces: Sequence[Any]) -> Bytes:
    """An arena with these bytes, and the pad behind them."""
    return np.frombuffer(bytearray().join([*pieces, bytes(PAD)]), np.uint8)
