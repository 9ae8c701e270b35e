"""A request's content cut into its lines: at line feeds, or at the commas of an array."""

from typing import Final

from app.kernels.cells import Bytes, Ints, uint64
from app.kernels.compiled import kernel, part
from app.kernels.json_text import (
    BACKSLASH,
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COMMA,
    CR,
    DOUBT,
    LF,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    end_of_plain,
    skip_space,
)
from app.kernels.loads import cttz, load64

_LOWEST: Final = uint64(0x0101010101010101)
_HIGHEST: Final = uint64(0x8080808080808080)
_LINE_FEEDS: Final = uint64(LF * 0x0101010101010101)


@kernel("int64(uint8[::1], int64)")
def count_marks(text: Bytes, size: int) -> int:
    """The commas and opening brackets in text[:size]."""
    count = 0
    for place in range(size):
        byte = text[place]
        count += (byte == COMMA) | (byte == OPEN_ARRAY) | (byte == OPEN_OBJECT)
    return count


@part
def _end_of_line(text: Bytes, at: int, size: int) -> int:
    """The place of the first line feed at or behind `at`, eight bytes at a time; `size` if there is none before it."""
    while at < size:
        other = load64(text, at) ^ _LINE_FEEDS
        found = (other - _LOWEST) & ~other & _HIGHEST
        if found != uint64(0):
            at += cttz(found) >> uint64(3)
            return min(at, size)
        at += 8
    return size


@kernel("int64(uint8[::1], int64, int64[::1], int64[::1])")
def cut_lines(text: Bytes, size: int, starts: Ints, ends: Ints) -> int:
    """Cut text[:size] at line feeds.

    One carriage return before a line feed is no part of a line; empty lines are skipped.

    Args:
        text: uint8[size + PAD].
        size: the bytes of the text; the last line may have no line feed.
        starts: int64[n], written: the place of each line.
        ends: int64[n], written: the place behind each line.

    Returns: the number of lines; DOUBT if there are more than n.
    """
    count = start = 0
    while start < size:
        stop = _end_of_line(text, start, size)
        end = stop - (stop > start and text[stop - 1] == CR)
        if end > start:
            if count == len(starts):
                return DOUBT
            starts[count] = start
            ends[count] = end
            count += 1
        start = stop + 1
    return count


@kernel("int64(uint8[::1], int64, int64)")
def end_of_container(text: Bytes, at: int, size: int) -> int:
    """The place behind the object or array that begins at `at`, by its brackets outside strings; DOUBT if it has no end."""
    depth = 0
    while at < size:
        byte = text[at]
        at += 1
        if byte in (OPEN_OBJECT, OPEN_ARRAY):
            depth += 1
        elif byte in (CLOSE_OBJECT, CLOSE_ARRAY):
            depth -= 1
            if depth == 0:
                return at
        elif byte == QUOTE:
            at = end_of_plain(text, at)
            while text[at] == BACKSLASH:
                at = end_of_plain(text, at + 2)
            if text[at] != QUOTE:
                return DOUBT
            at += 1
    return DOUBT


@kernel("int64(uint8[::1], int64, int64[::1], int64[::1])")
def cut_array(text: Bytes, size: int, starts: Ints, ends: Ints) -> int:
    """Cut the array that is the whole of text[:size] into its elements; what is inside an element is not judged.

    Args:
        text: uint8[size + PAD], zeros behind the text.
        size: the bytes of the text.
        starts: int64[n], written: the place of each element, without the white space around it.
        ends: int64[n], written: the place behind each element.

    Returns: the number of elements; DOUBT if the text is no array, or has more than n elements or one that is no object.
    """
    at = skip_space(text, 0, size)
    if text[at] != OPEN_ARRAY:
        return DOUBT
    count = 0
    while True:
        at = skip_space(text, at + 1, size)
        if text[at] != OPEN_OBJECT or count == len(starts):
            return DOUBT
        starts[count] = at
        at = end_of_container(text, at, size)
        if at == DOUBT:
            return DOUBT
        ends[count] = at
        count += 1
        at = skip_space(text, at, size)
        if text[at] != COMMA:
            break
    if text[at] != CLOSE_ARRAY or skip_space(text, at + 1, size) != size:
        return DOUBT
    return count
