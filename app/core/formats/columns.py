"""Frames inside a step, handled column by column.

A call through polars' lazy engine (`select`, `with_columns`, `concat`, `filter`, every `Series` method that is an
expression) costs some 0.1 ms even for few rows: more than all the work on a step of some hundred lines. Taking a column,
gathering its rows and putting columns side by side are cheap.

Versions (rule E10): a packed frame names its columns and their types, and these are its version. A column that a reader
does not know makes the frame a newer one's as soon as it holds a value; a column of NULLs is passed over. A writer leaves
such a column out, because each column costs some microseconds at every place that a frame comes to.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import polars as pl

from app.core.formats.decoding import reading, refuse_unknown
from app.core.formats.flows import ColumnKind
from app.core.whole_table import whole_table
from app.errors import FormatInvalid

DTYPES: Final[Mapping[ColumnKind, pl.DataType]] = whole_table(ColumnKind, {
    ColumnKind.STRING: pl.String(), ColumnKind.TIMESTAMP: pl.Int64(), ColumnKind.INTEGER: pl.Int64(),
    ColumnKind.BOOLEAN: pl.Boolean(),
})  # fmt: skip
"""The type of each kind of column in a frame; timestamps are milliseconds since the epoch."""


def pack_frame(frame: pl.DataFrame) -> bytes:
    """`frame` as an Arrow IPC stream, lz4."""
    out = io.BytesIO()
    frame.rechunk().write_ipc_stream(out, compression="lz4")
    return out.getvalue()


def unpack_frame(packed: bytes, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The frame, or some of its columns, in an Arrow IPC stream.

    Raises:
        FormatInvalid: the bytes are no such stream.
    """
    with reading(f"frame of {len(packed)} bytes"):
        return pl.read_ipc_stream(packed, columns=None if columns is None else list(columns))


_CONTINUES: Final = b"\xff\xff\xff\xff"
_STARTS: Final = slice(4, 8)
_MAX_SCHEMA_BYTES: Final = 256 * 1024


def schema_in(packed: bytes) -> Mapping[str, pl.DataType]:
    """Column -> type of the frame in an Arrow IPC stream; its rows are not looked at.

    A stream begins with the message that holds its schema: the same bytes for every frame with the same columns.

    Raises:
        FormatInvalid: the bytes are no such stream.

    Source: Arrow Columnar Format, "Encapsulated message format" and "IPC Streaming Format".
    """
    length = int.from_bytes(packed[_STARTS], "little", signed=True)
    if packed[:4] != _CONTINUES or not 0 < length <= min(_MAX_SCHEMA_BYTES, len(packed) - _STARTS.stop):
        raise FormatInvalid(f"{len(packed)} bytes do not begin with the schema of an Arrow IPC stream")
    return _schema(packed[: _STARTS.stop + length])


@lru_cache(maxsize=64)
def _schema(message: bytes) -> Mapping[str, pl.DataType]:
    with reading("schema of an Arrow IPC stream"):
        return pl.read_ipc_stream(message + _CONTINUES + bytes(4)).schema  # a stream without rows


def refuse_unknown_values(what: str, packed: bytes, known: Collection[str]) -> None:
    """See that the frame in an Arrow IPC stream has no value in a column that this reader does not know.

    A column of NULLs is passed over: when a newer writer has no more values to send, its reader can go back (rule E10).

    Raises:
        NewerFormat: it has.
        FormatInvalid: the bytes are no such stream.
    """
    if unknown := [name for name in schema_in(packed) if name not in known]:
        frame = unpack_frame(packed, unknown)
        refuse_unknown(what, [name for name in unknown if frame[name].null_count() < frame.height], ())


def column(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series | None:
    """A column of `values`; None if no value is in them, because frames leave such a column out."""
    if values and values[0] == values[-1] == values[len(values) // 2] and values.count(values[0]) == len(values):
        same = values[0]  # one value for all costs a tenth
        return None if same is None else pl.Series(name, [same], dtype=dtype).new_from_index(0, len(values))
    return pl.Series(name, values, dtype=dtype)


def stack(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """At least one frame, and below it the others; a column that only some of them have is NULL in the others."""
    stacked, *others = frames
    if any(frame.columns != stacked.columns for frame in others):
        schema = {name: dtype for frame in frames for name, dtype in frame.schema.items()}
        stacked, *others = [_completed(frame, schema) for frame in frames]
    for frame in others:
        stacked = stacked.vstack(frame)
    return stacked


def _completed(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """`frame` with all columns of `schema`, in order."""
    held = frozenset(frame.columns)
    return pl.DataFrame(
        [frame[name] if name in held else nothing(name, dtype, frame.height) for name, dtype in schema.items()]
    )


def gather(frame: pl.DataFrame, rows: Sequence[int | None]) -> pl.DataFrame:
    """The rows of `frame` at these positions, in this order; a row of NULLs for None."""
    return frame[pl.Series(rows, dtype=pl.UInt32)]


def without(frame: pl.DataFrame, rows: Collection[int]) -> pl.DataFrame:
    """`frame` less the rows at these positions."""
    gone = set(rows)
    return gather(frame, [row for row in range(frame.height) if row not in gone]) if gone else frame


def nothing(name: str, dtype: pl.DataType, height: int) -> pl.Series:
    """A column of NULLs."""
    return pl.Series(name, [None], dtype=dtype).new_from_index(0, height)
