"""Makes the bytes of a case from a target's samples and a seed."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

from tests.rig.fuzz.packed import damage_packed
from tests.rig.fuzz.target import Target
from tests.rig.fuzz.tree import NESTS, damage_tree

LONGEST: Final = 256 * 1024
"""A case has at most so many bytes: longer ones cost time and find nothing more."""
LENGTHS: Final = (
    b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\xff" * 7 + b"\x7f", b"\x40" + bytes(7), bytes(4), bytes(8),
)  # fmt: skip
"""Lengths of gigabytes and more, in either order of the bytes, and of nothing."""
PIECES: Final = (
    b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80", b"\x00", b"\xef\xbb\xbf", b"\xd9\xa3",
    b"\\u0000", b"\\ud800", b"\\N", b"\n", b"\r\n", b"\t", b'"', b"'", b"{", b"}", b"[", b"]", b"(", b")", b",", b":", b";",
    b"\\", b"null", b"NaN", b"1e999", b"-0", b"0" * 40, b"9" * 400, b"-9223372036854775809",
    b"\xc1", b"\xc7\xff", b"\xd9", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"--", b"/*", b"$$", b"%00", b"%", b"https://[",
)  # fmt: skip
"""Bytes that readers stumble over: bad UTF-8, ends of strings and brackets, absurd numbers, heads of msgpack."""
DEPTHS: Final = (10, 300, 1200, 20_000)
_TOKEN: Final = re.compile(rb"\w+|\s+|.", re.DOTALL)

Change = Callable[[bytes, random.Random], bytes]


def case(target: Target, seed: int) -> bytes:
    """The bytes of a target's case; the same for the same arguments."""
    chance = random.Random(f"{target.name} {seed}")
    if chance.random() < 0.03:
        return chance.randbytes(chance.choice((0, 1, 5, 40, 200)))
    data = chance.choice(target.samples)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        change = chance.choice(_CHANGES)
        data = _splice(data, chance, target.samples) if change is None else change(data, chance)
    return data[:LONGEST]


def _place(data: bytes, chance: random.Random) -> int:
    return chance.randint(0, len(data))


def _flip(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _other(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    count = chance.choice((1, 1, 2, 4, 8))
    return data[:at] + chance.randbytes(count) + data[at + count :]


def _cut_out(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 1, 2, 8, 64)) :]


def _cut_off(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[at:] if chance.random() < 0.2 else data[:at]


def _double(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    piece = data[at : at + chance.choice((1, 4, 16, 200, len(data)))]
    return data[:at] + piece * chance.choice((2, 2, 3, 50)) + data[at:]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(PIECES) + data[at + chance.choice((0, 0, 1)) :]


def _length(data: bytes, chance: random.Random) -> bytes:
    at, length = _place(data, chance), chance.choice(LENGTHS)
    return data[:at] + length + data[at + len(length) :]


def _nest(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(NESTS) * chance.choice(DEPTHS) + data[at:]


def _words(data: bytes, chance: random.Random) -> bytes:
    """Words dropped, doubled, exchanged."""
    words = _TOKEN.findall(data[:LONGEST])
    for _ in range(chance.choice((1, 1, 2, 4))):
        if len(words) < 2:
            break
        at, other = chance.randrange(len(words)), chance.randrange(len(words))
        match chance.randrange(4):
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[other])
            case 2:
                words[at], words[other] = words[other], words[at]
            case _:
                words[at] = words[other]
    return b"".join(words)


def _splice(data: bytes, chance: random.Random, samples: Sequence[bytes]) -> bytes:
    """The beginning of one sample and the end of another."""
    other = chance.choice(samples)
    at, behind = _place(data, chance), _place(other, chance)
    return data[:at] + other[behind:]


def _tree(data: bytes, chance: random.Random) -> bytes:
    return damage_tree(data, chance) or _words(data, chance)


def _packed(data: bytes, chance: random.Random) -> bytes:
    """The content of something compressed damaged, and compressed again."""
    change = chance.choice((_tree, _tree, _words, _insert, _other, _double))
    return damage_packed(data, lambda content: change(content[:LONGEST], chance), chance) or _flip(data, chance)


_CHANGES: Final[tuple[Change | None, ...]] = (
    _flip, _flip, _other, _cut_out, _cut_off, _double, _insert, _insert, _length, _nest, _words, _words,
    _tree, _tree, _tree, _tree, _tree, _packed, _packed, None,
)  # fmt: skip
"""Each with its weight; None is a splice."""
