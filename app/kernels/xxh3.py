"""XXH3 of short texts, 128 bits, equal to package `xxhash`; and hashes for tables in memory.

Source: the short forms of the XXH3 specification (1 to 3, 4 to 8, 9 to 16 and 17 to 128 bytes) with seed 0.
"""

from typing import Final

from app.kernels.cells import Bytes, uint64
from app.kernels.compiled import part
from app.kernels.loads import load32, load64, mulhi

LONGEST: Final = 64
"""Bytes of the longest text that `xxh3_128` takes; no valid id is longer."""

_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
)
"""The first 64 bytes of the secret that XXH3 uses by default. It is public."""
(_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7) = (
    uint64(int.from_bytes(_SECRET[at : at + 8], "little")) for at in range(0, len(_SECRET), 8)
)
_P32_2: Final = uint64(0x85EBCA77)
_P64_1: Final = uint64(0x9E3779B185EBCA87)
_P64_2: Final = uint64(0xC2B2AE3D27D4EB4F)
_P64_3: Final = uint64(0x165667B19E3779F9)
_P64_4: Final = uint64(0x85EBCA77C2B2AE63)
_P_MX1: Final = uint64(0x165667919E3779F9)
_P_MX2: Final = uint64(0x9FB21C651E98DF25)
_LOW_HALF: Final = uint64(0xFFFFFFFF)


@part
def xxh3_128(arena: Bytes, at: int, size: int) -> tuple[int, int]:
    """The 128 bits of the text arena[at : at + size], as two uint64: (high, low).

    `xxhash.xxh3_128_digest` is these two numbers, big-endian, the high one first.

    Args:
        arena: uint8; a text of fewer than 16 bytes may be the last one, as no byte behind the text is read.
        at: where the text begins.
        size: its bytes, 1 to `LONGEST`.
    """
    if size > 16:
        return _of_17_to_64(arena, at, size)
    if size > 8:
        return _of_9_to_16(arena, at, size)
    if size > 3:
        return _of_4_to_8(arena, at, size)
    return _of_1_to_3(arena, at, size)


@part
def _of_17_to_64(arena: Bytes, at: int, size: int) -> tuple[int, int]:
    length = uint64(size)
    low = length * _P64_1
    high = uint64(0)
    if size > 32:
        low += _mixed(load64(arena, at + 16) ^ _S4, load64(arena, at + 24) ^ _S5)
        low ^= load64(arena, at + size - 32) + load64(arena, at + size - 24)
        high += _mixed(load64(arena, at + size - 32) ^ _S6, load64(arena, at + size - 24) ^ _S7)
        high ^= load64(arena, at + 16) + load64(arena, at + 24)
    low += _mixed(load64(arena, at) ^ _S0, load64(arena, at + 8) ^ _S1)
    low ^= load64(arena, at + size - 16) + load64(arena, at + size - 8)
    high += _mixed(load64(arena, at + size - 16) ^ _S2, load64(arena, at + size - 8) ^ _S3)
    high ^= load64(arena, at) + load64(arena, at + 8)
    both = low * _P64_1 + high * _P64_4 + length * _P64_2
    return uint64(0) - _avalanche(both), _avalanche(low + high)


@part
def _of_9_to_16(arena: Bytes, at: int, size: int) -> tuple[int, int]:
    first, last = load64(arena, at), load64(arena, at + size - 8)
    keyed = first ^ last ^ (_S4 ^ _S5)
    low, high = keyed * _P64_1, mulhi(keyed, _P64_1)
    low += (uint64(size) - uint64(1)) << uint64(54)
    last ^= _S6 ^ _S7
    high += last + (last & _LOW_HALF) * (_P32_2 - uint64(1))
    low ^= _swapped(high)
    return _avalanche(mulhi(low, _P64_2) + high * _P64_2), _avalanche(low * _P64_2)


