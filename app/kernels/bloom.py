"""A blocked bloom filter of digests: a look-up reads one cache line. It may say yes for a digest that was never added.

A digest has a block of `BLOCK_WORDS` words by its high half, and one bit in each of these words by its low half. Ascending
digests have ascending blocks, so digests that are added in their order walk through memory once.

A client can make ids whose digests share a block. It gains nothing: its block says yes for them, and the database is asked.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from app.kernels.cells import Words
from app.kernels.compiled import kernel, part
from app.kernels.loads import mulhi

BLOCK_WORDS: Final = 8
"""Words in a block, 64 bytes: a cache line."""
_BIT: Final = 6
"""Bits of a digest that choose a bit of a word."""


@part
def block_of(high: np.uint64, words: int) -> np.int64:
    """The first word of a digest's block, of so many words."""
    return int64(mulhi(uint64(high), uint64(words // BLOCK_WORDS))) * BLOCK_WORDS


@part
def bit_of(low: np.uint64, word: int) -> np.uint64:
    """The bit of a digest in one word of its block."""
    return uint64(1) << ((uint64(low) >> uint64(_BIT * word)) & uint64(63))


@kernel("void(uint64[::1], uint64[:, ::1], uint64)")
def bloom_add(words: Words, digests: Words, salt: np.uint64) -> None:
    """Add digests.

    Args:
        words: uint64[8 x blocks], aligned with cache lines for speed, zeros at first.
        digests: uint64[n, 2], high and low half.
        salt: tells tables apart that share the filter: the same digest has other bits with another salt.
    """
    for n in range(len(digests)):
        block, low = block_of(digests[n, 0], len(words)), digests[n, 1] ^ uint64(salt)
        for word in range(BLOCK_WORDS):
            words[block + word] |= bit_of(low, word)


@kernel("void(uint64[::1], uint64[:, ::1], uint64, boolean[::1])")
def bloom_ask(words: Words, digests: Words, salt: np.uint64, maybe: npt.NDArray[np.bool_]) -> None:
    """Note which digests the filter may have.

    Args:
        words: as `bloom_add` left them.
        digests: uint64[n, 2].
        salt: that of `bloom_add`.
        maybe: bool[n]: true is written where the digest may have been added; other places stay.
    """
    for n in range(len(digests)):
        block, low = block_of(digests[n, 0], len(words)), digests[n, 1] ^ uint64(salt)
        missing = uint64(0)
        for word in range(BLOCK_WORDS):
            missing |= ~words[block + word] & bit_of(low, word)
        if missing == uint64(0):
            maybe[n] = True
