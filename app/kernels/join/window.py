"""The changes of the open window: events come in, close, or get their decision; page views come and go with them.

counts   int64[3]   FREE: the first free number of `views`, which leads to the others; GIVEN: how many numbers were ever
                    given; LIVE: how many are in use
"""

from typing import Final

import numpy as np

from app.kernels.cells import Ints
from app.kernels.compiled import kernel, part
from app.kernels.join.layout import (
    BASE,
    BROUGHT,
    EVENTS,
    FIRST,
    FIRST_RECEIVED,
    FRAME,
    HEAD,
    HIGH,
    IDS,
    LOW,
    NEXT,
    NONE,
    PREVIOUS,
    RECEIVED,
    ROW,
    SIZE,
    STORED,
    VIEW,
    entry_of,
    number_in,
    tag_in,
    tag_of,
)

FREE: Final = 0
GIVEN: Final = 1
LIVE: Final = 2
COUNTS: Final = 3
NO_WORD: Final = np.iinfo(np.int64).min
"""A word of an id behind its end."""


@part
def _add_view(places: Ints, views: Ints, counts: Ints, secret: int, high: int, low: int) -> int:
    """The number of a page view that the window did not have."""
    number: int = counts[FREE]
    if number == NONE:
        number = counts[GIVEN]
        counts[GIVEN] += 1
    else:
        counts[FREE] = views[number, HEAD]
    counts[LIVE] += 1
    views[number, HIGH] = high
    views[number, LOW] = low
    views[number, FIRST] = NONE
    views[number, HEAD] = NONE
    views[number, EVENTS] = 0
    mask = len(places) - 1
    tag = tag_of(high, low, secret)
    at = tag & mask
    while places[at] != NONE:
        at = (at + 1) & mask
    places[at] = entry_of(tag, number)
    return number


@part
def _release(places: Ints, views: Ints, counts: Ints, secret: int, number: int) -> None:
    """One event fewer names a page view; without any its number is free."""
    views[number, EVENTS] -= 1
    if views[number, EVENTS] > 0:
        return
    mask = len(places) - 1
    tag = tag_of(views[number, HIGH], views[number, LOW], secret)
    hole = tag & mask
    while number_in(places[hole]) != number or places[hole] == NONE:
        hole = (hole + 1) & mask
    at = hole
    while True:  # an entry behind the hole moves into it, unless its search begins behind the hole
        at = (at + 1) & mask
        if places[at] == NONE:
            break
        if ((at - tag_in(places[at])) & mask) >= ((at - hole) & mask):
            places[hole] = places[at]
            hole = at
    places[hole] = NONE
    views[number, HEAD] = counts[FREE]
    counts[FREE] = number
    counts[LIVE] -= 1


@kernel(
    "void(int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], uint64, int64[:, ::1], int64[:, ::1], int64[::1],"
    " int64[::1], int64, int64, int64, int64[::1])"
)
def add_frame(
    events: Ints,
    views: Ints,
    places: Ints,
    counts: Ints,
    secret: int,
    own: Ints,
    step_views: Ints,
    picks: Ints,
    rows: Ints,
    base: int,
    frame: int,
    waits: int,
    placed: Ints,
) -> None:
    """Take a frame of events into the window.

    Args:
        events: written, from slot `base` on; these slots are free.
        views: written; it has room for each page view of the frame.
        places: int64[2^k], the hash table of `views`, written; afterwards, too, not full.
        counts: written.
        secret: of the process.
        own: the events, with the words that `events` has; column VIEW is a row of `step_views`.
        step_views: their page views; BASE is written where the window did not have it.
        picks: int64[n], rows of `own`, in closing order.
        rows: int64[n], the row of each in its frame.
        base: slot of the first of them.
        frame: the frame's number.
        waits: 1 if they are second events, which wait for a decision, else 0.
        placed: int64[rows of `own`], written: the slot of each event.
    """
    mask = events.shape[0] - 1
    for n in range(len(picks)):
        slot, pick = base + n, picks[n]
        at = slot & mask
        events[at, RECEIVED] = own[pick, RECEIVED]
        events[at, SIZE] = own[pick, SIZE]
        events[at, ROW] = rows[n]
        events[at, FRAME] = frame
        for column in range(IDS, events.shape[1]):
            events[at, column] = own[pick, column]
        placed[pick] = slot
        step_view = own[pick, VIEW]
        view = step_views[step_view, BASE]
        if view == NONE:
            view = _add_view(places, views, counts, secret, step_views[step_view, HIGH], step_views[step_view, LOW])
            step_views[step_view, BASE] = view
        events[at, VIEW] = view
        views[view, EVENTS] += 1
        if waits:
            following = views[view, HEAD]
            events[at, NEXT] = following
            events[at, PREVIOUS] = NONE
            if following != NONE:
                events[following & mask, PREVIOUS] = slot
            views[view, HEAD] = slot


