"""Texts to small numbers: a text gets the next number when it is met first, and keeps it."""

from typing import Final

from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words, int64, uint64
from app.kernels.compiled import kernel, part
from app.kernels.loads import copy32, load64
from app.kernels.xxh3 import hash_text

ABSENT: Final = 0
"""The number of a field that is absent. A slot that holds it is free."""


@part
def _equal(arena: Bytes, at: int, pool: Bytes, place: int, size: int) -> bool:
    """Whether `size` bytes of two arrays, each with PAD bytes behind them, are equal."""
    done = 0
    while done + 8 <= size:
        if load64(arena, at + done) != load64(pool, place + done):
            return False
        done += 8
    if done == size:
        return True
    differing = load64(arena, at + done) ^ load64(pool, place + done)
    return bool(differing << uint64(64 - 8 * (size - done)) == uint64(0))


@kernel(
    "int64(uint8[::1], int64[:, ::1], uint64[::1], int64, int64, uint64,"
    " int64[::1], uint64[::1], int64[::1], uint8[::1], int64[::1], int64[::1])"
)
def intern(
    arena: Bytes, rec: Ints, present: Words, field: int, first: int, secret: int,
    slots: Ints, hashes: Words, ends: Ints, pool: Bytes, known: Ints, numbers: Ints,
) -> int:  # fmt: skip
    """Number the text of one field of each line.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n or more, fields].
        present: uint64[n or more].
        field: the field, of kind text.
        first: the first line to look at.
        secret: uint64 of the process.
        slots: int64[a power of two, more than the texts], read and written: a number, or ABSENT in a free slot.
        hashes: uint64[texts], read and written: `hash_text` of each number's text.
        ends: int64[texts], read and written: a number's text is pool[ends[number - 1] : ends[number]]; ends[ABSENT] is 0.
        pool: uint8, read and written: the texts.
        known: int64[1], read and written: the next number; 1 at the beginning.
        numbers: int64[n], written: the number of each line's text, or ABSENT.

    Returns: the first line for whose text the arrays have no room, to go on from when they are larger; n if there is none.
    """
    mask = len(slots) - 1
    for line in range(first, len(numbers)):
        numbers[line] = ABSENT
        if (present[line] >> uint64(field)) & uint64(1) == uint64(0):
            continue
        at, size = rec[line, field] >> LEN_BITS, rec[line, field] & LEN_MASK
        word = hash_text(arena, at, size, secret)
        slot = int64(word) & mask
        while slots[slot] != ABSENT:
            number = slots[slot]
            begin = ends[number - 1]
            if hashes[number] == word and ends[number] - begin == size and _equal(arena, at, pool, begin, size):
                break
            slot = (slot + 1) & mask
        if slots[slot] == ABSENT:
            number = known[0]
            end = ends[number - 1]
            if number == len(hashes) or end + size + PAD > len(pool):
                return line
            done = 0
            while done < size:
                copy32(pool, end + done, arena, at + done)
                done += 32
            ends[number] = end + size
            hashes[number] = word
            slots[slot] = number
            known[0] = number + 1
        numbers[line] = slots[slot]
    return len(numbers)


@kernel("void(uint64[::1], int64, int64[::1])")
def fill_slots(hashes: Words, known: int, slots: Ints) -> None:
    """Put the numbers 1 to known - 1 into free slots.

    Args:
        hashes: uint64[known or more].
        known: the next number.
        slots: int64[a power of two, more than `known`], ABSENT everywhere; written.
    """
    mask = len(slots) - 1
    for number in range(1, known):
        slot = int64(hashes[number]) & mask
        while slots[slot] != ABSENT:
            slot = (slot + 1) & mask
        slots[slot] = number