@part
def _of_4_to_8(arena: Bytes, at: int, size: int) -> tuple[int, int]:
    keyed = (load32(arena, at) + (load32(arena, at + size - 4) << uint64(32))) ^ (_S2 ^ _S3)
    factor = _P64_1 + (uint64(size) << uint64(2))
    low, high = keyed * factor, mulhi(keyed, factor)
    high += low << uint64(1)
    low ^= high >> uint64(3)
    low ^= low >> uint64(35)
    low *= _P_MX2
    low ^= low >> uint64(28)
    return _avalanche(high), low


@part
def _of_1_to_3(arena: Bytes, at: int, size: int) -> tuple[int, int]:
    first, middle, last = uint64(arena[at]), uint64(arena[at + (size >> 1)]), uint64(arena[at + size - 1])
    low = (first << uint64(16)) | (middle << uint64(24)) | last | (uint64(size) << uint64(8))
    swapped = _swapped(low) >> uint64(32)
    high = ((swapped << uint64(13)) | (swapped >> uint64(19))) & _LOW_HALF
    low ^= (_S0 & _LOW_HALF) ^ (_S0 >> uint64(32))
    high ^= (_S1 & _LOW_HALF) ^ (_S1 >> uint64(32))
    return _avalanche_of_64(high), _avalanche_of_64(low)


@part
def _mixed(left: int, right: int) -> int:
    """The two halves of the product of two uint64, each bit of which many bits decide."""
    return (left * right) ^ mulhi(left, right)


@part
def _avalanche(word: int) -> int:
    word ^= word >> uint64(37)
    word *= _P_MX1
    return word ^ (word >> uint64(32))


@part
def _avalanche_of_64(word: int) -> int:
    word ^= word >> uint64(33)
    word *= _P64_2
    word ^= word >> uint64(29)
    word *= _P64_3
    return word ^ (word >> uint64(32))


@part
def _swapped(word: int) -> int:
    """The 8 bytes of a uint64 in the opposite order."""
    odd, even = uint64(0xFF00FF00FF00FF00), uint64(0x00FF00FF00FF00FF)
    word = ((word & even) << uint64(8)) | ((word & odd) >> uint64(8))
    upper, lower = uint64(0xFFFF0000FFFF0000), uint64(0x0000FFFF0000FFFF)
    word = ((word & lower) << uint64(16)) | ((word & upper) >> uint64(16))
    return (word << uint64(32)) | (word >> uint64(32))


@part
def hash_text(arena: Bytes, at: int, size: int, secret: int) -> int:
    """64 bits of the text arena[at : at + size], for a table in memory.

    Nobody who does not know `secret` can make texts whose hashes collide more often than by chance; so `secret` is an
    argument, a random uint64 of the process (`app.kernels.secret`). A constant would be compiled into the cached code.

    Args:
        arena: uint8; 16 bytes behind the text may be read, and do not matter.
        at: where the text begins.
        size: its bytes, 0 or more.
        secret: uint64.
    """
    word = _avalanche(secret + uint64(size) * _P64_1)
    done = 0
    while done + 16 <= size:
        word ^= _mixed(load64(arena, at + done) ^ secret, load64(arena, at + done + 8) ^ word)
        done += 16
    left = size - done
    if left > 0:
        first, second = load64(arena, at + done), load64(arena, at + done + 8)
        if left < 8:
            first &= (uint64(1) << uint64(8 * left)) - uint64(1)
            second = uint64(0)
        elif left < 16:
            second &= (uint64(1) << uint64(8 * (left - 8))) - uint64(1)
        word ^= _mixed(first ^ secret, second ^ word)
    return _avalanche(word)


@part
def hash_digest(high: int, low: int, secret: int) -> int:
    """64 bits of a digest, for a table in memory: clients choose ids, and can choose their digests' bits.

    Args:
        high: uint64, the digest's high half.
        low: uint64, its low half.
        secret: uint64, as in `hash_text`.
    """
    return _avalanche(_mixed(high ^ secret, low ^ _avalanche(secret + _P64_4)))
