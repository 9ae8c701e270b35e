"""The page views of a step, each with its number, and what the window knows of it."""

import numpy as np

from app.kernels.cells import Ints
from app.kernels.compiled import kernel
from app.kernels.join.layout import (
    BASE,
    BROUGHT,
    FIRST,
    FIRST_RECEIVED,
    HEAD,
    HIGH,
    LOW,
    NONE,
    STORED,
    entry_of,
    find,
    number_in,
    tag_in,
    tag_of,
)


@kernel("int64(int64[:, ::1], uint64, int64[::1], int64[:, ::1], int64[::1], int64[:, ::1], int64[::1])")
def number_views(
    digests: Ints, secret: int, places: Ints, views: Ints, step_places: Ints, step_views: Ints, numbers: Ints
) -> int:
    """Give each page view of a step a number, and take over what the window knows of its joining first event.

    Args:
        digests: int64[n, 2], page view of each event: the two halves, as int64.
        secret: of the process.
        places: int64[2^k], hash table of `views`; never full.
        views: the page views of the window.
        step_places: int64[2^k], 2^k > n, all NONE; written: the hash table of `step_views`.
        step_views: int64[n, VIEW_COLUMNS], written.
        numbers: int64[n], written: the number of each event's page view.

    Returns: the number of page views.
    """
    count, mask = 0, len(step_places) - 1
    for n in range(len(digests)):
        high, low = digests[n, 0], digests[n, 1]
        tag = tag_of(high, low, secret)
        at, number = tag & mask, NONE
        while step_places[at] != NONE:
            found = number_in(step_places[at])
            if tag_in(step_places[at]) == tag and step_views[found, HIGH] == high and step_views[found, LOW] == low:
                number = found
                break
            at = (at + 1) & mask
        if number == NONE:
            number = count
            count += 1
            step_places[at] = entry_of(tag, number)
            base = find(places, views, high, low, secret)
            step_views[number, HIGH] = high
            step_views[number, LOW] = low
            step_views[number, BASE] = base
            step_views[number, HEAD] = NONE
            step_views[number, BROUGHT] = NONE
            step_views[number, FIRST] = NONE
            if base != NONE:
                step_views[number, FIRST] = views[base, FIRST]
                step_views[number, FIRST_RECEIVED] = views[base, FIRST_RECEIVED]
                step_views[number, STORED] = views[base, STORED]
        numbers[n] = number
    return count


@kernel("void(int64[::1], int64[::1])")
def move_places(old: Ints, new: Ints) -> None:
    """Put the entries of a hash table into a larger one.

    Args:
        old: int64[2^k].
        new: int64[2^m], m > k, all NONE; written.
    """
    mask = len(new) - 1
    for entry in old:
        if entry != NONE:
            at = tag_in(entry) & mask
            while new[at] != NONE:
                at = (at + 1) & mask
            new[at] = entry


def empty_places(events: int) -> Ints:
    """A hash table for at most so many page views, at most half full."""
    return np.full(1 << max(4, (2 * events).bit_length()), NONE, np.int64)
