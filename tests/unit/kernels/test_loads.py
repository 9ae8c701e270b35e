"""Loads at any place, the copy and the search say what plain Python says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.cells import Bytes, Words
from app.kernels.compiled import kernel
from app.kernels.loads import copy32, cttz, load32, load64, mulhi, special32
from tests.unit.kernels.shapes import arena_of

WORD = st.integers(0, 2**64 - 1)


@kernel("void(uint8[::1], int64, uint64[::1])")
def look(arena: Bytes, at: int, found: Words) -> None:
    found[0] = load64(arena, at)
    found[1] = load32(arena, at)
    found[2] = special32(arena, at)
    found[3] = cttz(found[2])


@kernel("void(uint8[::1], int64, uint8[::1], int64)")
def copy(target: Bytes, to: int, source: Bytes, at: int) -> None:
    copy32(target, to, source, at)


@kernel("uint64(uint64, uint64)")
def high_half(left: int, right: int) -> int:
    return mulhi(left, right)


@given(st.binary(min_size=40, max_size=80).map(lambda text: text + b'" \\\n\x1f\x20\x7f\x80\xff'), st.integers(0, 40))
def test_loads_and_search(text: bytes, at: int) -> None:
    found = np.zeros(4, np.uint64)
    arena = arena_of(text)
    look(arena, at, found)
    data = arena.tobytes()[at:]
    bits = sum(1 << n for n, byte in enumerate(data[:32]) if byte in b'"\\' or byte < 32)
    lowest = (bits & -bits).bit_length() - 1 if bits else 64
    assert found.tolist() == [int.from_bytes(data[:8], "little"), int.from_bytes(data[:4], "little"), bits, lowest]


@given(st.binary(min_size=60, max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_copy(text: bytes, at: int, to: int) -> None:
    target = np.zeros(80, np.uint8)
    copy(target, to, np.frombuffer(text, np.uint8).copy(), at)
    assert target.tobytes() == bytes(to) + text[at : at + 32] + bytes(48 - to)


@given(WORD, WORD)
def test_the_high_half_of_a_product(left: int, right: int) -> None:
    assert int(high_half(np.uint64(left), np.uint64(right))) == left * right >> 64
