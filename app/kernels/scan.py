r"""A strict scanner of stored lines: it reads the one canonical form, and doubts everything else.

    {"name":value,...}LF      names of the table, each at most once; no space, no null

A value is a string, an integer in 64 bits, or `true` or `false`, as the field's kind says. A string has the short escapes
and `\u00xx` below U+0080; bytes of other characters stand as they are. The text must be UTF-8, which the caller checks.
"""

from typing import Final

import numpy as np

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, int64, uint8, uint64
from app.kernels.compiled import kernel, part
from app.kernels.loads import copy32, cttz, load32, load64, special32

DOUBT: Final = -1
TEXT, INTEGER, BOOLEAN, TAG = range(4)
"""Kinds of fields. A tag is a text of a given list."""
LONGEST_NAME: Final = 31
"""Bytes of the longest name and of the longest tag that a table can have."""
NAME_WORDS: Final = 4
SLOT_BITS: Final = 8
_SHORT: Final = 16
"""Bytes of the names that two words hold."""

_QUOTE, _BACKSLASH, _COLON, _COMMA, _OPEN, _CLOSE, _MINUS, _ZERO = b'"\\:,{}-0'
_LF: Final = 10
_MASKS: Final = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
"""The low bytes of a word."""


def words_of(text: bytes) -> list[int]:
    """The `NAME_WORDS` little-endian words of a name, padded with zeros."""
    padded = text.ljust(8 * NAME_WORDS, b"\0")
    return [int.from_bytes(padded[at : at + 8], "little") for at in range(0, len(padded), 8)]


def slot_of(name: bytes, multiplier: int) -> int:
    """The slot of a name in a table of 2**SLOT_BITS slots."""
    first, second, third, fourth = words_of(name)
    word = (first ^ len(name)) * multiplier + second
    if len(name) > _SHORT:
        word = (word * multiplier + third) * multiplier + fourth
    return (word * multiplier & (1 << 64) - 1) >> 64 - SLOT_BITS


def _byte_table(values: dict[int, int], others: int) -> Bytes:
    return np.array([values.get(byte, others) for byte in range(256)], np.uint8)


_UNESCAPED: Final = _byte_table(dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True)), 0)
_NO_DIGIT: Final = 99
_HEX: Final = _byte_table({digit: int(chr(digit), 16) for digit in b"0123456789abcdefABCDEF"}, _NO_DIGIT)
_U00, _U0000, _TRUE, _FALSE = (uint64(int.from_bytes(text, "little")) for text in (b"u00", b"u0000", b"true", b"false"))
_THREE_BYTES, _FOUR_BYTES, _FIVE_BYTES = (uint64((1 << 8 * size) - 1) for size in (3, 4, 5))
_SLOT_SHIFT: Final = uint64(64 - SLOT_BITS)
_MOST_DIGITS: Final = 19
_LARGEST: Final = uint64(2**63 - 1)


@part
def _name(arena: Bytes, at: int, names: Words, slots: Ints, multiplier: int) -> tuple[int, int]:
    """The field whose `"name":` is at `at`, -1 if there is none; and the place behind it."""
    if arena[at] != _QUOTE:
        return -1, at
    found = special32(arena, at + 1)
    size = int64(cttz(found))
    if size > LONGEST_NAME or arena[at + 1 + size] != _QUOTE or arena[at + 2 + size] != _COLON:
        return -1, at
    first, second = _word(arena, at + 1, size, 0), _word(arena, at + 1, size, 1)
    word = (first ^ uint64(size)) * multiplier + second
    if size > _SHORT:
        word = (word * multiplier + _word(arena, at + 1, size, 2)) * multiplier + _word(arena, at + 1, size, 3)
    field = slots[int64((word * multiplier) >> _SLOT_SHIFT)]
    if field >= 0 and not _is_name(arena, at + 1, size, first, second, names, field):
        field = -1
    return field, at + 3 + size


@part
def _word(arena: Bytes, at: int, size: int, number: int) -> int:
    """The word of this number in a text, padded with zeros."""
    return uint64(load64(arena, at + 8 * number) & _MASKS[min(max(size - 8 * number, 0), 8)])


