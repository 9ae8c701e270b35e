"""Pieces of reading a client's JSON: white space, keys, strings and numbers.

A text ends with a control character (an arena's bytes behind its text are zeros), so that no search leaves it. A reader
answers DOUBT for all that it does not read, also for much that is right: a slower and exact reader takes the line then.
"""

from typing import Final

from app.kernels.cells import Bytes, uint64
from app.kernels.compiled import kernel, part
from app.kernels.loads import copy32, cttz, load64, special32

DOUBT: Final = -1
MOST_DIGITS: Final = 18
"""Any integer of so many digits fits in 64 bits."""
MOST_DECIMALS: Final = 15
"""A decimal of so many digits is the shortest text of its double."""
QUOTE, BACKSLASH, SLASH, COMMA, COLON, PLUS, MINUS, POINT, ZERO, NINE = b'"\\/,:+-.09'
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = b"{}[]"
SPACE, TAB, LF, CR = b" \t\n\r"
_LETTER_E, _LETTER_U = b"eu"
_SHORT_ESCAPES: Final = (ord("b"), ord("f"), ord("n"), ord("r"), ord("t"), QUOTE, BACKSLASH)


@part
def skip_space(text: Bytes, at: int, end: int) -> int:
    """The place of the first byte at or behind `at` that is no white space; `end` at most."""
    while at < end and (text[at] == SPACE or text[at] == TAB or text[at] == LF or text[at] == CR):
        at += 1
    return at


@part
def end_of_plain(text: Bytes, at: int) -> int:
    """The place of the first quote, backslash or control character at or behind `at`."""
    found = special32(text, at)
    while found == uint64(0):
        at += 32
        found = special32(text, at)
    return at + cttz(found)


@part
def copy(target: Bytes, to: int, source: Bytes, at: int, size: int) -> int:
    """Copy source[at : at + size] to target[to:]; up to 31 bytes more are read and written. Returns the place behind."""
    for step in range(0, size, 32):
        copy32(target, to + step, source, at + step)
    return to + size


@kernel("uint64(uint8[::1], int64, int64)")
def signature(text: Bytes, at: int, size: int) -> int:
    """A word that is equal for equal texts text[at : at + size]; of other texts it nearly always differs."""
    first = load64(text, at)
    if size < 8:
        word = first & ((uint64(1) << uint64(8 * size)) - uint64(1))
    else:
        last = load64(text, at + size - 8)
        word = first ^ (last << uint64(29) | last >> uint64(35))
    word = (word ^ uint64(size)) * uint64(0x9E3779B97F4A7C15)
    return word ^ (word >> uint64(32))


@part
def is_same(left: Bytes, left_at: int, right: Bytes, right_at: int, size: int) -> bool:
    """Whether the two texts of `size` bytes are equal; up to 7 bytes behind each are read."""
    step = 0
    while step + 8 <= size:
        if load64(left, left_at + step) != load64(right, right_at + step):
            return False
        step += 8
    differ = load64(left, left_at + step) ^ load64(right, right_at + step)
    return (differ & ((uint64(1) << uint64(8 * (size - step))) - uint64(1))) == uint64(0)


@kernel("int64(uint8[::1], int64)")
def end_of_digits(text: Bytes, at: int) -> int:
    """The place behind the digits at `at`, 1 to `MOST_DIGITS` and no leading zero; else DOUBT."""
    start = at
    while ZERO <= text[at] <= NINE:
        at += 1
    digits = at - start
    if digits == 0 or digits > MOST_DIGITS or (digits > 1 and text[start] == ZERO):
        return DOUBT
    return at


@kernel("int64(uint8[::1], int64)")
def end_of_integer(text: Bytes, at: int) -> int:
    """The place behind the integer at `at`, as `end_of_digits` with or without a minus; DOUBT also for -0.

    A point or an exponent may follow: the caller looks at the next byte.
    """
    if text[at] != MINUS:
        return end_of_digits(text, at)
    return DOUBT if text[at + 1] == ZERO else end_of_digits(text, at + 1)


@kernel("int64(uint8[::1], int64, int64)")
def integer_in(text: Bytes, at: int, end: int) -> int:
    """The value of the integer text[at:end], as `end_of_integer` found it."""
    is_negative = text[at] == MINUS
    value = 0
    for place in range(at + is_negative, end):
        value = 10 * value + (text[place] - ZERO)
    return -value if is_negative else value


@kernel("int64(uint8[::1], int64)")
def end_of_number(text: Bytes, at: int) -> int:
    """The place behind the number at `at`, if its text is the one that an encoder writes; else DOUBT.

    That is an integer as `end_of_integer`, or a decimal of at most `MOST_DECIMALS` digits, from 0.0001 on, without an
    exponent and without a zero too many.
    """
    start = at + (text[at] == MINUS)
    is_zero = text[start] == ZERO
    end = end_of_digits(text, start)
    if end == DOUBT:
        return DOUBT
    if text[end] != POINT:
        return DOUBT if is_zero and start > at else end
    digits, first = end - start, end + 1
    at = first
    while text[at] == ZERO:
        at += 1
    zeros = at - first
    while ZERO <= text[at] <= NINE:
        at += 1
    decimals = at - first
    if decimals == 0 or digits + decimals > MOST_DECIMALS:
        return DOUBT
    if is_zero and (zeros == decimals or zeros > 3):
        return DOUBT
    return DOUBT if text[at - 1] == ZERO and decimals > 1 else at


