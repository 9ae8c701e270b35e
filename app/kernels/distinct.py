"""Lines with equal values: what is asked of the values is asked once for each distinct combination."""

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel, part
from app.kernels.gather import has_field
from app.kernels.loads import load64
from app.kernels.xxh3 import hash_digest, hash_text


@part
def is_same(left: Bytes, at: int, right: Bytes, other: int, size: int) -> bool:
    """Whether left[at : at + size] is right[other : other + size]."""
    done = 0
    while done + 8 <= size:
        if load64(left, at + done) != load64(right, other + done):
            return False
        done += 8
    while done < size:
        if left[at + done] != right[other + done]:
            return False
        done += 1
    return True


@part
def _hash_of(arena: Bytes, rec: Ints, present: Words, line: int, fields: Ints, are_texts: Bytes, secret: int) -> int:
    """64 bits of a line's values."""
    word = secret
    for i in range(len(fields)):
        if not has_field(present, line, fields[i]):
            word = hash_digest(word, uint64(0), secret)
        elif are_texts[i]:
            cell = rec[line, fields[i]]
            word = hash_text(arena, cell >> LEN_BITS, cell & LEN_MASK, word)
        else:
            word = hash_digest(uint64(rec[line, fields[i]]), word, secret)
    return word


@part
def _are_equal(arena: Bytes, rec: Ints, present: Words, line: int, other: int, fields: Ints, are_texts: Bytes) -> bool:
    """Whether two lines have the same values."""
    for i in range(len(fields)):
        field = fields[i]
        held = has_field(present, line, field)
        if held != has_field(present, other, field):
            return False
        if not held:
            continue
        cell, rival = rec[line, field], rec[other, field]
        if cell == rival:
            continue
        size = cell & LEN_MASK
        if not are_texts[i] or size != rival & LEN_MASK:
            return False
        if not is_same(arena, cell >> LEN_BITS, arena, rival >> LEN_BITS, size):
            return False
    return True


@kernel(
    "int64(uint8[::1], int64[:, ::1], uint64[::1], int64[::1], int64[::1], uint8[::1], uint64, int64[::1], int64[::1], "
    "int64[::1])"
)
def group_lines(
    arena: Bytes, rec: Ints, present: Words, lines: Ints, fields: Ints, are_texts: Bytes, secret: int,
    slots: Ints, groups: Ints, firsts: Ints,
) -> int:  # fmt: skip
    """Number the distinct combinations of values that the chosen lines have in some fields.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        fields: int64[c]; an absent value is equal to an absent one alone.
        are_texts: uint8[c]: 1 for a field of texts, 0 for one of integers or booleans.
        secret: uint64, see `hash_text`.
        slots: int64[2^b], more than m, all -1: room for a table.
        groups: int64[m], written: the number of each line's combination, from 0, in the order in which they come.
        firsts: int64[m], written: for each combination the position in `lines` of the first line that has it.

    Returns: how many combinations there are.
    """
    mask, count = len(slots) - 1, 0
    for k in range(len(lines)):
        line = lines[k]
        slot = _hash_of(arena, rec, present, line, fields, are_texts, secret) & uint64(mask)
        group = slots[slot]
        while group >= 0 and not _are_equal(arena, rec, present, line, lines[firsts[group]], fields, are_texts):
            slot = (slot + uint64(1)) & uint64(mask)
            group = slots[slot]
        if group < 0:
            group = count
            slots[slot] = count
            firsts[count] = k
            count += 1
        groups[k] = group
    return count
