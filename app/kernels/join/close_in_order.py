"""The closing of events one after the other in the total order, until a budget is spent.

Several frames have events that are due, each in closing order. A heap has the next event of each frame: the order is due
time, first before second events, id, number of the frame.
"""

from typing import Final

import numpy as np

from app.kernels.cells import Ints
from app.kernels.compiled import kernel, part
from app.kernels.join.close import EXTRA, LATE, NO_FIRST, is_unmet, joining_of, last_in_time, locate, waiting_of
from app.kernels.join.layout import IDS, NONE, RECEIVED, SIZE, field, order_of

START: Final = 0
"""Column of `runs`: where a frame's slots begin."""
STOP: Final = 1
"""Where they end."""
KIND: Final = 2
"""0 first events, 1 second events."""
NUMBER: Final = 3
"""The frame's number."""
RUN_COLUMNS: Final = 4

DUE: Final = 0
"""Entry of a place in the order: due time, ms."""
DUE_KIND: Final = 1
DUE_WORDS: Final = 2
"""The first word of an id."""


@part
def _due(events: Ints, own: Ints, head: int, slot: int, kind: int, span: int, reorder: int) -> int:
    return field(events, own, head, slot, RECEIVED) + (span if kind == 0 else reorder)


@kernel("boolean(int64[:, ::1], int64[:, ::1], int64, int64[::1], int64[:, ::1], int64, int64, int64, int64)")
def _is_sooner(
    events: Ints, own: Ints, head: int, slots: Ints, runs: Ints, span: int, reorder: int, one: int, other: int
) -> bool:
    """Whether the next event of a run closes before that of another."""
    slot, second = slots[runs[one, START]], slots[runs[other, START]]
    due = _due(events, own, head, slot, runs[one, KIND], span, reorder)
    limit = _due(events, own, head, second, runs[other, KIND], span, reorder)
    if due != limit:
        return due < limit
    if runs[one, KIND] != runs[other, KIND]:
        return bool(runs[one, KIND] < runs[other, KIND])
    order = order_of(events, own, head, slot, second)
    return order < 0 or (order == 0 and bool(runs[one, NUMBER] < runs[other, NUMBER]))


@part
def _sink(
    events: Ints, own: Ints, head: int, slots: Ints, runs: Ints, span: int, reorder: int, heap: Ints, size: int, at: int
) -> None:
    """Move the run at a place of the heap below those that are sooner."""
    run = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _is_sooner(events, own, head, slots, runs, span, reorder, heap[child + 1], heap[child]):
            child += 1
        if not _is_sooner(events, own, head, slots, runs, span, reorder, heap[child], run):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = run


@part
def _is_passed(events: Ints, own: Ints, head: int, slot: int, due: int, kind: int, closed: Ints) -> bool:
    """Whether the place of an event in the order is `closed`, or before it."""
    if due != closed[DUE]:
        return bool(due < closed[DUE])
    if kind != closed[DUE_KIND]:
        return bool(kind < closed[DUE_KIND])
    for column in range(IDS, events.shape[1]):
        word = field(events, own, head, slot, column)
        if word != closed[DUE_WORDS + column - IDS]:
            return bool(word < closed[DUE_WORDS + column - IDS])
    return True


@part
def _leave(seconds: Ints, reasons: Ints, count: int, slot: int, reason: int) -> int:
    """Note a second event that no first event takes, if there is room for it. Returns how many there are then."""
    if count < len(seconds):
        seconds[count] = slot
        reasons[count] = reason
    return count + 1


@part
def _note(events: Ints, own: Ints, head: int, slot: int, due: int, kind: int, closed: Ints) -> None:
    """Everything up to an event is closed."""
    closed[DUE] = due
    closed[DUE_KIND] = kind
    for column in range(IDS, events.shape[1]):
        closed[DUE_WORDS + column - IDS] = field(events, own, head, slot, column)


