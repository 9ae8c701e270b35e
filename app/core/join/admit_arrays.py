"""The arrival of a step's first and second events in arrays: `app.core.join.join.admit_events` by kernels (rules J2, J3).

What is decided here is the same, and the proof at the head of `app.core.join.join` holds: which first event joins for each
page view, and which second events are late at once. The answer is an overlay of the window, which does not change.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from app.core.formats.step_message import Changes
from app.core.join.open_tables import OpenTables
from app.core.rules import JoinRules
from app.core.state.tables import KEY_BYTES
from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words
from app.kernels.join.admit import admit_events
from app.kernels.join.closing_order import order_slots
from app.kernels.join.event_ids import read_ids
from app.kernels.join.layout import BROUGHT, FIRST, HIGH, IDS, LOW, NONE, RECEIVED, SIZE, VIEW, VIEW_COLUMNS
from app.kernels.join.page_views import empty_places, number_views
from app.kernels.join.view_values import TIMES_BYTES, pack_views, read_known

Flags = npt.NDArray[np.bool_]


class Arrivals(NamedTuple):
    """New first events of a step, or new second events, in log order; n may be 0."""

    digests: Words
    """uint64[n, 2]: the digests of their page views, high and low half."""
    received_ms: Ints
    event_ids: Ints
    """int64[n]: text cells."""
    sizes: Ints
    """int64[n]: estimates of their bytes in a message."""
    blocks: Ints
    """int64[n], ascending: the place of the event's block among the step's blocks."""


class BlockTimes(NamedTuple):
    """The times of a step's blocks."""

    now_ms: Ints
    """int64[blocks]: stream time at each block."""
    stored_ms: Ints
    """int64[blocks]: the time that state remembers for it."""


class ViewReader(Protocol):
    """The state of a partition, of which the admission reads table `views`."""

    def get(self, table: str, keys: Sequence[bytes], /) -> list[bytes | None]:
        """The value of each key, None where there is none."""

    def maybe(self, table: str, digests: Words, /) -> Flags:
        """bool[n]: whether the table may have each digest; False is sure."""


class Values(NamedTuple):
    """Values of state `views`."""

    digests: Words
    """uint64[n, 2]: their page views."""
    arena: Bytes
    cells: Ints
    """int64[n]: where each value lies in the arena."""


class Overlay(NamedTuple):
    """The events of one step, which the window does not have, and their page views (`app.kernels.join.layout`)."""

    head: int
    """The slot of the first row of `own`: the slot that the window gives next."""
    own: Ints
    """First events, then second events, each in log order; then earlier joining first events."""
    firsts: int
    """How many first events."""
    seconds: int
    views: Ints
    places: Ints


class Numbered(NamedTuple):
    """The page views of a step."""

    views: Ints
    """int64[page views, VIEW_COLUMNS]: the table `step_views`."""
    places: Ints
    """Its hash table."""
    numbers: Ints
    """For each event its page view."""


class Admitted(NamedTuple):
    """The decisions at the arrival of a step's first and second events."""

    overlay: Overlay
    late: Ints
    """Positions of the second events that are late at once, ascending; the others have no decision yet."""
    views: Changes | None
    """The changes of table `views`: each page view whose joining first event is new."""
    first_slots: Ints
    """The slots of the first events, in closing order."""
    second_slots: Ints
    """The slots of the second events that are not late, in closing order."""


NO_EVENTS: Final = Arrivals(np.empty((0, 2), np.uint64), *(np.empty(0, np.int64) for _ in range(4)))
_NO_VIEWS: Final = np.empty((0, VIEW_COLUMNS), np.int64)
_NO_PLACES: Final = np.empty(0, np.int64)


def no_overlay(tables: OpenTables) -> Overlay:
    """The overlay of a step that brings no events."""
    return Overlay(tables.head, np.empty((0, tables.events.shape[1]), np.int64), 0, 0, _NO_VIEWS, _NO_PLACES)


def admit(  # noqa: PLR0913, PLR0917  (each is something of its own)
    tables: OpenTables,
    arena: Bytes,
    times: BlockTimes,
    first_events: Arrivals,
    second_events: Arrivals,
    state: ViewReader,
    rules: JoinRules,
    dedup_window_ms: int,
) -> Admitted:
    """Take new first and second events, block by block. The first events of a block arrive before its second events.

    Args:
        tables: the window; ids may get more room in it, nothing else changes.
        arena: the texts of the step.
        times: of its blocks.
        first_events: the new first events.
        second_events: the new second events.
        state: the partition's tables before the step.
        rules: the join's bounds.
        dedup_window_ms: how long state `views` remembers.
    """
    count = len(first_events.sizes) + len(second_events.sizes)
    if not count:
        return Admitted(no_overlay(tables), _NO_PLACES, None, _NO_PLACES, _NO_PLACES)
    numbered = number(tables, np.concatenate([first_events.digests, second_events.digests]))
    views = numbered.views
    unknown = np.flatnonzero(views[:, FIRST] == NONE)
    digests = np.ascontiguousarray(views[unknown][:, [HIGH, LOW]]).view(np.uint64)
    known, picks = _known(state, digests)
    cells = np.concatenate([first_events.event_ids, second_events.event_ids])
    tables.fit_ids(longest_id(cells, known))
    overlay = lay_over(tables, (arena, cells), known, (first_events, second_events), numbered)
    if len(picks):
        read_known(known.arena, known.cells, unknown[picks], overlay.own, count, overlay.head, views)
    late = np.empty(overlay.seconds, np.int64)
    behind = admit_events(
        tables.events, overlay.own, overlay.head, views, first_events.blocks, second_events.blocks,
        times.now_ms, times.stored_ms, rules.upper_ms, dedup_window_ms, late,
    )  # fmt: skip
    late = late[:behind]
    on_time = np.delete(np.arange(overlay.seconds), late) if behind else np.arange(overlay.seconds)
    return Admitted(
        overlay,
        late,
        _view_changes(arena, first_events.event_ids, overlay),
        in_closing_order(tables, overlay, np.arange(overlay.firsts)),
        in_closing_order(tables, overlay, on_time + overlay.firsts),
    )


