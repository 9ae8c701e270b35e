"""The closing of events: the second event that a first event takes, and the second events that none takes.

The overlay of a step lies over the window. Page view n of `step_views` is new in the window, or it is number BASE there. It
has the joining first event that the step brought, or else the window's; and the step's second events besides the window's.
"""

from typing import Final

import numpy as np

from app.kernels.cells import Ints
from app.kernels.compiled import kernel, part
from app.kernels.join.closing_order import order_slots
from app.kernels.join.layout import (
    BASE,
    BROUGHT,
    FIRST,
    FIRST_RECEIVED,
    HEAD,
    HIGH,
    LOW,
    NEXT,
    NONE,
    RECEIVED,
    SIZE,
    VIEW,
    field,
    find,
)

NO_FIRST: Final = 0
EXTRA: Final = 1
LATE: Final = 2


@kernel("UniTuple(int64, 2)(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, uint64, int64)")
def locate(
    events: Ints, views: Ints, own: Ints, step_views: Ints, step_places: Ints, head: int, secret: int, slot: int
) -> tuple[int, int]:
    """The page view of an event without a decision: its numbers in `views` and in `step_views`, NONE where it is not."""
    if slot >= head:
        step_view = own[slot - head, VIEW]
        return step_views[step_view, BASE], step_view
    view = events[slot & (events.shape[0] - 1), VIEW]
    return view, find(step_places, step_views, views[view, HIGH], views[view, LOW], secret)


@part
def joining_of(views: Ints, step_views: Ints, view: int, step_view: int) -> tuple[int, int]:
    """Slot and time of receipt of the joining first event of a page view, if that is open; else NONE and anything."""
    if step_view != NONE and step_views[step_view, BROUGHT] != NONE:
        return step_views[step_view, FIRST], step_views[step_view, FIRST_RECEIVED]
    if view != NONE:
        return views[view, FIRST], views[view, FIRST_RECEIVED]
    return NONE, 0


@kernel(
    "Tuple((int64[::1], int64))(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64, int64, int64,"
    " int64[::1])"
)
def waiting_of(
    events: Ints, views: Ints, own: Ints, step_views: Ints, head: int, view: int, step_view: int, least: int, found: Ints
) -> tuple[Ints, int]:
    """The second events of a page view that wait, in order, less those received before `least`: (slots, how many).

    The slots are in `found`, or in a larger array if they are more.
    """
    count = 0
    for side in range(2):
        slot = NONE
        if side == 0 and view != NONE:
            slot = views[view, HEAD]
        if side == 1 and step_view != NONE:
            slot = step_views[step_view, HEAD]
        while slot != NONE:
            if field(events, own, head, slot, RECEIVED) >= least:
                if count == len(found):
                    larger = np.empty(2 * count, np.int64)
                    for at in range(count):
                        larger[at] = found[at]
                    found = larger
                found[count] = slot
                count += 1
            slot = field(events, own, head, slot, NEXT)
    if count > 1:
        order_slots(events, own, head, found, count)
    return found, count


@part
def last_in_time(events: Ints, own: Ints, head: int, found: Ints, count: int, upper: int) -> int:
    """The place of the last of `found` that was received by `upper`; NONE if there is none."""
    at = count - 1
    while at >= 0 and field(events, own, head, found[at], RECEIVED) > upper:
        at -= 1
    return at


@kernel(
    "UniTuple(int64, 2)(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, uint64,"
    " int64[::1], int64, int64, int64[::1], int64[::1], int64[::1])"
)
def close_firsts(
    events: Ints,
    views: Ints,
    own: Ints,
    step_views: Ints,
    step_places: Ints,
    head: int,
    secret: int,
    slots: Ints,
    span: int,
    reorder: int,
    joined: Ints,
    others: Ints,
    reasons: Ints,
) -> tuple[int, int]:
    """Find the second event that each first event takes, and those that it leaves over. Nothing changes.

    Args:
        events: the events of the window.
        views: its page views.
        own: the events of the step.
        step_views: its page views.
        step_places: their hash table; empty if there are none.
        head: the first slot of `own`.
        secret: of the process.
        slots: int64[n], the first events.
        span: a second event is in time if it was received at most so much later than its first event, ms,
        reorder: or at most so much earlier.
        joined: int64[n], written: the slot of its second event, NONE if it takes none.
        others: int64[m], written: the slots of second events that are left over, as far as they have room.
        reasons: int64[m], written: EXTRA or LATE for each of `others`.

    Returns: how many are left over, and the sizes of all second events together. If they are more than m, the caller comes
        again with more room.
    """
    count = cost = 0
    found = np.empty(64, np.int64)
    for n in range(len(slots)):
        slot = slots[n]
        joined[n] = NONE
        view, step_view = locate(events, views, own, step_views, step_places, head, secret, slot)
        joining, received = joining_of(views, step_views, view, step_view)
        if joining != slot:
            continue
        upper = received + span
        found, waiting = waiting_of(events, views, own, step_views, head, view, step_view, received - reorder, found)
        last = last_in_time(events, own, head, found, waiting, upper)
        for at in range(waiting):
            cost += field(events, own, head, found[at], SIZE)
            if at == last:
                joined[n] = found[at]
                continue
            if count < len(others):
                others[count] = found[at]
                reasons[count] = EXTRA if at < last else LATE
            count += 1
    return count, cost


@part
def is_unmet(
    events: Ints,
    views: Ints,
    own: Ints,
    step_views: Ints,
    step_places: Ints,
    head: int,
    secret: int,
    slot: int,
    reorder: int,
) -> bool:
    """Whether a second event that is due met no first event in time; otherwise its first event decides."""
    if field(events, own, head, slot, VIEW) == NONE:
        return False
    view, step_view = locate(events, views, own, step_views, step_places, head, secret, slot)
    joining, received = joining_of(views, step_views, view, step_view)
    return joining == NONE or received > field(events, own, head, slot, RECEIVED) + reorder


@kernel(
    "UniTuple(int64, 2)(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1], int64, uint64,"
    " int64[::1], int64, int64[::1])"
)
def close_seconds(
    events: Ints,
    views: Ints,
    own: Ints,
    step_views: Ints,
    step_places: Ints,
    head: int,
    secret: int,
    slots: Ints,
    reorder: int,
    unmet: Ints,
) -> tuple[int, int]:
    """Find the second events that met no first event in time. Nothing changes.

    Args:
        events: the events of the window.
        views: its page views.
        own: the events of the step.
        step_views: its page views.
        step_places: their hash table; empty if there are none.
        head: the first slot of `own`.
        secret: of the process.
        slots: int64[n], second events that are due, in order.
        reorder: a first event may come so much later than its second event, ms.
        unmet: int64[n], written: the slots of those that met none.

    Returns: how many met none, and their sizes together.
    """
    count = cost = 0
    for slot in slots:
        if is_unmet(events, views, own, step_views, step_places, head, secret, slot, reorder):
            unmet[count] = slot
            cost += field(events, own, head, slot, SIZE)
            count += 1
    return count, cost