@part
def _is_name(arena: Bytes, at: int, size: int, first: int, second: int, names: Words, row: int) -> bool:
    """Whether a text is names[row], given its first two words. No name has a zero byte, so equal words are equal lengths."""
    if first != names[row, 0] or second != names[row, 1]:
        return False
    return bool(_word(arena, at, size, 2) == names[row, 2] and _word(arena, at, size, 3) == names[row, 3])


@part
def _tag(arena: Bytes, cell: int, tags: Words) -> int:
    """The number of the tag that a text is; -1 if it is none."""
    at, size = cell >> LEN_BITS, cell & LEN_MASK
    if size > LONGEST_NAME:
        return -1
    first, second = _word(arena, at, size, 0), _word(arena, at, size, 1)
    for number in range(len(tags)):
        if _is_name(arena, at, size, first, second, tags, number):
            return number
    return -1


@part
def _special(arena: Bytes, at: int) -> int:
    """The place of the next quote, backslash or control character."""
    found = special32(arena, at)
    while found == uint64(0):
        at += 32
        found = special32(arena, at)
    return at + int64(cttz(found))


@part
def _text(arena: Bytes, at: int, side: int) -> tuple[int, int, int]:
    """The cell of the string at `at`; the place behind it, DOUBT if it is none; the new end of what is used."""
    if arena[at] != _QUOTE:
        return 0, DOUBT, side
    begin = at + 1
    end = _special(arena, begin)
    if arena[end] == _QUOTE:
        behind = end + 1
    else:
        behind, end = _unescape(arena, begin, end, side)
        begin, side = side, end
    if end - begin > LEN_MASK:
        behind = DOUBT
    return (begin << LEN_BITS) | (end - begin), behind, side


@part
def _unescape(arena: Bytes, begin: int, end: int, side: int) -> tuple[int, int]:
    """Write the string that begins at `begin` without its escapes to `side`; `end` is its first special byte.

    Returns: the place behind the closing quote, DOUBT if there is none or an escape is not as expected; and the end of what
        was written.
    """
    _copy(arena, side, begin, end - begin)
    side += end - begin
    while arena[end] == _BACKSLASH:
        character = _UNESCAPED[arena[end + 1]]
        begin = end + 2
        if character == 0:
            character = _control(arena, end + 1)
            begin = end + 6
        if character == 0 or (character == _BACKSLASH and load64(arena, begin) & _FIVE_BYTES == _U0000):
            return DOUBT, side  # the careful reader takes the bytes of an escaped NUL for one wherever they stand
        arena[side] = character
        end = _special(arena, begin)
        _copy(arena, side + 1, begin, end - begin)
        side += 1 + end - begin
    return (end + 1 if arena[end] == _QUOTE else DOUBT), side


@part
def _control(arena: Bytes, at: int) -> int:
    """The character of `u00xx` at `at`, 1 to 127; 0 if it is another one, or none."""
    high, low = _HEX[arena[at + 3]], _HEX[arena[at + 4]]
    if load32(arena, at) & _THREE_BYTES != _U00 or high > 7 or low == _NO_DIGIT:
        return uint8(0)
    return uint8(high * 16 + low)


@part
def _copy(arena: Bytes, to: int, at: int, size: int) -> None:
    """Copy bytes to behind everything that is used; up to 31 more are written."""
    done = 0
    while done < size:
        copy32(arena, to + done, arena, at + done)
        done += 32


