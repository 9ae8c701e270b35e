"""The order in which the events of a frame close, and how far a frame is closed."""

from typing import Final

import numpy as np

from app.kernels.cells import Ints
from app.kernels.compiled import kernel
from app.kernels.join.layout import IDS, RECEIVED, field, precedes

_RUN: Final = 8
"""So many are sorted by insertion."""


@kernel("void(int64[:, ::1], int64[:, ::1], int64, int64[::1], int64)")
def order_slots(events: Ints, own: Ints, head: int, slots: Ints, count: int) -> None:
    """Put slots into closing order: by time of receipt, then id; equal ones keep their order.

    Runs of `_RUN` are sorted by insertion, then pairs of runs are merged.

    Args:
        events: int64[capacity, IDS + words].
        own: int64[n, IDS + words].
        head: the first slot of `own`.
        slots: int64[count or more], the first `count` are sorted.
        count: how many.
    """
    for start in range(0, count, _RUN):
        for n in range(start + 1, min(start + _RUN, count)):
            slot, at = slots[n], n
            while at > start and precedes(events, own, head, slot, slots[at - 1]):
                slots[at] = slots[at - 1]
                at -= 1
            slots[at] = slot
    if count <= _RUN:
        return
    left = np.empty(count, np.int64)
    width = _RUN
    while width < count:
        for start in range(0, count - width, 2 * width):
            middle, stop = start + width, min(start + 2 * width, count)
            if not precedes(events, own, head, slots[middle], slots[middle - 1]):
                continue
            for n in range(width):
                left[n] = slots[start + n]
            one, two = 0, middle
            for at in range(start, stop):
                if two == stop or (one < width and not precedes(events, own, head, slots[two], left[one])):
                    slots[at] = left[one]
                    one += 1
                else:
                    slots[at] = slots[two]
                    two += 1
        width *= 2


@kernel("int64(int64[:, ::1], int64, int64, int64, int64[::1])")
def count_passed(events: Ints, base: int, length: int, moment: int, words: Ints) -> int:
    """How many events of a frame were received before `moment`, or at it with an id of at most `words`.

    Args:
        events: int64[capacity, IDS + words].
        base: slot of the frame's first event; the others follow, in closing order.
        length: its events.
        moment: ms.
        words: int64[words], an id; no words are no id, and none is at most that.

    Returns: 0 to `length`.
    """
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        at = (base + middle) & (events.shape[0] - 1)
        passed = events[at, RECEIVED] < moment
        if events[at, RECEIVED] == moment and len(words) > 0:
            passed = True
            for n in range(len(words)):
                if events[at, IDS + n] != words[n]:
                    passed = events[at, IDS + n] < words[n]
                    break
        if passed:
            low = middle + 1
        else:
            high = middle
    return low


@kernel("int64(int64[:, ::1], int64[:, ::1], int64, int64[::1], int64)")
def total_of(events: Ints, own: Ints, head: int, slots: Ints, column: int) -> int:
    """The sum of a column over the events in `slots`.

    Args:
        events: int64[capacity, IDS + words].
        own: int64[n, IDS + words].
        head: the first slot of `own`.
        slots: int64[m].
        column: one of the columns before IDS.
    """
    total = 0
    for slot in slots:
        total += field(events, own, head, slot, column)
    return total
