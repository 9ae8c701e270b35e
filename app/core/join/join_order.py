"""An event's join key: the one order of first and second events in the join (rules J2, J3).

A join key is received_at, 8 bytes big-endian, then the event id in UTF-8. Join keys, compared as bytes, have the order of
(received_at, event_id), because UTF-8 keeps the order of code points. A value of state `views` is its stored time, packed in
the same way, then the join key of the joining first event. So two values, or a value and a packed time, compare by stored
time first.
"""

import struct
from collections.abc import Sequence
from operator import add
from typing import Final, NamedTuple

from app.core.formats.step_message import cut_evenly
from app.core.state.encoding import pack_time, unpack_time

TIME_BYTES: Final = 8
"""Width of a packed time."""
UNKNOWN: Final = 0
"""Stream time before the first watermark."""
FIRST: Final = 0
SECOND: Final = 1


class Due(NamedTuple):
    """A place in the one order in which the window closes (rules J2, J3). Everything up to it is closed."""

    due_ms: int = UNKNOWN
    kind: int = FIRST
    """FIRST before SECOND."""
    event_id: str = ""
    """Empty if no event that is due at `due_ms` itself is closed."""


def join_key_of(received_ms: int, event_id: str) -> bytes:
    """The join key of an event."""
    return pack_time(received_ms) + event_id.encode()


def join_keys_of(received_ms: Sequence[int], event_ids: Sequence[str]) -> list[bytes]:
    """The join key of each event."""
    times = cut_evenly(struct.pack(f">{len(received_ms)}Q", *received_ms), TIME_BYTES)
    return list(map(add, times, map(str.encode, event_ids)))


time_in: Final = unpack_time
"""The time in a join key."""


def id_in(join_key: bytes) -> str:
    """The id in a join key."""
    return join_key[TIME_BYTES:].decode()


def joining_key_in(view: bytes) -> bytes:
    """The join key in a value of state `views`."""
    return view[TIME_BYTES:]