@kernel("int64(uint8[::1], int64)")
def end_of_any_number(text: Bytes, at: int) -> int:
    """The place behind the number at `at`, whatever an encoder makes of it; DOUBT if it is not as JSON writes numbers."""
    at += text[at] == MINUS
    start = at
    while ZERO <= text[at] <= NINE:
        at += 1
    if at == start or (text[start] == ZERO and at - start > 1):
        return DOUBT
    if text[at] == POINT:
        start = at + 1
        at = start
        while ZERO <= text[at] <= NINE:
            at += 1
        if at == start:
            return DOUBT
    if text[at] | 0x20 == _LETTER_E:
        at += 1
        at += text[at] in (PLUS, MINUS)
        start = at
        while ZERO <= text[at] <= NINE:
            at += 1
        if at == start:
            return DOUBT
    return at


@part
def _hex_value(byte: int) -> int:
    if ZERO <= byte <= NINE:
        return byte - ZERO
    lower = byte | 0x20
    return lower - 87 if 97 <= lower <= 102 else DOUBT


@kernel("int64(uint8[::1], int64)")
def escaped_unit(text: Bytes, at: int) -> int:
    r"""The UTF-16 unit of the escape \uXXXX at `at`; DOUBT if there is none."""
    if text[at] != BACKSLASH or text[at + 1] != _LETTER_U:
        return DOUBT
    unit = 0
    for place in range(at + 2, at + 6):
        value = _hex_value(text[place])
        if value < 0:
            return DOUBT
        unit = 16 * unit + value
    return unit


@kernel("int64(uint8[::1], int64, int64)")
def write_character(target: Bytes, to: int, code: int) -> int:
    """Write the UTF-8 of a character from U+0080 on, or the byte of an earlier one; the place behind."""
    if code < 0x80:
        target[to] = code
        return to + 1
    if code < 0x800:
        target[to] = 0xC0 | code >> 6
    else:
        if code < 0x10000:
            target[to] = 0xE0 | code >> 12
        else:
            target[to] = 0xF0 | code >> 18
            target[to + 1] = 0x80 | (code >> 12 & 0x3F)
            to += 1
        target[to + 1] = 0x80 | (code >> 6 & 0x3F)
        to += 1
    target[to + 1] = 0x80 | (code & 0x3F)
    return to + 2


@kernel("UniTuple(int64, 2)(uint8[::1], int64, uint8[::1], int64, int64)")
def copy_escape(text: Bytes, at: int, target: Bytes, to: int, inside: int) -> tuple[int, int]:
    r"""Copy the escape at `at` as an encoder writes its character; `inside` a string, backslashes and quotes are escaped.

    Returns: the places behind in `text` and in `target`; the first is DOUBT for a control character that has no short
        escape, for U+0000, for half a surrogate pair, and for what is no escape.
    """
    letter = int(text[at + 1])
    code = DOUBT
    behind = at + 2
    if letter == SLASH:
        code = SLASH
    elif letter == _LETTER_U:
        code = escaped_unit(text, at)
        behind = at + 6
        if 0xD800 <= code < 0xDC00:
            low = escaped_unit(text, behind)
            code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF) if 0xDC00 <= low < 0xE000 else DOUBT
            behind += 6
        elif 0xDC00 <= code < 0xE000:
            code = DOUBT
        if code < SPACE:
            return DOUBT, to
        if code in (QUOTE, BACKSLASH):
            letter = code
            code = DOUBT
    elif letter not in _SHORT_ESCAPES:
        return DOUBT, to
    if code != DOUBT:
        return behind, write_character(target, to, code)
    target[to] = BACKSLASH
    to += 1
    if inside:
        target[to] = BACKSLASH
        to += 1
        if letter in (QUOTE, BACKSLASH):
            target[to] = BACKSLASH
            to += 1
    target[to] = letter
    return behind, to + 1


@kernel("UniTuple(int64, 2)(uint8[::1], int64, uint8[::1], int64, int64)")
def copy_string(text: Bytes, at: int, target: Bytes, to: int, inside: int) -> tuple[int, int]:
    """Copy the string whose quote is at `at` as an encoder writes it; `inside` a string, with its quotes escaped.

    Args:
        text: uint8[size + PAD]; valid UTF-8.
        at: the place of the quote.
        target: uint8[]; it gets at most two bytes for each that is read, and PAD more may be written.
        to: the place in `target`.
        inside: 1 if the copy stands inside another string, 0 if not.

    Returns: the places behind in `text` and in `target`; the first is DOUBT as `copy_escape`, or if the string has no end.
    """
    if inside:
        target[to] = BACKSLASH
        to += 1
    target[to] = QUOTE
    to += 1
    at += 1
    while True:
        stop = end_of_plain(text, at)
        to = copy(target, to, text, at, stop - at)
        if text[stop] == QUOTE:
            break
        if text[stop] != BACKSLASH:
            return DOUBT, to
        at, to = copy_escape(text, stop, target, to, inside)
        if at == DOUBT:
            return DOUBT, to
    if inside:
        target[to] = BACKSLASH
        to += 1
    target[to] = QUOTE
    return stop + 1, to + 1
