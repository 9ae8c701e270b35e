"""The tables of the join, and how a kernel reads them.

    events      int64[capacity, IDS + words]   a ring of the events in the window; `capacity` is a power of two
    own         int64[n, IDS + words]          events of one step that the window does not have, in any order
    views       int64[capacity, VIEW_COLUMNS]  the page views that events of the window name; a row is the page view's number
    step_views  int64[n, VIEW_COLUMNS]         the page views of one step

An event has a slot. The window gives slots in ascending order and never gives one again, so no slot ever means another
event; slot s lies in row `s % capacity` of `events`. `head` is the slot that the window gives next: slot head + n is row n
of `own`. Where a slot or a number is missing, the column has NONE.

An id is its bytes as words, big-endian, zeros behind its end, each with its highest bit flipped: so they sort as the bytes
do. The longest id decides how many words a table has, and no id has a zero byte.
"""

from typing import Final

from app.kernels.cells import Ints, int64, uint64
from app.kernels.compiled import kernel, part
from app.kernels.xxh3 import hash_digest

NONE: Final = -1

RECEIVED: Final = 0
"""received_at, ms."""
VIEW: Final = 1
"""Number of its page view, in `views` or, for a row of `own`, in `step_views`; NONE: the event has a decision."""
SIZE: Final = 2
ROW: Final = 3
"""Its row in its frame."""
FRAME: Final = 4
"""Number of its frame."""
NEXT: Final = 5
"""Slot of the next second event of its page view that waits."""
PREVIOUS: Final = 6
"""Slot of the one before; not used in `own`."""
IDS: Final = 7
"""The first word of its id."""

HIGH: Final = 0
"""High half of the digest."""
LOW: Final = 1
FIRST: Final = 2
"""Slot of its joining first event."""
FIRST_RECEIVED: Final = 3
"""received_at of that one."""
STORED: Final = 4
"""The time that state remembers for it."""
HEAD: Final = 5
"""Slot of one of its second events that wait, which leads to the others. Of a free number: the next free one."""
EVENTS: Final = 6
"""In `views`: how many events of the window name it; 0: its number is free. In `step_views`: its number in `views`."""
BROUGHT: Final = 7
"""In `step_views`: the block of the step that brought its joining first event."""
VIEW_COLUMNS: Final = 8
BASE: Final = EVENTS
"""The name of column `EVENTS` in `step_views`."""

_TAG: Final = 0xFFFFFFFF


@part
def tag_of(high: int, low: int, secret: int) -> int:
    """32 bits that a page view has in hash tables, from the int64 halves of its digest and the secret of the process."""
    return int64(hash_digest(uint64(high), uint64(low), secret) >> uint64(32))


@part
def entry_of(tag: int, number: int) -> int:
    """An entry of a hash table: the tag, then the number of the page view. NONE is an empty one."""
    return (tag << 32) | number


@part
def tag_in(entry: int) -> int:
    """The tag in an entry."""
    return (entry >> 32) & _TAG


@part
def number_in(entry: int) -> int:
    """The number in an entry."""
    return entry & _TAG


@part
def find(places: Ints, table: Ints, high: int, low: int, secret: int) -> int:
    """The number of a page view in `table`, whose hash table is `places`; NONE if it is not there or `places` is empty."""
    mask = len(places) - 1
    if mask < 0:
        return NONE
    tag = tag_of(high, low, secret)
    at = tag & mask
    while places[at] != NONE:
        number = number_in(places[at])
        if tag_in(places[at]) == tag and table[number, HIGH] == high and table[number, LOW] == low:
            return number
        at = (at + 1) & mask
    return NONE


@part
def field(events: Ints, own: Ints, head: int, slot: int, column: int) -> int:
    """A column of the event in a slot."""
    value: int = own[slot - head, column] if slot >= head else events[slot & (events.shape[0] - 1), column]
    return value


@kernel("int64(int64[:, ::1], int64[:, ::1], int64, int64, int64)")
def order_of(events: Ints, own: Ints, head: int, slot: int, other: int) -> int:
    """How the ids of two events compare: negative, 0 or positive. Other kernels call it; inlined it would be long.

    Args:
        events: int64[capacity, IDS + words].
        own: int64[n, IDS + words].
        head: the first slot of `own`.
        slot: of the one.
        other: of the other.
    """
    for column in range(IDS, events.shape[1]):
        one, two = field(events, own, head, slot, column), field(events, own, head, other, column)
        if one != two:
            return -1 if one < two else 1
    return 0


@part
def precedes(events: Ints, own: Ints, head: int, slot: int, other: int) -> bool:
    """Whether the event in a slot was received before another, or at the same time and its id is less."""
    one, two = field(events, own, head, slot, RECEIVED), field(events, own, head, other, RECEIVED)
    if one == two:  # often: a batch has one time; then the first word of the ids nearly always decides
        one, two = field(events, own, head, slot, IDS), field(events, own, head, other, IDS)
    return one < two or (one == two and order_of(events, own, head, slot, other) < 0)
