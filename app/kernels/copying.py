"""A copy of bytes between arrays, and the room that a row's bytes may need."""

from app.kernels.cells import LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.columns import TEXT
from app.kernels.compiled import kernel, part
from app.kernels.loads import copy32

OTHER_BYTES = 28
"""A cell that is no text, as text or in Avro, with what separates it: a timestamp in TSV is the longest."""


@part
def copy_bytes(target: Bytes, to: int, source: Bytes, at: int, size: int) -> None:
    """Copy source[at : at + size] to target[to:]. Up to 31 bytes behind both ends are read and overwritten."""
    done = 0
    while done < size:
        copy32(target, to + done, source, at + done)
        done += 32


@kernel("int64(int64[::1], int64[:, ::1], uint64[::1], int64)")
def room_for(kinds: Ints, rec: Ints, present: Words, rows: int) -> int:
    """Bytes that the first `rows` rows take at most, in TSV and in Avro.

    A text takes twice its bytes if each is a quote, two quotes around it and a separator; Avro's length takes less.

    Args:
        kinds: int64[columns], of `app.kernels.columns`.
        rec: int64[rows or more, columns].
        present: uint64[rows or more].
        rows: how many.
    """
    room = 0
    for row in range(rows):
        for column in range(len(kinds)):
            if (present[row] >> uint64(column)) & uint64(1) == uint64(0):
                room += 1
            elif kinds[column] == TEXT:
                room += 2 * (rec[row, column] & LEN_MASK) + 3
            else:
                room += OTHER_BYTES
    return room
