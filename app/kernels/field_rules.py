"""The rules that a field's text may have: each is a test of bytes that says yes or doubts."""

from typing import Final

from app.kernels.cells import Bytes
from app.kernels.compiled import kernel
from app.kernels.json_text import DOUBT, MINUS, NINE, POINT, SPACE, ZERO, end_of_digits

TEXT, NAME, LETTERS, ADDRESS, AGENT, INTEGER, TIME, BOOLEAN, KIND, OBJECT, DROPPED, OTHER = range(12)
"""
    TEXT      a string of at most HIGH bytes
    NAME      a string of at most HIGH of A-Z a-z 0-9 _ -
    LETTERS   a string of exactly HIGH of A-Z a-z
    ADDRESS   a string, an IP address in its one spelling; the caller is asked about all but IPv4
    AGENT     a string of at most HIGH bytes that does not begin with a blank
    INTEGER   an integer from LOW to HIGH
    TIME      an integer from LOW to HIGH, no later than the latest time
    BOOLEAN   true or false
    KIND      the name of a kind of lines
    OBJECT    an object, whose entries go into the line's properties
    DROPPED   any value; it is not stored
    OTHER     a rule that no kernel knows: always doubt
"""
LAST_STRING: Final = AGENT
LAST_VALUE: Final = BOOLEAN
"""Rules up to LAST_STRING are of strings, those up to LAST_VALUE of numbers and booleans."""
_MOST_OF_BYTE: Final = 255


@kernel("int64(uint8[::1], int64, int64, int64)")
def are_letters(text: Bytes, at: int, size: int, others: int) -> int:
    """Whether text[at : at + size] has letters of ASCII only, or, with `others`, digits, _ and - too."""
    for place in range(at, at + size):
        byte = text[place]
        is_letter = ord("a") <= byte | 0x20 <= ord("z")
        if not is_letter and not (others and (ZERO <= byte <= NINE or byte in (ord("_"), MINUS))):
            return 0
    return 1


@kernel("int64(uint8[::1], int64, int64)")
def is_four_bytes(text: Bytes, at: int, end: int) -> int:
    """Whether text[at:end] is an IPv4 address: four numbers up to 255, without zeros in front, with points between."""
    for number in range(4):
        stop = end_of_digits(text, at)
        if stop == DOUBT or stop - at > 3:
            return 0
        value = 0
        for place in range(at, stop):
            value = 10 * value + (text[place] - ZERO)
        if value > _MOST_OF_BYTE or (number < 3 and text[stop] != POINT):
            return 0
        at = stop + 1
    return at == end + 1


@kernel("int64(uint8[::1], int64, int64, int64, int64)")
def keeps_rule(text: Bytes, at: int, size: int, rule: int, high: int) -> int:
    """Whether the content text[at : at + size] of a string, 1 byte or more without an escape, keeps `rule` for certain."""
    if rule == ADDRESS:
        return is_four_bytes(text, at, at + size)
    if size > high:
        return 0
    if rule == NAME:
        return are_letters(text, at, size, 1)
    if rule == LETTERS:
        return size == high and are_letters(text, at, size, 0)
    if rule == AGENT:
        return int(SPACE < text[at] < 0x80)
    return int(rule == TEXT)
