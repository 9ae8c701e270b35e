"""The state that the ETL keeps between two steps besides its tables: msgpack, in every step message.

Versions (rule E10): it names its version. A field that a reader does not know makes it a newer one, because the next step
writes the meta anew and would drop it.
"""

from typing import Final

import msgspec

from app.core.etl.stream_time import ShardWatermarks
from app.core.formats.dead_letter import Tally
from app.core.formats.decoding import read, read_versioned, refuse_unknown
from app.core.join.join_order import UNKNOWN, Due
from app.errors import StepMessageInvalid

META_VERSION: Final = 1


class EtlMeta(msgspec.Struct, frozen=True):
    """Stream time, the shards it comes from, how far the window is closed, and the tally of unreadable blocks."""

    version: int = META_VERSION
    stream_time_ms: int = UNKNOWN
    shards: ShardWatermarks = msgspec.field(default_factory=ShardWatermarks)
    closed: Due = Due()
    tally: Tally = Tally()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(EtlMeta)
_fields: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def encode_meta(meta: EtlMeta) -> bytes:
    """The bytes of `meta` in a step message."""
    return _encoder.encode(meta)


def decode_meta(packed: bytes | None) -> EtlMeta:
    """The meta in `packed`; a fresh one for None, before the first step.

    Raises:
        StepMessageInvalid: the bytes are no meta.
        NewerFormat: they are the meta of a newer version.
    """
    if packed is None:
        return EtlMeta()
    meta = read_versioned(_decoder, packed, "meta", META_VERSION, StepMessageInvalid)
    refuse_unknown("meta with field", read(_fields, packed, "meta", StepMessageInvalid), EtlMeta.__struct_fields__)
    return meta
