"""Rows as TSV: CSV's quoting, with a tab between fields and LF behind each row.

A text is quoted if it holds a tab, a quote, CR or LF, or if it is empty; a quote in it is doubled. A field that is not there
is nothing between two tabs. A timestamp is `YYYY-MM-DD HH:MM:SS.ffffff`, a boolean `true` or `false`.
"""

from typing import Final

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.columns import FIRST_MS, INTEGER, LAST_MS, TEXT, TIMESTAMP
from app.kernels.compiled import kernel, part
from app.kernels.copying import copy_bytes
from app.kernels.loads import cttz, special32

DOUBT: Final = -1
"""What `tsv_rows` returns if a timestamp is outside the years 1 to 9999."""
_TAB, _LF, _CR, _SPACE, _QUOTE, _MINUS, _POINT, _ZERO, _COLON = b'\t\n\r "-.0:'
_T, _R, _U, _E, _F, _A, _L, _S = b"truefals"
_DAY_MS: Final = 86_400_000


@part
def _needs_quotes(arena: Bytes, at: int, size: int) -> bool:
    """Whether the text arena[at : at + size] is empty, or holds a tab, a quote, CR or LF."""
    if size == 0:
        return True
    place, end = at, at + size
    while place < end:
        found = special32(arena, place)
        if found == uint64(0):
            place += 32
            continue
        place += cttz(found)
        if place >= end:
            return False
        character = arena[place]
        if character == _QUOTE or character == _TAB or character == _LF or character == _CR:  # noqa: PLR1714, SIM109
            return True
        place += 1
    return False


@part
def _put_text(out: Bytes, to: int, arena: Bytes, at: int, size: int) -> int:
    """Write the text arena[at : at + size] to out[to:]; the end of what is written."""
    if not _needs_quotes(arena, at, size):
        copy_bytes(out, to, arena, at, size)
        return to + size
    out[to] = _QUOTE
    to += 1
    for place in range(at, at + size):
        if arena[place] == _QUOTE:
            out[to] = _QUOTE
            to += 1
        out[to] = arena[place]
        to += 1
    out[to] = _QUOTE
    return to + 1


@part
def _put_integer(out: Bytes, to: int, value: int) -> int:
    """Write a number in decimal digits; the end of what is written."""
    rest = uint64(value)
    if value < 0:
        out[to] = _MINUS
        to += 1
        rest = uint64(0) - rest  # -2**63 has no int64 without its sign
    digits, power = 1, rest
    while power >= uint64(10):
        power //= uint64(10)
        digits += 1
    for place in range(to + digits - 1, to - 1, -1):
        out[place] = uint64(_ZERO) + rest % uint64(10)
        rest //= uint64(10)
    return to + digits


@part
def _put_two(out: Bytes, to: int, value: int) -> None:
    """Write a number below 100 as two digits."""
    out[to] = _ZERO + value // 10
    out[to + 1] = _ZERO + value % 10


@part
def _put_date(out: Bytes, to: int, day: int) -> None:
    """Write the date of a day since the epoch, years 1 to 9999, as YYYY-MM-DD.

    Eras of 400 years are alike, and years that begin in March have their leap day at the end.

    Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    since_march_0000 = day + 719_468
    era = since_march_0000 // 146_097
    of_era = since_march_0000 - era * 146_097
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    _put_two(out, to, year // 100)
    _put_two(out, to + 2, year % 100)
    out[to + 4] = _MINUS
    _put_two(out, to + 5, month)
    out[to + 7] = _MINUS
    _put_two(out, to + 8, of_month)


@part
def _put_timestamp(out: Bytes, to: int, moment_ms: int) -> int:
    """Write a time of the years 1 to 9999, with microseconds that are zero; the end of what is written."""
    day = moment_ms // _DAY_MS
    of_day = moment_ms - day * _DAY_MS
    second = of_day // 1000
    _put_date(out, to, day)
    out[to + 10] = _SPACE
    _put_two(out, to + 11, second // 3600)
    out[to + 13] = _COLON
    _put_two(out, to + 14, second // 60 % 60)
    out[to + 16] = _COLON
    _put_two(out, to + 17, second % 60)
    out[to + 19] = _POINT
    _put_two(out, to + 20, of_day % 1000 // 10)
    _put_two(out, to + 22, of_day % 10 * 10)
    _put_two(out, to + 24, 0)
    return to + 26


@part
def _put_boolean(out: Bytes, to: int, value: int) -> int:
    """Write `true` or `false`; the end of what is written."""
    if value != 0:
        out[to], out[to + 1], out[to + 2], out[to + 3] = _T, _R, _U, _E
        return to + 4
    out[to], out[to + 1], out[to + 2], out[to + 3], out[to + 4] = _F, _A, _L, _S, _E
    return to + 5


@kernel("int64(int64[::1], uint8[::1], int64[:, ::1], uint64[::1], int64, uint8[::1])")
def tsv_rows(kinds: Ints, arena: Bytes, rec: Ints, present: Words, rows: int, out: Bytes) -> int:
    """Write rows as TSV.

    Args:
        kinds: int64[columns], of `app.kernels.columns`; at most 64, in file order.
        arena: uint8[size + PAD].
        rec: int64[rows or more, columns].
        present: uint64[rows or more].
        rows: how many.
        out: uint8[room_for(...) + PAD], written.

    Returns: the bytes written; DOUBT if a timestamp is outside the years 1 to 9999.
    """
    to = 0
    for row in range(rows):
        for column in range(len(kinds)):
            if column > 0:
                out[to] = _TAB
                to += 1
            if (present[row] >> uint64(column)) & uint64(1) == uint64(0):
                continue
            cell, kind = rec[row, column], kinds[column]
            if kind == TEXT:
                to = _put_text(out, to, arena, cell >> LEN_BITS, cell & LEN_MASK)
            elif kind == INTEGER:
                to = _put_integer(out, to, cell)
            elif kind == TIMESTAMP:
                if cell < FIRST_MS or cell > LAST_MS:
                    return DOUBT
                to = _put_timestamp(out, to, cell)
            else:
                to = _put_boolean(out, to, cell)
        out[to] = _LF
        to += 1
    return to
