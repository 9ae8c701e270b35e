"""Equal digests among those of one step."""

from app.kernels.cells import Ints, Words, int64
from app.kernels.compiled import kernel
from app.kernels.xxh3 import hash_digest


@kernel("int64(uint64[:, ::1], uint64, int64[::1], int64[::1])")
def find_firsts(digests: Words, secret: int, slots: Ints, firsts: Ints) -> int:
    """For each digest, the place of the first one that equals it.

    Args:
        digests: uint64[n, 2].
        secret: uint64 of the process.
        slots: int64[a power of two, more than n], zeros; written.
        firsts: int64[n], written.

    Returns: how many digests are not the first of their kind.
    """
    mask = len(slots) - 1
    repeats = 0
    for place in range(len(digests)):
        high, low = digests[place, 0], digests[place, 1]
        slot = int64(hash_digest(high, low, secret)) & mask
        while slots[slot] != 0:
            first = slots[slot] - 1
            if digests[first, 0] == high and digests[first, 1] == low:
                break
            slot = (slot + 1) & mask
        if slots[slot] == 0:
            slots[slot] = place + 1
        else:
            repeats += 1
        firsts[place] = slots[slot] - 1
    return repeats
