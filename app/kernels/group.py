"""Lines put to their partitions."""

from typing import Final

from app.kernels.cells import Bytes, Ints
from app.kernels.compiled import kernel
from app.kernels.loads import copy32

_STEP: Final = 32


@kernel("void(uint8[::1], int64[::1], int64[::1], int64[::1], uint8[::1])")
def group_lines(text: Bytes, sizes: Ints, partitions: Ints, places: Ints, grouped: Bytes) -> None:
    """Copy each line to the place where its partition's next line belongs.

    Args:
        text: uint8[m], read only: the lines one after the other.
        sizes: int64[n], the bytes of each line; their sum is m.
        partitions: int64[n], the partition of each line, from 0 to p - 1.
        places: int64[p], the place of each partition's next line; moved behind the lines that were copied.
        grouped: uint8[], written; it has room for them.
    """
    at = 0
    for line in range(len(sizes)):
        size = sizes[line]
        to = places[partitions[line]]
        whole = size - size % _STEP
        for step in range(0, whole, _STEP):
            copy32(grouped, to + step, text, at + step)
        for step in range(whole, size):
            grouped[to + step] = text[at + step]
        places[partitions[line]] = to + size
        at += size
