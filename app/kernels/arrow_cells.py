"""Arrow's columns as cells: pieces of the rows of a table whose buffers belong to somebody else.

Source: Arrow Columnar Format: "Validity bitmaps", "Variable-size Binary View Layout".
"""

from typing import Final

from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel, part
from app.kernels.memory import byte_at, copy_from, half_at, word_at

WORDS: Final = 0
"""Layout of a column: an int64 a row."""
BITS: Final = 1
"""A bit a row, the lowest of a byte first."""
VIEWS: Final = 2
"""16 bytes a row: the int32 length, then the text if it has at most 12 bytes, or else 4 bytes of it, and the int32 number
and offset of the buffer that has it."""
SAME: Final = 3
"""One cell for all rows."""
NOTHING: Final = 4
"""No row has a value."""
OTHER: Final = 5
"""Anything else: it is not described, and not to be gathered."""

LAYOUT: Final = 0
"""Columns of a table's description: what the column is."""
VALIDITY: Final = 1
"""Address of a bit a row, set where there is a value; 0 if there is one everywhere."""
SKIPPED: Final = 2
"""How many of the buffers' rows lie before the table's first row."""
VALUES: Final = 3
"""Address of the words, bits or views; the cell that all rows share."""
DATA: Final = 4
"""Address of the addresses of a view column's buffers."""
SIZES: Final = 5
"""Address of their sizes in bytes."""
BUFFERS: Final = 6
"""Number of its buffers."""
DESCRIPTION: Final = 7
"""Length of a column's description."""

DOUBT: Final = -1
"""What `gather_cells` returns if a text is too long for a cell, or lies outside the buffers."""
_INLINE: Final = 12
_VIEW_BYTES: Final = 16


@part
def _bit(address: int, row: int) -> int:
    bit: int = (byte_at(address + (row >> 3)) >> (row & 7)) & 1
    return bit


@part
def _text(column: Ints, row: int) -> tuple[int, int]:
    """(address, size) of a text; the size is DOUBT if no buffer has it."""
    view = column[VALUES] + _VIEW_BYTES * row
    size = half_at(view)
    if 0 <= size <= _INLINE:
        return view + 4, size
    buffer, offset = half_at(view + 8), half_at(view + 12)
    if size < 0 or buffer < 0 or buffer >= column[BUFFERS] or offset < 0:
        return 0, DOUBT
    if offset + size > word_at(column[SIZES] + 8 * buffer):
        return 0, DOUBT
    return word_at(column[DATA] + 8 * buffer) + offset, size


@kernel("int64(int64[:, ::1], int64, int64, uint8[::1], int64, int64[:, ::1], uint64[::1])")
def gather_cells(table: Ints, first: int, last: int, arena: Bytes, at: int, rec: Ints, present: Words) -> int:
    """Write the cells of a table's rows first ... last - 1, and copy their texts to the arena.

    Args:
        table: int64[columns, DESCRIPTION], at most 64 columns; the buffers live, and have the rows.
        first: the first row.
        last: behind the last row.
        arena: uint8[size + PAD], written from `at`.
        at: the used bytes of the arena.
        rec: int64[last - first or more, columns], written where the row has a value.
        present: uint64[last - first or more], written.

    Returns: the bytes of the arena that are used now. If it has fewer, nothing is to be used: call again with a larger one.
        DOUBT if a text is longer than LEN_MASK, or outside the buffers.
    """
    room = len(arena) - PAD
    for row in range(last - first):
        present[row] = uint64(0)
    for number in range(len(table)):
        column, bit = table[number], uint64(1) << uint64(number)
        layout, validity = column[LAYOUT], column[VALIDITY]
        if layout == NOTHING:
            continue
        for row in range(last - first):
            place = column[SKIPPED] + first + row
            if validity != 0 and _bit(validity, place) == 0:
                continue
            present[row] |= bit
            if layout == WORDS:
                rec[row, number] = word_at(column[VALUES] + 8 * place)
            elif layout == BITS:
                rec[row, number] = _bit(column[VALUES], place)
            elif layout == SAME:
                rec[row, number] = column[VALUES]
            else:
                address, size = _text(column, place)
                if size < 0 or size > LEN_MASK:
                    return DOUBT
                if at + size <= room:
                    copy_from(arena, at, address, size)
                    rec[row, number] = at << LEN_BITS | size
                at += size
    return at