@part
def _integer(arena: Bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, and the place behind it; DOUBT if there is none, or it is not canonical or beyond 64 bits."""
    negative = arena[at] == _MINUS
    begin = at + 1 if negative else at
    end = begin
    value = uint64(0)
    while end - begin <= _MOST_DIGITS:
        digit = int64(arena[end]) - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * uint64(10) + uint64(digit)
        end += 1
    digits = end - begin
    if digits == 0 or digits > _MOST_DIGITS or (arena[begin] == _ZERO and (digits > 1 or negative)):
        return 0, DOUBT
    if value > _LARGEST + uint64(negative):
        return 0, DOUBT
    return (-int64(value) if negative else int64(value)), end


@part
def _boolean(arena: Bytes, at: int) -> tuple[int, int]:
    """1 or 0 for the `true` or `false` at `at`, and the place behind it; DOUBT if there is neither."""
    word = load64(arena, at)
    if word & _FOUR_BYTES == _TRUE:
        return 1, at + 4
    if word & _FIVE_BYTES == _FALSE:
        return 0, at + 5
    return 0, DOUBT


@kernel(
    "int64(uint8[::1], int64, int64, int64, uint64[:, ::1], int64[::1], uint64, int64[::1], uint64[:, ::1],"
    " int64, int64, int64[:, ::1], uint64[::1], int64[::1], int64[::1])"
)
def scan(
    arena: Bytes, start: int, stop: int, side: int,
    names: Words, slots: Ints, multiplier: int, kinds: Ints, tags: Words,
    first: int, lines: int, rec: Ints, present: Words, tag_of: Ints, starts: Ints,
) -> int:  # fmt: skip
    """Read the lines in arena[start:stop] into cells.

    Args:
        arena: uint8, with room for stop - start bytes and PAD behind `side`. arena[stop - 1] is LF, where every loop ends.
        start: where the first line begins.
        stop: the end of the last line.
        side: the end of what is used; strings with escapes are written there without them.
        names: uint64[fields, NAME_WORDS], `words_of` each field's name.
        slots: int64[2**SLOT_BITS], the field whose name has this slot, -1 if none has.
        multiplier: uint64, with which no two names have the same slot.
        kinds: int64[fields].
        tags: uint64[m, NAME_WORDS], `words_of` each text that a field of kind TAG may have.
        first: the place in `rec` of the first line.
        lines: how many lines there must be.
        rec: int64[first + lines or more, fields], written: the cells of the fields that a line has.
        present: uint64[as rec], written: the fields that each line has.
        tag_of: int64[as rec], written: the number of each line's tag, -1 if it has none.
        starts: int64[as rec], written: where each line begins.

    Returns: the new end of what is used; DOUBT if anything is not of the canonical form. Then the rows of `rec` and the
        bytes behind `side` have no meaning.
    """
    at = start
    line = first
    while at < stop:
        if line - first >= lines or arena[at] != _OPEN:
            return DOUBT
        starts[line] = at
        tag_of[line] = -1
        seen = uint64(0)
        while arena[at] != _CLOSE:  # at the bracket or a comma
            field, at = _name(arena, at + 1, names, slots, multiplier)
            if field < 0 or (seen >> uint64(field)) & uint64(1) != uint64(0):
                return DOUBT
            seen |= uint64(1) << uint64(field)
            kind = kinds[field]
            if kind == INTEGER:
                value, at = _integer(arena, at)
            elif kind == BOOLEAN:
                value, at = _boolean(arena, at)
            else:
                value, at, side = _text(arena, at, side)
                if kind == TAG and at >= 0:
                    tag_of[line] = _tag(arena, value, tags)
                    if tag_of[line] < 0:
                        return DOUBT
            if at < 0 or (arena[at] != _COMMA and arena[at] != _CLOSE):
                return DOUBT
            rec[line, field] = value
        if arena[at + 1] != _LF:
            return DOUBT
        present[line] = seen
        line += 1
        at += 2
    return side if line - first == lines else DOUBT


@kernel("boolean(int64[:, ::1], uint64[::1], int64[::1], int64, int64, uint64[::1], int64, int64, int64)")
def are_complete(
    rec: Ints, present: Words, tag_of: Ints, first: int, stop: int, required: Words, exempting: int, bounded: int, least: int
) -> bool:
    """Whether every line has the fields that it must have.

    Args:
        rec: int64[stop or more, fields].
        present: uint64[as rec].
        tag_of: int64[as rec], the number of each line's tag, -1 if it has none.
        first: the first line to look at.
        stop: the line behind the last one.
        required: uint64[tags], bits of the fields that a line with this tag must have.
        exempting: a line that has this field needs neither a tag nor other fields.
        bounded: a field, of kind integer, that every line must have.
        least: its least value.
    """
    for line in range(first, stop):
        has = present[line]
        if (has >> uint64(bounded)) & uint64(1) == uint64(0) or rec[line, bounded] < least:
            return False
        if (has >> uint64(exempting)) & uint64(1) == uint64(0):
            tag = tag_of[line]
            if tag < 0 or has & required[tag] != required[tag]:
                return False
    return True
