"""The state that the ETL keeps between two steps besides its tables: msgpack, in every step message."""

from typing import Final

import msgspec

from app.core.etl.stream_time import ShardWatermarks
from app.core.formats.dead_letter import Tally
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


def encode_meta(meta: EtlMeta) -> bytes:
    """The bytes of `meta` in a step message."""
    return _encoder.encode(meta)


def decode_meta(packed: bytes | None) -> EtlMeta:
    """The meta in `packed`; a fresh one for None, before the first step.

    Raises:
        StepMessageInvalid: the bytes are no meta of this version.
    """
    if packed is None:
        return EtlMeta()
    try:
        meta = _decoder.decode(packed)
    except msgspec.DecodeError as exc:
        raise StepMessageInvalid(f"meta cannot be read: {exc}") from exc
    if meta.version != META_VERSION:
        raise StepMessageInvalid(f"meta of version {meta.version}, not {META_VERSION}")
    return meta