def longest_id(cells: Ints, known: Values) -> int:
    """The bytes of the longest id among those in `cells`, and those of the joining first events in `known`."""
    return max(int((cells & LEN_MASK).max(initial=0)), int((known.cells & LEN_MASK).max(initial=0)) - TIMES_BYTES)


def number(tables: OpenTables, digests: Words) -> Numbered:
    """The page views of a step, each with what the window knows of it; `digests` are the page view of each event."""
    count = len(digests)
    places = empty_places(count)
    views, numbers = np.empty((count, VIEW_COLUMNS), np.int64), np.empty(count, np.int64)
    found = number_views(digests.view(np.int64), tables.secret, tables.places, tables.views, places, views, numbers)
    return Numbered(views[:found], places, numbers)


def lay_over(
    tables: OpenTables, texts: tuple[Bytes, Ints], known: Values, events: tuple[Arrivals, Arrivals], numbered: Numbered
) -> Overlay:
    """The overlay of first and second events, with room for the joining first events in `known`.

    Args:
        tables: the window, whose `fit_ids` has made room for the ids.
        texts: an arena, and the cells of the ids in it: of the first events, then of the second events.
        known: the joining first events.
        events: first and second events.
        numbered: their page views.
    """
    (first_events, second_events), (arena, cells) = events, texts
    firsts, count = len(first_events.sizes), len(cells)
    own = np.empty((count + len(known.cells), tables.events.shape[1]), np.int64)
    for part, start in ((first_events, 0), (second_events, firsts)):
        stop = start + len(part.sizes)
        own[start:stop, RECEIVED] = part.received_ms
        own[start:stop, SIZE] = part.sizes
    own[:count, VIEW] = numbered.numbers[:count]
    read_ids(arena, cells, own, 0)
    return Overlay(tables.head, own, firsts, count - firsts, numbered.views, numbered.places)


def in_closing_order(tables: OpenTables, overlay: Overlay, rows: Ints) -> Ints:
    """The slots of some rows of an overlay's `own`, in closing order."""
    received, words = overlay.own[rows, RECEIVED], overlay.own[rows, IDS]
    order = np.lexsort((words, received))
    slots = rows[order] + overlay.head
    received, words = received[order], words[order]
    if ((received[1:] == received[:-1]) & (words[1:] == words[:-1])).any():  # seldom: the ids begin alike
        order_slots(tables.events, overlay.own, overlay.head, slots, len(slots))
    return slots


def values_of(digests: Words, values: Sequence[bytes]) -> Values:
    """Values of state `views` as cells."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    starts = np.cumsum(lengths) - lengths
    arena = np.frombuffer(bytearray().join([*values, bytes(PAD)]), np.uint8)  # kernels take what may be written
    return Values(digests, arena, (starts << LEN_BITS) | lengths)


def _known(state: ViewReader, digests: Words) -> tuple[Values, Ints]:
    """What state `views` has of some page views, and which of them it has."""
    asked = np.flatnonzero(state.maybe("views", digests)) if len(digests) else _NO_PLACES
    if not len(asked):
        return values_of(digests[:0], []), asked
    keys = keys_of(digests[asked])
    values = state.get("views", keys)
    picks = asked[[value is not None for value in values]]
    return values_of(digests[picks], [value for value in values if value is not None]), picks


def keys_of(digests: Words) -> list[bytes]:
    """The keys of digests in tables: 16 bytes each."""
    packed = digests.astype(">u8").tobytes()
    return [packed[at : at + 16] for at in range(0, len(packed), 16)]


def _in_key_order(high: Words, low: Words) -> Ints:
    """The order of digests by their halves, as their bytes sort."""
    order = high.argsort()
    ranked = high[order]
    return np.lexsort((low, high)) if (ranked[1:] == ranked[:-1]).any() else order


def _view_changes(arena: Bytes, cells: Ints, overlay: Overlay) -> Changes | None:
    views = overlay.views
    new = np.flatnonzero(views[:, BROUGHT] != NONE)
    if not len(new):
        return None
    new = new[_in_key_order(views[new, HIGH].view(np.uint64), views[new, LOW].view(np.uint64))]
    rows = views[new, FIRST] - overlay.head
    keys = np.empty(KEY_BYTES["views"] * len(new), np.uint8)
    ends = np.empty(len(new), np.uint32)
    values = np.empty(TIMES_BYTES * len(new) + int((cells[rows] & LEN_MASK).sum()), np.uint8)
    pack_views(arena, cells, overlay.own, views, overlay.head, new, keys, ends, values)
    return Changes("views", KEY_BYTES["views"], keys.tobytes(), ends.tobytes(), values.tobytes())
