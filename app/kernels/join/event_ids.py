"""Ids of events as words that sort as the ids do."""

from typing import Final

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, int64, uint64
from app.kernels.compiled import kernel, part
from app.kernels.join.layout import IDS
from app.kernels.loads import load64

_SIGN: Final = uint64(1 << 63)


@part
def swapped(word: int) -> int:
    """A uint64 with its bytes in the other order."""
    word = ((word & uint64(0x00FF00FF00FF00FF)) << uint64(8)) | ((word >> uint64(8)) & uint64(0x00FF00FF00FF00FF))
    word = ((word & uint64(0x0000FFFF0000FFFF)) << uint64(16)) | ((word >> uint64(16)) & uint64(0x0000FFFF0000FFFF))
    return (word << uint64(32)) | (word >> uint64(32))


@part
def read_id(arena: Bytes, at: int, size: int, table: Ints, row: int) -> None:
    """Put the id arena[at : at + size] into a row of `table`, cut to the words that the table has."""
    for column in range(IDS, table.shape[1]):
        word = uint64(0)
        if size > 0:
            word = swapped(load64(arena, at))
            if size < 8:
                word &= ~((uint64(1) << uint64(64 - 8 * size)) - uint64(1))
        table[row, column] = int64(word ^ _SIGN)
        at += 8
        size -= 8


@kernel("void(uint8[::1], int64[::1], int64[:, ::1], int64)")
def read_ids(arena: Bytes, cells: Ints, table: Ints, first: int) -> None:
    """Put the ids of events into the words of a table.

    Args:
        arena: uint8[size + PAD].
        cells: int64[n], text cells.
        table: int64[first + n or more, IDS + words], its columns from IDS on written; a longer id is cut.
        first: row of the first of them.
    """
    for n in range(len(cells)):
        read_id(arena, cells[n] >> LEN_BITS, cells[n] & LEN_MASK, table, first + n)
