"""Values of state `views`: stored time and received_at, each 8 bytes big-endian, then the id of the joining first event."""

from typing import Final

import numpy as np
import numpy.typing as npt

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, int64, uint8
from app.kernels.compiled import kernel, part
from app.kernels.join.event_ids import read_id, swapped
from app.kernels.join.layout import BROUGHT, FIRST, FIRST_RECEIVED, HIGH, LOW, RECEIVED, STORED, VIEW, precedes
from app.kernels.loads import load64

TIMES_BYTES: Final = 16
"""Bytes of the two times."""
KEY_BYTES: Final = 16
"""Bytes of a key: the digest."""


@part
def _number(arena: Bytes, at: int) -> int:
    return int64(swapped(load64(arena, at)))


@part
def _put(target: Bytes, at: int, number: int) -> None:
    for byte in range(8):
        target[at + byte] = uint8((number >> (56 - 8 * byte)) & 255)


@kernel("void(uint8[::1], int64[::1], int64[::1], int64[:, ::1], int64, int64, int64[:, ::1])")
def read_known(arena: Bytes, cells: Ints, numbers: Ints, own: Ints, row: int, head: int, step_views: Ints) -> None:
    """Take the joining first events that state knows, of page views of a step.

    Args:
        arena: uint8[size + PAD].
        cells: int64[n], where each value lies; it has at least `TIMES_BYTES` bytes.
        numbers: int64[n], its page view in `step_views`.
        own: written from `row` on: a row for each of these first events, with its time of receipt and its id.
        row: the first of n rows for them.
        head: the first slot of `own`.
        step_views: written: these first events join, and since when state remembers them.
    """
    for n in range(len(cells)):
        at, size, view = cells[n] >> LEN_BITS, cells[n] & LEN_MASK, numbers[n]
        own[row + n, RECEIVED] = _number(arena, at + 8)
        read_id(arena, at + TIMES_BYTES, size - TIMES_BYTES, own, row + n)
        step_views[view, FIRST] = head + row + n
        step_views[view, FIRST_RECEIVED] = own[row + n, RECEIVED]
        step_views[view, STORED] = _number(arena, at)


@kernel(
    "int64(uint8[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64, int64[::1], uint8[::1], uint32[::1], uint8[::1])"
)
def pack_views(
    arena: Bytes,
    cells: Ints,
    own: Ints,
    step_views: Ints,
    head: int,
    numbers: Ints,
    keys: Bytes,
    ends: npt.NDArray[np.uint32],
    values: Bytes,
) -> int:
    """Pack the keys and values of the page views whose joining first event is new.

    Args:
        arena: uint8[size + PAD].
        cells: int64[firsts], text cells: the ids of new first events, by their rows in `own`.
        own: the new events.
        step_views: the page views of the step.
        head: the first slot of `own`.
        numbers: int64[n], the page views to pack, in this order; the joining first event of each is in `own`.
        keys: uint8[n * KEY_BYTES], written.
        ends: uint32[n], written: the end of each value.
        values: uint8[n * TIMES_BYTES + bytes of the ids], written.

    Returns: the bytes of `values`.
    """
    end = 0
    for n in range(len(numbers)):
        view = numbers[n]
        row = step_views[view, FIRST] - head
        _put(keys, KEY_BYTES * n, step_views[view, HIGH])
        _put(keys, KEY_BYTES * n + 8, step_views[view, LOW])
        _put(values, end, step_views[view, STORED])
        _put(values, end + 8, own[row, RECEIVED])
        at, size = cells[row] >> LEN_BITS, cells[row] & LEN_MASK
        end += TIMES_BYTES
        for byte in range(size):
            values[end + byte] = arena[at + byte]
        end += size
        ends[n] = end
    return end


@kernel("void(int64[:, ::1], int64[:, ::1], int64, int64, int64, int64[:, ::1])")
def match_known(events: Ints, own: Ints, firsts: int, known: int, head: int, step_views: Ints) -> None:
    """Find among the first events of a frame those that join, after `read_known` has read the joining first events.

    Args:
        events: the events of the window.
        own: first events, and from row `known` on those that `read_known` read.
        firsts: how many first events: they are the first rows.
        known: the row.
        head: the first slot of `own`.
        step_views: their page views; of each whose joining first event is found, FIRST and BROUGHT are written.
    """
    for row in range(firsts):
        view = own[row, VIEW]
        joining = step_views[view, FIRST]
        if joining >= head + known and not (
            precedes(events, own, head, head + row, joining) or precedes(events, own, head, joining, head + row)
        ):
            step_views[view, FIRST] = head + row
            step_views[view, BROUGHT] = 0
