"""The encoding of ids and times in the state's keys and values."""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

_TIME: Final = struct.Struct(">Q")


def digest_of(text: str) -> bytes:
    """16 bytes that stand for an id in state: XXH3, 128 bits, the same in every version of everything.

    It need not withstand an attacker: a client that knows an id can send that id itself, and two colliding ids of its own
    give a client nothing. By chance, two of 10^12 ids share a digest with a probability of 10^-15.
    """
    return xxh3_128_digest(text.encode())


def digests_of(texts: Sequence[str]) -> list[bytes]:
    """`digest_of` of each text."""
    return list(map(xxh3_128_digest, map(str.encode, texts)))


def digests_in(keys: bytes) -> npt.NDArray[np.uint64]:
    """The digests that `keys` consists of, one after the other: uint64[n, 2], each its high and its low half."""
    return np.frombuffer(keys, ">u8").astype(np.uint64).reshape(-1, 2)


def keys_of(digests: npt.NDArray[np.uint64]) -> bytes:
    """The keys of digests, uint64[n, 2], one after the other."""
    return digests.astype(">u8").tobytes()


def pack_time(moment_ms: int) -> bytes:
    """8 bytes that sort like the time."""
    return _TIME.pack(moment_ms)


def unpack_time(value: bytes) -> int:
    """The time in the first 8 bytes of a state value."""
    moment: int = _TIME.unpack_from(value)[0]
    return moment
