"""A hash table of digests, exact: the place of each in an order of puts.

Open addressing with linear probing. `slots` has a power of two of entries, -1 where free, and at least twice as many as
there are digests; slots[s] is the number of an entry of `digests` and `places`.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from app.kernels.cells import Ints, Words
from app.kernels.compiled import kernel, part
from app.kernels.loads import mulhi

Slots: TypeAlias = npt.NDArray[np.int32]


@part
def first_slot(high: np.uint64, low: np.uint64, secret: int, slots: int) -> np.int64:
    """Where the search for a digest begins. A client that does not know the secret cannot let its ids collide.

    Both halves of a product of two words that depend on the secret go in, so equal halves of two digests mean nothing.
    """
    left = uint64(high) ^ uint64(secret)
    right = uint64(low) ^ (uint64(secret) * uint64(0x9E3779B97F4A7C15) | uint64(1))
    return int64((mulhi(left, right) ^ (left * right)) & uint64(slots - 1))


@kernel("int64(int32[::1], uint64[:, ::1], int64[::1], int64, uint64[:, ::1], int64, uint64)")
def young_put(slots: Slots, digests: Words, places: Ints, used: int, new: Words, place: int, secret: int) -> int:
    """Put each of `new` with the next place; a digest that is there gets the new place.

    Args:
        slots: int32[2^k], at least 2 x (used + len(new)).
        digests: uint64[used + len(new) or more, 2], the digests that are there.
        places: int64 of the same length, their places.
        used: how many there are.
        new: uint64[n, 2].
        place: the place of the first of `new`; the others follow.
        secret: the same at every call.

    Returns: how many there are now.
    """
    mask = len(slots) - 1
    for n in range(len(new)):
        high, low = new[n, 0], new[n, 1]
        slot = first_slot(high, low, secret, len(slots))
        while True:
            entry = slots[slot]
            if entry < 0:
                slots[slot] = used
                digests[used, 0], digests[used, 1] = high, low
                places[used] = place + n
                used += 1
                break
            if digests[entry, 0] == high and digests[entry, 1] == low:
                places[entry] = place + n
                break
            slot = (slot + 1) & mask
    return used


@kernel("int64(int32[::1], uint64[:, ::1], int64[::1], uint64[:, ::1], int64[::1], uint64)")
def young_find(slots: Slots, digests: Words, places: Ints, asked: Words, found: Ints, secret: int) -> int:
    """The place of each of `asked`.

    Args:
        slots: as `young_put` left them.
        digests: likewise.
        places: likewise.
        asked: uint64[n, 2].
        found: int64[n], written: the place, -1 where the digest is not there.
        secret: that of `young_put`.

    Returns: how many are there.
    """
    mask = len(slots) - 1
    count = 0
    for n in range(len(asked)):
        high, low = asked[n, 0], asked[n, 1]
        slot = first_slot(high, low, secret, len(slots))
        found[n] = -1
        while True:
            entry = slots[slot]
            if entry < 0:
                break
            if digests[entry, 0] == high and digests[entry, 1] == low:
                found[n] = places[entry]
                count += 1
                break
            slot = (slot + 1) & mask
    return count
