"""The position of a store, under key `position`: msgpack, an array.

Versions (rule E10): the array names no version; its length is one. Fields behind those that a reader knows are a newer
version's, because the next step writes the position anew and would drop them.
"""

from typing import Final

import msgspec

from app.core.formats.decoding import read, refuse_longer
from app.core.formats.step_history import Accepted


class StorePosition(msgspec.Struct, frozen=True, array_like=True):
    """The position of a store: the data of the last accepted step."""

    accepted: Accepted = Accepted()
    digest: bytes = b""
    """Of the last counted message (rule E5)."""
    source_last: int = -1
    """Offset on `blocks` up to which the source is applied."""
    stream_time_ms: int = 0
    meta: bytes | None = None
    """The ETL's own state between steps."""


_decoder: Final = msgspec.msgpack.Decoder(StorePosition)


def encode_position(position: StorePosition) -> bytes:
    """The store's value of a position."""
    return msgspec.msgpack.encode(position)


def decode_position(stored: bytes) -> StorePosition:
    """The position in a store's value.

    Raises:
        FormatInvalid: the bytes are no position.
        NewerFormat: a newer version stored it.
    """
    position = read(_decoder, stored, "position of a store")
    refuse_longer("position of a store", stored, len(StorePosition.__struct_fields__))
    return position
