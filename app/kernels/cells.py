"""The shapes that kernels share: an arena of bytes, and a table of cells that point into it.

    arena    uint8[size + PAD]    the texts of a step; the last PAD bytes may be read, and never decide anything
    rec      int64[n, fields]     a cell for each field of each line; a cell whose field is absent has no meaning
    present  uint64[n]            bit `field` of present[line]: the line has that field

The cell of a text is `offset << LEN_BITS | length`, in bytes of the arena. The cell of an integer or a boolean is its value.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]

uint64: Final[Callable[[int], int]] = cast(Any, numba.uint64)
"""A number as a word without a sign: with an int64, numba would make a float of the two."""
int64: Final[Callable[[int], int]] = cast(Any, numba.int64)
uint8: Final[Callable[[int], int]] = cast(Any, numba.uint8)

LEN_BITS: Final = 20
LEN_MASK: Final = (1 << LEN_BITS) - 1
"""Also the length of the longest text."""
PAD: Final = 64
"""Bytes behind the used part of an arena. No load reaches further behind a byte that it may decide on."""
MOST_FIELDS: Final = 64
"""The fields that `present` has bits for."""