@kernel("void(int64[:, ::1], int64[:, ::1], int64, int64[::1])")
def set_joining(views: Ints, step_views: Ints, head: int, placed: Ints) -> None:
    """Let the new joining first events of page views join; one that closed on arrival joins no more.

    Args:
        views: written.
        step_views: int64[n, VIEW_COLUMNS]: those whose BROUGHT is not NONE have a new joining first event.
        head: the first slot of `own`.
        placed: int64[rows of `own`]: the slot in the window of each event, NONE for one that is not in it.
    """
    for n in range(len(step_views)):
        view = step_views[n, BASE]
        if step_views[n, BROUGHT] != NONE and view != NONE:
            views[view, FIRST] = placed[step_views[n, FIRST] - head]
            views[view, FIRST_RECEIVED] = step_views[n, FIRST_RECEIVED]
            views[view, STORED] = step_views[n, STORED]


@kernel("void(int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], uint64, int64, int64)")
def close_slots(events: Ints, views: Ints, places: Ints, counts: Ints, secret: int, start: int, stop: int) -> None:
    """First events close: they join no more.

    Args:
        events: written.
        views: written.
        places: written.
        counts: written.
        secret: of the process.
        start: the first of their slots.
        stop: the slot behind the last.
    """
    mask = events.shape[0] - 1
    for slot in range(start, stop):
        view = events[slot & mask, VIEW]
        events[slot & mask, VIEW] = NONE
        if views[view, FIRST] == slot:
            views[view, FIRST] = NONE
        _release(places, views, counts, secret, view)


@kernel("void(int64[:, ::1], int64[:, ::1], int64[::1], int64[::1], uint64, int64[::1])")
def decide_slots(events: Ints, views: Ints, places: Ints, counts: Ints, secret: int, slots: Ints) -> None:
    """Second events get their decision: they wait no more. One that has it keeps it.

    Args:
        events: written.
        views: written.
        places: written.
        counts: written.
        secret: of the process.
        slots: int64[n].
    """
    mask = events.shape[0] - 1
    for slot in slots:
        at = slot & mask
        view = events[at, VIEW]
        if view == NONE:
            continue
        following, before = events[at, NEXT], events[at, PREVIOUS]
        if before == NONE:
            views[view, HEAD] = following
        else:
            events[before & mask, NEXT] = following
        if following != NONE:
            events[following & mask, PREVIOUS] = before
        events[at, VIEW] = NONE
        _release(places, views, counts, secret, view)


@kernel("void(int64[:, ::1], int64[:, ::1], int64, int64)")
def move_events(old: Ints, new: Ints, base: int, length: int) -> None:
    """Put a frame's events into a larger ring; each keeps its slot.

    Args:
        old: int64[capacity, columns].
        new: int64[as large or larger, as many columns or more], written.
        base: slot of the frame's first event.
        length: its events.
    """
    for slot in range(base, base + length):
        source, target = slot & (old.shape[0] - 1), slot & (new.shape[0] - 1)
        for column in range(new.shape[1]):
            new[target, column] = old[source, column] if column < old.shape[1] else NO_WORD
