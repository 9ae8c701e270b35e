"""Frames inside a step, handled column by column.

What goes through polars' lazy engine (`select`, `with_columns`, `concat`, `filter`, every `Series` method that is an
expression) costs some 0.1 ms a call, however few the rows: more than all the work on a step of some hundred lines. Taking a
column, gathering its rows and putting columns side by side does not.
"""

import io
from collections.abc import Collection, Sequence
from typing import Final

import polars as pl

from app.core.formats.flows import ColumnKind

DTYPES: Final[dict[ColumnKind, pl.DataType]] = {
    ColumnKind.STRING: pl.String(),
    ColumnKind.TIMESTAMP: pl.Int64(),
    ColumnKind.INTEGER: pl.Int64(),
    ColumnKind.BOOLEAN: pl.Boolean(),
}
"""How a frame holds each kind of column; timestamps are milliseconds since the epoch."""


def pack_frame(frame: pl.DataFrame) -> bytes:
    """`frame` as an Arrow IPC stream, lz4."""
    out = io.BytesIO()
    frame.rechunk().write_ipc_stream(out, compression="lz4")
    return out.getvalue()


def unpack_frame(packed: bytes, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The frame, or some of its columns, in an Arrow IPC stream."""
    return pl.read_ipc_stream(packed, columns=None if columns is None else list(columns))


def stack(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """At least one frame, and below it the others, all with the same columns."""
    stacked, *others = frames
    for frame in others:
        stacked = stacked.vstack(frame)
    return stacked


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
