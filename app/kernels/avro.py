"""Rows as Avro records whose every field is a union of null and the column's type.

Source: Avro specification, "Binary Encoding": a union is the number of its branch, then the value; longs are zig-zag numbers
of 7 bits a byte, the lowest first; a string is its length, then its bytes.
"""

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.columns import BOOLEAN, TEXT
from app.kernels.compiled import kernel, part
from app.kernels.copying import copy_bytes

_NULL, _VALUE = b"\x00\x02"
"""The branches 0 and 1, as longs."""


@part
def _put_long(out: Bytes, to: int, value: int) -> int:
    """Write a long; the end of what is written."""
    rest = uint64((value << 1) ^ (value >> 63))
    while rest >= uint64(128):
        out[to] = (rest & uint64(127)) | uint64(128)
        rest >>= uint64(7)
        to += 1
    out[to] = rest
    return to + 1


@kernel("int64(int64[::1], uint8[::1], int64[:, ::1], uint64[::1], int64, uint8[::1], int64[::1])")
def avro_rows(kinds: Ints, arena: Bytes, rec: Ints, present: Words, rows: int, out: Bytes, ends: Ints) -> int:
    """Write rows as Avro records. An empty text is null.

    Args:
        kinds: int64[columns], of `app.kernels.columns`; at most 64, in the schema's order.
        arena: uint8[size + PAD].
        rec: int64[rows or more, columns].
        present: uint64[rows or more].
        rows: how many.
        out: uint8[room_for(...) + PAD], written.
        ends: int64[rows or more], written: where each record ends in `out`.

    Returns: the bytes written.
    """
    to = 0
    for row in range(rows):
        for column in range(len(kinds)):
            cell, kind = rec[row, column], kinds[column]
            size = cell & LEN_MASK
            if (present[row] >> uint64(column)) & uint64(1) == uint64(0) or (kind == TEXT and size == 0):
                out[to] = _NULL
                to += 1
                continue
            out[to] = _VALUE
            to += 1
            if kind == TEXT:
                to = _put_long(out, to, size)
                copy_bytes(out, to, arena, cell >> LEN_BITS, size)
                to += size
            elif kind == BOOLEAN:
                out[to] = cell
                to += 1
            else:
                to = _put_long(out, to, cell)
        ends[row] = to
    return to
