"""Cells of Arrow's columns are the values that polars and numpy see."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.arrow_cells import BITS, DESCRIPTION, DOUBT, NOTHING, OTHER, SAME, VIEWS, WORDS, gather_cells
from app.kernels.arrow_export import described
from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words

TEXT = st.none() | st.text(max_size=8) | st.text(min_size=9, max_size=90) | st.just("x" * 5000)
ROWS = st.lists(st.tuples(TEXT, st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.booleans(), TEXT), max_size=40)
SCHEMA = {"text": pl.String(), "number": pl.Int64(), "flag": pl.Boolean(), "other": pl.String()}
Value = str | int | None


def arrays(rows: int, columns: int, room: int) -> tuple[Bytes, Ints, Words]:
    """(arena, rec, present), full of rubbish."""
    rec, present = np.full((rows, columns), -7, np.int64), np.full(rows, 2**64 - 1, np.uint64)
    return np.full(room + PAD, 0xAA, np.uint8), rec, present


def value_of(layout: int, arena: Bytes, cell: int) -> Value:
    if layout in {VIEWS, SAME}:
        return arena[cell >> LEN_BITS :][: cell & LEN_MASK].tobytes().decode()
    return cell


def gathered(table: Ints, first: int, last: int, used: bytes = b"") -> list[tuple[Value, ...]]:
    """The rows, by an arena that is at first too small."""
    arena, rec, present = arrays(last - first, len(table), len(used))
    needed = gather_cells(table, first, last, arena, len(used), rec, present)
    arena, rec, present = arrays(last - first, len(table), needed)
    arena[: len(used)] = np.frombuffer(used, np.uint8)
    assert gather_cells(table, first, last, arena, len(used), rec, present) == needed
    assert arena[needed:].tobytes() == b"\xaa" * PAD
    layouts = table[:, 0].tolist()
    return [
        tuple(
            value_of(layout, arena, int(cell)) if bits >> column & 1 else None
            for column, (layout, cell) in enumerate(zip(layouts, cells, strict=True))
        )
        for cells, bits in zip(rec, present.tolist(), strict=True)
    ]


@given(ROWS, st.data())
def test_a_frame_s_pieces_are_its_rows(rows: list[tuple[Value, ...]], data: st.DataObject) -> None:
    whole = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    start = data.draw(st.integers(0, whole.height))
    frame = pl.concat([whole[start:], whole], rechunk=False)
    found: list[tuple[Value, ...]] = []
    for height, table in described(frame):
        cut = data.draw(st.integers(0, height))
        found += gathered(table, 0, cut) + gathered(table, cut, height)
    assert found == frame.rows()


def test_a_column_of_another_type_is_not_described() -> None:
    frame = pl.DataFrame({"a": [1.5], "b": [None], "c": [1]}, schema={"a": pl.Float64(), "b": pl.Null(), "c": pl.Int64()})
    ((height, table),) = described(frame)
    assert (height, table[:, 0].tolist()) == (1, [OTHER, OTHER, WORDS])
    assert not table[:2, 1:].any()


def table_of(*columns: tuple[int, ...]) -> Ints:
    """Descriptions, filled up with zeros."""
    table = np.zeros((len(columns), DESCRIPTION), np.int64)
    for number, column in enumerate(columns):
        table[number, : len(column)] = column
    return table


def bits_of(values: Sequence[object]) -> Bytes:
    return np.packbits([bool(value) for value in values], bitorder="little")


@given(st.lists(st.tuples(st.integers(-9, 9), st.none() | st.booleans()), min_size=1, max_size=40), st.data())
def test_columns_of_arrays(rows: list[tuple[int, bool | None]], data: st.DataObject) -> None:
    there, flags = bits_of([flag is not None for _, flag in rows]), bits_of([flag for _, flag in rows])
    numbers = np.array([number for number, _ in rows], np.int64)
    table = table_of(
        (WORDS, 0, 0, numbers.ctypes.data), (BITS, there.ctypes.data, 0, flags.ctypes.data), (SAME, 0, 0, 3), (NOTHING,)
    )
    first = data.draw(st.integers(0, len(rows)))
    assert gathered(table, first, len(rows), b"txn") == [(*row, "txn", None) for row in rows[first:]]


@pytest.mark.parametrize(
    ("size", "buffer", "offset"), [(13, 1, 0), (13, -1, 0), (13, 0, 8), (13, 0, -1), (-1, 0, 0), (1 << 20, 0, 0)]
)
def test_views_outside_their_buffers_are_a_doubt(size: int, buffer: int, offset: int) -> None:
    held, view = np.zeros(20 if size < 1 << 20 else size, np.uint8), np.array([size, 0, buffer, offset], np.int32)
    addresses, sizes = np.array([held.ctypes.data], np.int64), np.array([len(held)], np.int64)
    table = table_of((VIEWS, 0, 0, view.ctypes.data, addresses.ctypes.data, sizes.ctypes.data, 1))
    assert gather_cells(table, 0, 1, *after(arrays(1, 1, 100))) == DOUBT


def after(made: tuple[Bytes, Ints, Words]) -> tuple[Bytes, int, Ints, Words]:
    arena, rec, present = made
    return arena, 0, rec, present
