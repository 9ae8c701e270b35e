"""An Avro file around records that are encoded already: header, blocks, sync markers.

The same records give the same file, whoever encoded them. Blocks are cut as fastavro cuts them; the sync marker is a digest
of the records, where other writers take random bytes.

Source: Avro specification, "Object Container Files".
"""

import hashlib
import io
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import Final

import fastavro

from app.core.formats.avro_schema import schema_of
from app.core.formats.file_codecs import AVRO_CODECS, Buffer
from app.core.formats.flows import BY_NAME

_BLOCK_BYTES: Final = 16_000
"""A record that brings its block to this size ends it: fastavro's default."""
_SYNC_BYTES: Final = 16


def avro_file(flow: str, records: memoryview, ends: Sequence[int]) -> bytes:
    """The Avro object container file of a flow's records.

    Args:
        flow: a flow's name; the codec is that of its format.
        records: the records in Avro's binary encoding, by the flow's schema, one after the other.
        ends: where each record ends in `records`.
    """
    marker = hashlib.blake2b(records, digest_size=_SYNC_BYTES).digest()
    codec, pack = AVRO_CODECS[BY_NAME[flow].format]
    pieces: list[Buffer] = [_header(flow, codec), marker]
    start = first = 0
    while first < len(ends):
        last = min(bisect_left(ends, start + _BLOCK_BYTES, first), len(ends) - 1)
        end = int(ends[last])
        body = pack(records[start:end])
        pieces += (_long(last + 1 - first), _long(len(body)), body, marker)
        start, first = end, last + 1
    return b"".join(pieces)


@cache
def _header(flow: str, codec: str) -> bytes:
    """The file's beginning, up to the sync marker."""
    file = io.BytesIO()
    fastavro.writer(file, schema_of(flow), [], codec=codec, sync_marker=bytes(_SYNC_BYTES))
    return file.getvalue()[:-_SYNC_BYTES]


def _long(count: int) -> bytes:
    """A long that is not negative: zig-zag, 7 bits a byte, the lowest first."""
    rest, packed = count << 1, bytearray()
    while rest >= 1 << 7:
        packed.append(rest & 127 | 128)
        rest >>= 7
    packed.append(rest)
    return bytes(packed)
