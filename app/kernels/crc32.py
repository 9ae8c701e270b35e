"""CRC-32 as zlib computes it: the checksum that chooses a line's partition."""

from typing import Final

import numpy as np

from app.kernels.cells import Bytes
from app.kernels.compiled import kernel

_POLYNOMIAL: Final = 0xEDB88320
_ALL: Final = 0xFFFFFFFF


def _remainders() -> list[int]:
    """The remainder of each byte."""
    table = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = rest >> 1 ^ (_POLYNOMIAL if rest & 1 else 0)
        table.append(rest)
    return table


_TABLE: Final = np.array(_remainders(), np.int64)


@kernel("int64(uint8[::1], int64, int64)")
def crc32(text: Bytes, at: int, size: int) -> int:
    """The CRC-32 of text[at : at + size]."""
    value = _ALL
    for place in range(at, at + size):
        value = _TABLE[(value ^ text[place]) & 0xFF] ^ value >> 8
    return value ^ _ALL
