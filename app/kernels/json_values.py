"""A JSON value copied into a string, without white space: how a client's `properties` are stored."""

from typing import Final

from app.kernels.cells import Bytes, Ints, Words
from app.kernels.compiled import kernel
from app.kernels.json_text import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    DOUBT,
    OPEN_ARRAY,
    OPEN_OBJECT,
    POINT,
    QUOTE,
    copy,
    copy_string,
    end_of_any_number,
    end_of_number,
    signature,
    skip_space,
)
from app.kernels.loads import load32

MOST_DEPTH: Final = 16
"""Deepest nesting that is copied."""
MOST_KEYS: Final = 96
"""Most keys of the objects that are open at one moment; the keys of each are compared with one another."""
QUESTION_NUMBER, QUESTION_ADDRESS = range(2)
ASKED, ASKED_AT, ASKED_END, ASKED_LINE = range(4)
COUNT: Final = 0
WRITTEN: Final = 1
"""`questions`, int64[m, 4]: what only the caller can say, whether a number or an address is written as an encoder writes it.
Each has its kind ASKED, its place and its end in the text, and its line. Row COUNT has the number of questions in column 0;
its column WRITTEN is the caller's."""
_TRUE, _FALSE, _NULL = (int.from_bytes(word, "little") for word in (b"true", b"alse", b"null"))


@kernel("int64(uint8[::1], int64)")
def end_of_literal(text: Bytes, at: int) -> int:
    """The place behind true, false or null at `at`; else DOUBT."""
    word = load32(text, at)
    if word in (_TRUE, _NULL):
        return at + 4
    if text[at] == ord("f") and load32(text, at + 1) == _FALSE:
        return at + 5
    return DOUBT


@kernel("int64(uint64[::1], int64, int64)")
def is_new(keys: Words, first: int, count: int) -> int:
    """Whether keys[count] differs from each of keys[first:count]."""
    for place in range(first, count):
        if keys[place] == keys[count]:
            return 0
    return 1


@kernel("UniTuple(int64, 2)(uint8[::1], int64, int64, uint8[::1], int64, uint64[::1], int64, int64)")
def copy_key(text: Bytes, at: int, end: int, target: Bytes, to: int, keys: Words, first: int, count: int) -> tuple[int, int]:
    """Copy a key and its colon into a string; its signature becomes keys[count].

    Returns: the places of the value in `text` and in `target`; the first is DOUBT if there is no key, or if one of
        keys[first:count] may be equal.
    """
    if count >= MOST_KEYS or text[at] != QUOTE:
        return DOUBT, to
    start = to
    at, to = copy_string(text, at, target, to, 1)
    if at == DOUBT:
        return DOUBT, to
    keys[count] = signature(target, start, to - start)
    at = skip_space(text, at, end)
    if text[at] != COLON or not is_new(keys, first, count):
        return DOUBT, to
    target[to] = COLON
    return skip_space(text, at + 1, end), to + 1


@kernel("int64(int64[:, ::1], int64, int64, int64)")
def ask(questions: Ints, what: int, at: int, end: int) -> int:
    """Add a question about text[at:end]; DOUBT if there is no room."""
    count = questions[COUNT, 0] + 1
    if count == questions.shape[0]:
        return DOUBT
    questions[COUNT, 0] = count
    questions[count, ASKED] = what
    questions[count, ASKED_AT] = at
    questions[count, ASKED_END] = end
    return 0


@kernel("UniTuple(int64, 2)(uint8[::1], int64, uint8[::1], int64, int64[:, ::1])")
def copy_scalar(text: Bytes, at: int, target: Bytes, to: int, questions: Ints) -> tuple[int, int]:
    """Copy a string, a number or a literal into a string; the places behind, the first is DOUBT for anything else."""
    if text[at] == QUOTE:
        return copy_string(text, at, target, to, 1)
    end = end_of_literal(text, at)
    if end == DOUBT:
        end = end_of_number(text, at)
    if end == DOUBT or text[end] == POINT or text[end] | 0x20 == ord("e"):
        end = end_of_any_number(text, at)
        if end == DOUBT or ask(questions, QUESTION_NUMBER, at, end) == DOUBT:
            return DOUBT, to
    return end, copy(target, to, text, at, end - at)


@kernel("UniTuple(int64, 3)(uint8[::1], int64, int64, uint8[::1], int64, uint64[::1], int64, int64[::1], int64[:, ::1])")
def copy_value(
    text: Bytes, at: int, end: int, target: Bytes, to: int, keys: Words, count: int, levels: Ints, questions: Ints
) -> tuple[int, int, int]:
    """Copy a value into a string: no white space, quotes and backslashes escaped, all as an encoder writes it.

    Args:
        text: uint8[size + PAD]; valid UTF-8, a control character at the end of the line.
        at: the first byte of the value.
        end: the end of the line.
        target: uint8[]; it gets at most two bytes for each that is read, and PAD more may be written.
        to: the place in `target`.
        keys: uint64[MOST_KEYS], signatures of the keys of open objects; the first `count` are not touched.
        count: see `keys`.
        levels: int64[MOST_DEPTH], used: of each open container the place of its first key, doubled, plus 1 for an object.
        questions: see `COUNT`; it gets those numbers of which an encoder may write another text.

    Returns: the places behind the value in `text` and `target`, and behind its own keys in `keys`. The first is DOUBT if
        the value is not JSON, nested deeper than `MOST_DEPTH`, has keys that may be equal, more than `MOST_KEYS` keys,
        an escape as `copy_escape` says, or more questions than there is room for.
    """
    depth = 0
    behind = count
    while True:
        opening = text[at]
        is_start = opening in (OPEN_OBJECT, OPEN_ARRAY)
        if is_start:
            if depth == MOST_DEPTH:
                return DOUBT, to, count
            levels[depth] = count << 1 | (opening == OPEN_OBJECT)
            depth += 1
            target[to] = opening
            to += 1
            at += 1
        else:
            at, to = copy_scalar(text, at, target, to, questions)
            if at == DOUBT:
                return DOUBT, to, count
        while depth > 0:
            is_object = levels[depth - 1] & 1
            at = skip_space(text, at, end)
            if text[at] == (CLOSE_OBJECT if is_object else CLOSE_ARRAY):
                target[to] = text[at]
                to += 1
                at += 1
                depth -= 1
                behind = count
                count = levels[depth] >> 1
                is_start = False
                continue
            if not is_start:
                if text[at] != COMMA:
                    return DOUBT, to, count
                target[to] = COMMA
                to += 1
                at = skip_space(text, at + 1, end)
            if is_object:
                at, to = copy_key(text, at, end, target, to, keys, levels[depth - 1] >> 1, count)
                if at == DOUBT:
                    return DOUBT, to, count
                count += 1
            break
        if depth == 0:
            return at, to, behind


@kernel("int64(uint8[::1], int64)")
def is_null(text: Bytes, at: int) -> int:
    """Whether the four bytes at `at` are null."""
    return load32(text, at) == _NULL
