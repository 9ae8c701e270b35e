"""Loads and copies by address say what plain Python says, and touch nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.cells import Bytes, Ints
from app.kernels.compiled import kernel
from app.kernels.memory import byte_at, copy_from, half_at, word_at


@kernel("void(int64, int64[::1])")
def look(address: int, found: Ints) -> None:
    found[0], found[1], found[2] = byte_at(address), half_at(address), word_at(address)


@kernel("void(uint8[::1], int64, int64, int64)")
def copied(target: Bytes, to: int, address: int, size: int) -> None:
    copy_from(target, to, address, size)


@given(st.binary(min_size=8, max_size=40), st.integers(0, 32))
def test_loads(held: bytes, at: int) -> None:
    at = min(at, len(held) - 8)
    array, found = np.frombuffer(held, np.uint8), np.zeros(3, np.int64)
    look(array.ctypes.data + at, found)
    signed = [int.from_bytes(held[at : at + size], "little", signed=True) for size in (4, 8)]
    assert found.tolist() == [held[at], *signed]


@given(st.binary(max_size=100), st.integers(0, 9))
def test_a_copy_ends_where_its_bytes_end(held: bytes, to: int) -> None:
    array, target = np.frombuffer(held, np.uint8), np.full(to + len(held) + 40, 0xAA, np.uint8)
    copied(target, to, array.ctypes.data, len(held))
    assert target.tobytes() == b"\xaa" * to + held + b"\xaa" * 40
