"""Stored frames of the window, and values of table `views`, as arrays."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.formats.decoding import reading
from app.core.formats.step_message import Changes
from app.core.join.admit_arrays import Arrivals, Overlay, Values, keys_of, lay_over, longest_id, number, values_of
from app.core.join.join_order import FIRST, SECOND
from app.core.join.open_tables import OpenTables
from app.core.join.window import FRAME_COLUMNS
from app.core.join.window_state import read_frame
from app.core.state.tables import StateReader
from app.errors import FormatInvalid
from app.kernels.cells import LEN_BITS, PAD, Ints, Words
from app.kernels.join.layout import BROUGHT
from app.kernels.join.view_values import KEY_BYTES, TIMES_BYTES, match_known, read_known

_LOADED_AT_ONCE: Final = 4096
_NO_BLOCKS: Final = np.empty(0, np.int64)


class StoredEvents(NamedTuple):
    """The columns of a stored frame that the join needs."""

    kind: int
    number: int
    digests: Words
    """uint64[n, 2]."""
    received_ms: Ints
    event_ids: list[bytes]
    sizes: Ints


def read_stored(kind: int, frame: int, packed: bytes) -> StoredEvents:
    """A stored frame of events of a kind.

    Raises:
        FormatInvalid: it is no such frame.
        NewerFormat: it has a value in a column that this reader does not know.
    """
    columns = read_frame(kind, packed, FRAME_COLUMNS)
    with reading(f"frame {frame} of the window"):
        digests: list[bytes] = columns["digest"].to_list()
        event_ids = list(map(str.encode, columns["event_id"].to_list()))
        received = columns["received_at"].to_numpy()
        if set(map(len, digests)) != {KEY_BYTES} or columns["received_at"].null_count() or received.min() < 0:
            raise FormatInvalid("a digest of another width, or no time of receipt")
        if any(b"\0" in event_id for event_id in event_ids):
            raise FormatInvalid("an id with a zero byte")
        sizes = np.array(columns["size"].to_list(), np.int64)
    return StoredEvents(kind, frame, _digests(b"".join(digests)), received.astype(np.int64), event_ids, sizes)


def values_in(views: Changes) -> Values:
    """The values that a step puts into table `views`.

    Raises:
        FormatInvalid: one is too short.
    """
    ends = np.frombuffer(views.value_ends, "<u4").astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    return _checked(
        Values(
            _digests(views.keys),
            np.frombuffer(bytearray().join([views.values, bytes(PAD)]), np.uint8),
            ((ends - lengths) << LEN_BITS) | lengths,
        ),
        lengths,
    )


def known_values(state: StateReader, events: StoredEvents, least_ms: int) -> Values:
    """What table `views` has of the page views of events that were received at `least_ms` or later."""
    digests = np.unique(events.digests[events.received_ms >= least_ms], axis=0)
    values: list[bytes | None] = []
    for start in range(0, len(digests), _LOADED_AT_ONCE):
        values += state.get("views", keys_of(digests[start : start + _LOADED_AT_ONCE]))
    there = np.array([value is not None for value in values], np.bool_)
    found = [value for value in values if value is not None]
    return _checked(values_of(digests[there], found), np.array(list(map(len, found)), np.int64))


def lay_over_stored(tables: OpenTables, new: Sequence[StoredEvents], known: Values | None, *, every: bool) -> Overlay:
    """The overlay of the events in stored frames.

    Args:
        tables: the window.
        new: the frames; the events of each kind keep their order.
        known: the joining first events of page views.
        every: whether all page views in `known` have a new joining first event; else those that have it in `new`.
    """
    arrivals = (_arrivals([part for part in new if part.kind == kind]) for kind in (FIRST, SECOND))
    (first_events, first_ids), (second_events, second_ids) = arrivals
    known = values_of(np.empty((0, 2), np.uint64), []) if known is None else known
    ids = values_of(known.digests, first_ids + second_ids)
    numbered = number(tables, np.concatenate([first_events.digests, second_events.digests, known.digests]))
    tables.fit_ids(longest_id(ids.cells, known))
    overlay = lay_over(tables, (ids.arena, ids.cells), known, (first_events, second_events), numbered)
    views, numbers, count = numbered.views, numbered.numbers, len(ids.cells)
    read_known(known.arena, known.cells, numbers[count:], overlay.own, count, overlay.head, views)
    if every:
        views[numbers[count:], BROUGHT] = 0
    match_known(tables.events, overlay.own, overlay.firsts, count, overlay.head, views)
    return overlay


def _arrivals(parts: Sequence[StoredEvents]) -> tuple[Arrivals, list[bytes]]:
    """Events of one kind, and their ids."""
    digests = np.concatenate([np.empty((0, 2), np.uint64), *(part.digests for part in parts)])
    received = np.concatenate([_NO_BLOCKS, *(part.received_ms for part in parts)])
    sizes = np.concatenate([_NO_BLOCKS, *(part.sizes for part in parts)])
    return Arrivals(digests, received, _NO_BLOCKS, sizes, _NO_BLOCKS), [i for part in parts for i in part.event_ids]


def _checked(values: Values, lengths: Ints) -> Values:
    if len(lengths) and lengths.min() < TIMES_BYTES:
        raise FormatInvalid(f"value in table views of {lengths.min()} bytes")
    return values


def _digests(packed: bytes) -> Words:
    return np.ascontiguousarray(np.frombuffer(packed, ">u8").astype(np.uint64).reshape(-1, 2))
