"""Arenas and cells as kernels take them, made from plain values."""

from collections.abc import Sequence

import numpy as np

from app.kernels.cells import LEN_BITS, PAD, Bytes, Ints, Words


def arena_of(text: bytes, behind: int = 0xAA) -> Bytes:
    """`text` and the pad behind it, whose bytes are `behind`."""
    return np.frombuffer(text + bytes([behind]) * PAD, np.uint8).copy()


def column_of(texts: Sequence[bytes | None]) -> tuple[Bytes, Ints, Words]:
    """(arena, rec, present) of lines with one field."""
    rec, at = np.full((len(texts), 1), -1, np.int64), 0
    for n, text in enumerate(texts):
        if text is not None:
            rec[n, 0] = at << LEN_BITS | len(text)
            at += len(text)
    present = np.array([text is not None for text in texts], np.uint64)
    return arena_of(b"".join(text or b"" for text in texts)), rec, present
