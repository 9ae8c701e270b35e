"""The parts of web addresses, cut out as cells.

An address whose parts are not simply pieces of its text is odd: the kernel says so, and the caller reads it with more care.

    address     [scheme] // authority path ? query # fragment
    parameters  name=value & name=value ...
"""

from typing import Final

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel, part
from app.kernels.gather import has_field
from app.kernels.loads import load64

HOST: Final = 0
"""The column of the host."""
PATH: Final = 1
"""The column of the path."""
_SLASH, _QUERY, _FRAGMENT, _BACKSLASH, _AND, _EQUALS, _SEMICOLON, _DOT, _PERCENT, _PLUS = (
    ord(sign) for sign in "/?#\\&=;.%+"
)
_SPACE: Final = 32
_DELETE: Final = 127


@part
def _place_end(arena: Bytes, at: int, end: int) -> int:
    """The first slash, backslash, question mark or number sign in arena[at:end]; `end` if there is none."""
    while at < end:
        sign = arena[at]
        if sign in (_SLASH, _QUERY, _FRAGMENT, _BACKSLASH):
            break
        at += 1
    return at


@part
def _path_end(arena: Bytes, at: int, end: int) -> int:
    """The first question mark or number sign in arena[at:end]; `end` if there is none."""
    while at < end and arena[at] != _QUERY and arena[at] != _FRAGMENT:
        at += 1
    return at


@part
def _authority(arena: Bytes, at: int, end: int) -> tuple[int, int]:
    """Where the authority of the address arena[at:end] begins and ends; (-1, -1) if it has none."""
    slash = _place_end(arena, at, end)
    if slash + 1 < end and arena[slash] == _SLASH and arena[slash + 1] == _SLASH:
        return slash + 2, _place_end(arena, slash + 2, end)
    return -1, -1


@part
def _is_plain_host(arena: Bytes, at: int, end: int) -> bool:
    """Whether the authority is a host as it is: small letters, digits, `-`, `_` and inner dots."""
    if at < end and (arena[at] == _DOT or arena[end - 1] == _DOT):
        return False
    for k in range(at, end):
        sign = arena[k]
        is_plain = 97 <= sign <= 122 or 45 <= sign <= 46 or 48 <= sign <= 57 or sign == 95
        if not is_plain:
            return False
    return True


@part
def _is_plain_value(arena: Bytes, at: int, end: int) -> bool:
    """Whether decoding would leave the value of a parameter as it is: visible ASCII without `%` and `+`."""
    for k in range(at, end):
        sign = arena[k]
        if sign <= _SPACE or sign >= _DELETE or sign in (_PERCENT, _PLUS):
            return False
    return True


@part
def _find_name(arena: Bytes, at: int, size: int, names: Words, sizes: Ints) -> int:
    """The number of the name arena[at : at + size]; -1 if it is none of them."""
    for number in range(len(sizes)):
        if sizes[number] == size:
            word = load64(arena, at) & names[number, 2]
            if word == names[number, 0] and load64(arena, at + 8) & names[number, 3] == names[number, 1]:
                return number
    return -1


@part
def _name_end(arena: Bytes, at: int, end: int) -> int:
    """The sign behind a parameter's name, `=`, `&` or the end; -1 if the name may stand for another one."""
    while at < end and arena[at] != _EQUALS and arena[at] != _AND:
        sign = arena[at]
        if sign >= _DELETE or 65 <= sign <= 90 or sign in (_SEMICOLON, _QUERY):
            return -1
        at += 1
    return at


@part
def _value_end(arena: Bytes, at: int, end: int) -> int:
    """The end of a parameter's value; -1 if a question mark is in it, behind which another parameter may begin."""
    while at < end and arena[at] != _AND:
        if arena[at] == _QUERY:
            return -1
        at += 1
    return at


@part
def _cut_query(
    arena: Bytes, at: int, end: int, names: Words, sizes: Ints, columns: Ints, limits: Ints,
    k: int, cells: Ints, have: Words, found: Ints,
) -> bool:  # fmt: skip
    """Cut the named parameters out of the query arena[at:end]; False if it is odd."""
    while at < end:
        behind = _name_end(arena, at, end)
        if behind < 0:
            return False
        if behind < end and arena[behind] == _EQUALS:
            stop = _value_end(arena, behind + 1, end)
            if stop < 0:
                return False
            number, size = _find_name(arena, at, behind - at, names, sizes), stop - behind - 1
            if number >= 0 and size > 0:
                if size > limits[number] or not _is_plain_value(arena, behind + 1, stop):
                    return False
                bit = uint64(1) << uint64(columns[number])
                if have[k] & bit == uint64(0):  # the first one counts
                    have[k] |= bit
                    cells[k, columns[number]] = (behind + 1) << LEN_BITS | size
                    found[k] = max(found[k], number)
            behind = stop
        at = behind + 1
    return True


