"""Damages the content of compressed bytes: damage to the bytes themselves seldom gets past a checksum."""

import bz2
import random
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import zstandard

MOST_CONTENT: Final = 1024 * 1024


class _Codec(NamedTuple):
    magic: bytes
    unpack: Callable[[bytes], bytes]
    pack: Callable[[bytes], bytes]


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(content) + packer.flush()


_CODECS: Final = (
    _Codec(b"\x28\xb5\x2f\xfd", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(MOST_CONTENT),
           lambda content: zstandard.ZstdCompressor().compress(content)),
    _Codec(b"\x1f\x8b\x08", lambda data: zlib.decompressobj(wbits=31).decompress(data, MOST_CONTENT), _gzip),
    _Codec(b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data, MOST_CONTENT), bz2.compress),
)  # fmt: skip


def damage_packed(data: bytes, change: Callable[[bytes], bytes], chance: random.Random) -> bytes | None:
    """`data` with the content of its first compressed part changed; None if no part can be opened."""
    for codec in _CODECS:
        at = data.find(codec.magic)
        if at < 0:
            continue
        try:
            content = codec.unpack(data[at:])
        except (zstandard.ZstdError, zlib.error, OSError, ValueError, EOFError):
            continue
        packed = data[:at] + codec.pack(change(content))
        return packed + packed[at:] if chance.random() < 0.05 else packed
    return None