@kernel(
    "UniTuple(int64, 4)(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, uint64,"
    " int64[::1], int64[:, ::1], int64, int64, int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def close_in_order(
    events: Ints,
    views: Ints,
    own: Ints,
    step_views: Ints,
    step_places: Ints,
    head: int,
    secret: int,
    slots: Ints,
    runs: Ints,
    span: int,
    reorder: int,
    budget: int,
    closed: Ints,
    firsts: Ints,
    joined: Ints,
    seconds: Ints,
    reasons: Ints,
) -> tuple[int, int, int, int]:
    """Close events that are due, in the total order. A decision is made while budget is left, and may overdraw it.

    Events at or before `closed` cost nothing that stops: they come from old blocks, and no later step could close them.

    Args:
        events: the events of the window.
        views: its page views.
        own: the events of the step.
        step_views: its page views.
        step_places: their hash table; empty if there are none.
        head: the first slot of `own`.
        secret: of the process.
        slots: int64[n], events that are due; those of a run stand together, in closing order.
        runs: int64[runs, RUN_COLUMNS], none empty; START moves on.
        span: first events are due so long after their receipt, ms.
        reorder: second events are due so long after their receipt, ms.
        budget: the sizes of the events that close may sum up to it.
        closed: int64[DUE_WORDS + words], the place up to which everything is closed; moves on.
        firsts: int64[n], written: the slots of first events that close.
        joined: int64[n], written: the slot of the second event of each, NONE if it takes none.
        seconds: int64[m], written: the slots of second events that no first event takes, as far as they have room.
        reasons: int64[m], written: the reason for each of them.

    Returns: how many first events close; how many second events are left alone: if they are more than m, the caller comes
        again with more room; 1 if an event that is due is left over, else 0; 1 if `closed` has moved, else 0.
    """
    heap = np.arange(len(runs))
    size = len(heap)
    for at in range(size // 2 - 1, -1, -1):
        _sink(events, own, head, slots, runs, span, reorder, heap, size, at)
    found = np.empty(64, np.int64)
    first_count = second_count = moved = 0
    while size > 0:
        run = heap[0]
        kind, slot = runs[run, KIND], slots[runs[run, START]]
        due = _due(events, own, head, slot, kind, span, reorder)
        forced = _is_passed(events, own, head, slot, due, kind, closed)
        if kind == 0:
            view, step_view = locate(events, views, own, step_views, step_places, head, secret, slot)
            joining, received = joining_of(views, step_views, view, step_view)
            waiting, last = 0, NONE
            if joining == slot:
                found, waiting = waiting_of(events, views, own, step_views, head, view, step_view, received - reorder, found)
                last = last_in_time(events, own, head, found, waiting, received + span)
            for at in range(waiting):
                if at == last:
                    continue
                if budget <= 0 and not forced:
                    return first_count, second_count, 1, moved
                budget -= field(events, own, head, found[at], SIZE)
                second_count = _leave(seconds, reasons, second_count, found[at], EXTRA if at < last else LATE)
            if budget <= 0 and not forced:
                return first_count, second_count, 1, moved
            budget -= field(events, own, head, slot, SIZE)
            firsts[first_count] = slot
            joined[first_count] = NONE
            if last != NONE:
                budget -= field(events, own, head, found[last], SIZE)
                joined[first_count] = found[last]
            first_count += 1
        elif is_unmet(events, views, own, step_views, step_places, head, secret, slot, reorder):
            if budget <= 0 and not forced:
                return first_count, second_count, 1, moved
            budget -= field(events, own, head, slot, SIZE)
            second_count = _leave(seconds, reasons, second_count, slot, NO_FIRST)
        if not forced:
            moved = 1
            _note(events, own, head, slot, due, kind, closed)
        runs[run, START] += 1
        if runs[run, START] == runs[run, STOP]:
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            _sink(events, own, head, slots, runs, span, reorder, heap, size, 0)
    return first_count, second_count, 0, moved