@part
def _has_parameters(arena: Bytes, at: int, end: int) -> bool:
    while at < end and arena[at] != _EQUALS:
        at += 1
    return at < end


@kernel(
    "int64(uint8[::1], int64[:, ::1], uint64[::1], int64[::1], int64, int64, uint64[:, ::1], int64[::1], int64[::1], "
    "int64[::1], int64[:, ::1], uint64[::1], int64[::1], int64[::1])"
)
def cut_addresses(
    arena: Bytes, rec: Ints, present: Words, lines: Ints, field: int, longest_host: int,
    names: Words, sizes: Ints, columns: Ints, limits: Ints,
    cells: Ints, have: Words, found: Ints, odd: Ints,
) -> int:  # fmt: skip
    """Cut hosts, paths and named parameters out of the addresses in one field of the chosen lines.

    An address is odd if its host is not written in plain small letters or is longer than `longest_host`, if a named
    parameter's value is encoded or too long, if a parameter's name may stand for another one, or if parameters follow `#`.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        field: the field, of kind text.
        longest_host: in bytes.
        names: uint64[t, 4]: the bytes 0 to 7 and 8 to 15 of each name, and the masks that leave only bytes of the name.
        sizes: int64[t]: bytes of each name, at most 16.
        columns: int64[t]: the column that each name's value goes to, above `PATH`; several names may share a column.
        limits: int64[t]: most bytes of each name's value.
        cells: int64[m, c], written: column `HOST`, `PATH`, or of a parameter, as cells into `arena`.
        have: uint64[m], written: which columns of `cells` the address has; of an odd one none.
        found: int64[m], written: the highest number among the names whose values were cut; -1 if there is none.
        odd: int64[m], written: the positions in `lines` whose addresses are odd.

    Returns: how many addresses are odd.
    """
    count = 0
    for k in range(len(lines)):
        have[k] = uint64(0)
        found[k] = -1
        if not has_field(present, lines[k], field):
            continue
        cell = rec[lines[k], field]
        at = cell >> LEN_BITS
        end = at + (cell & LEN_MASK)
        start, stop = _authority(arena, at, end)
        is_regular = True
        if start >= 0:
            behind = _path_end(arena, stop, end)
            is_regular = stop - start <= longest_host and _is_plain_host(arena, start, stop)
            if stop > start:
                cells[k, HOST] = start << LEN_BITS | (stop - start)
                have[k] |= uint64(1 << HOST)
            # An address that ends behind its host has the path `/`, as the one before the authority.
            cells[k, PATH] = stop << LEN_BITS | (behind - stop) if behind > stop else (start - 1) << LEN_BITS | 1
            have[k] |= uint64(1 << PATH)
        elif at < end and arena[at] == _SLASH:
            cells[k, PATH] = at << LEN_BITS | (_path_end(arena, at, end) - at)
            have[k] |= uint64(1 << PATH)
        query = _path_end(arena, at, end)
        fragment = query
        while fragment < end and arena[fragment] != _FRAGMENT:
            fragment += 1
        if is_regular and query < fragment:
            is_regular = _cut_query(
                arena, query + 1, fragment, names, sizes, columns, limits, k, cells, have, found
            )  # fmt: skip
        if not is_regular or _has_parameters(arena, fragment, end):
            have[k] = uint64(0)
            odd[count] = k
            count += 1
    return count


@kernel("void(uint8[::1], int64[:, ::1], uint64[::1], int64[::1], int64, int64, int64[:, ::1], uint64[::1])")
def cut_authorities(
    arena: Bytes, rec: Ints, present: Words, lines: Ints, field: int, column: int, cells: Ints, have: Words
) -> None:
    """Cut the authorities out of the addresses in one field of the chosen lines.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        field: the field, of kind text.
        column: the column of `cells` to write.
        cells: int64[m, c], written: the authorities, as cells into `arena`.
        have: uint64[m], written: the bit of `column`, where the address has an authority, even an empty one.
    """
    for k in range(len(lines)):
        if has_field(present, lines[k], field):
            cell = rec[lines[k], field]
            start, stop = _authority(arena, cell >> LEN_BITS, (cell >> LEN_BITS) + (cell & LEN_MASK))
            if start >= 0:
                cells[k, column] = start << LEN_BITS | (stop - start)
                have[k] |= uint64(1) << uint64(column)
