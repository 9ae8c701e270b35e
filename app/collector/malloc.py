"""Makes glibc's malloc give memory back: a bound on resident memory holds only for memory that is not kept for nothing."""

import ctypes
import sys
from typing import Final

_ARENA_MAX: Final = -8
_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 128 * 1024
"""A block of this size is given back to the system as soon as it is freed."""


def give_memory_back() -> None:
    """One arena for all threads, and blocks of bodies straight from the system; elsewhere than on glibc it does nothing.

    By default each of the threads that call S3, seal and parse keeps an arena of its own, and holes in it: with 128 MiB of
    events a collector then held twice its bound. Call it before the threads start.

    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
