"""A client's lines, read and written as the collector stores them, where nothing is wrong.

The kernels know no field: tables say how the fields are called, what rule each keeps, and which of them each kind of line
has. A line is read into cells, the places of its values in the text, and written from them. What a line has beside its
fields becomes one text, its properties. Everything unusual is doubt; that line is read elsewhere.

    names       uint8[size + PAD]    the fields' labels, each `,"name":`, the kinds' heads, each `{"label":"kind"`, and the
                                     label of the properties, `,"label":"{`
    fields      int64[f, 6]          of each field: LABEL_AT and LABEL_SIZE in `names`, RULE, LOW and HIGH (`field_rules`),
                                     ALSO: 1 if the value goes into the properties too
    slots       int64[SLOTS]         `slot_of` a field's name, or a slot behind it -> the field, FREE for none
    kinds       int64[k, 6]          of each kind of line: HEAD_AT and HEAD_SIZE in `names`, NAME_SIZE of its quoted name at
                                     the end of its head, and masks of fields: REQUIRED, TYPED, SIGNED. Fields in TYPED are
                                     written before the properties, those in SIGNED behind them; any other goes into the
                                     properties
"""

from typing import Final

import numpy as np

from app.kernels.cells import PAD, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel
from app.kernels.crc32 import crc32
from app.kernels.field_rules import (
    ADDRESS,
    BOOLEAN,
    DROPPED,
    INTEGER,
    KIND,
    LAST_STRING,
    LAST_VALUE,
    OBJECT,
    TEXT,
    TIME,
    keeps_rule,
)
from app.kernels.json_text import (
    BACKSLASH,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    DOUBT,
    OPEN_OBJECT,
    QUOTE,
    copy,
    copy_string,
    end_of_integer,
    end_of_plain,
    integer_in,
    is_same,
    signature,
    skip_space,
)
from app.kernels.json_values import (
    ASKED_LINE,
    COUNT,
    MOST_DEPTH,
    MOST_KEYS,
    QUESTION_ADDRESS,
    WRITTEN,
    ask,
    copy_key,
    copy_value,
    end_of_literal,
    is_null,
)
from app.kernels.loads import cttz

LABEL_AT, LABEL_SIZE, RULE, LOW, HIGH, ALSO = range(6)
HEAD_AT, HEAD_SIZE, NAME_SIZE, REQUIRED, TYPED, SIGNED = range(6)
SLOTS: Final = 256
_SLOT_BITS: Final = 8
FREE: Final = -1
UNKNOWN: Final = -1
MOST_FIELDS: Final = 62
"""Bits of a mask that is an int64."""
FOUND, FOUND_KIND, OWN_SIZE, REST_SIZE = range(4)
"""`line`, int64[4], what a line was found to have: the mask of its fields, its kind, the bytes of its own properties with
their braces (0 without any), and the bytes of what else goes there, a comma before each entry."""
CELL_AT, CELL_SIZE = range(2)
TAIL_HEAD, TAIL_SIZE, PROPERTIES_AT, PROPERTIES_SIZE, MOST_LINE, MOST_PROPERTIES, ADDED, KEY, OTHER_KEY = range(9)
"""`layout`, int64[9]: the size of the first part of `tail`, and of both; the place and size of the properties' label in
`names`; the longest line, and the longest properties that are written; the most bytes of labels and tail that a line adds;
the field whose content decides the partition, and the one that does if the first is absent."""
GROWTH: Final = 3
"""A stored line has at most three bytes for each byte of the client's line: a field that goes into the properties too is
there as it came, and with two bytes for each quote. What the client did not send is in ADDED."""


@kernel("int64(uint64)")
def slot_of(word: int) -> int:
    """The first slot for a name of this signature."""
    return word >> uint64(64 - _SLOT_BITS)


@kernel("int64(uint8[::1], int64, int64, uint8[::1], int64[:, ::1], int64[::1])")
def find_field(text: Bytes, at: int, size: int, names: Bytes, fields: Ints, slots: Ints) -> int:
    """The field of the name text[at : at + size], or UNKNOWN."""
    slot = slot_of(signature(text, at, size))
    while slots[slot] != FREE:
        field = int(slots[slot])
        if fields[field, LABEL_SIZE] == size + 4 and is_same(text, at, names, fields[field, LABEL_AT] + 2, size):
            return field
        slot = (slot + 1) % SLOTS
    return UNKNOWN


@kernel("int64(uint8[::1], int64, int64, uint8[::1], int64[:, ::1])")
def find_kind(text: Bytes, at: int, end: int, names: Bytes, kinds: Ints) -> int:
    """The kind of the quoted name text[at:end], or DOUBT."""
    for kind in range(kinds.shape[0]):
        size = kinds[kind, NAME_SIZE]
        name_at = kinds[kind, HEAD_AT] + kinds[kind, HEAD_SIZE] - size
        if size == end - at and is_same(text, at, names, name_at, size):
            return kind
    return DOUBT


@kernel("int64(uint8[::1], int64, int64, int64, int64[::1], int64, int64[:, ::1])")
def read_string(text: Bytes, at: int, rule: int, high: int, cell: Ints, room: int, questions: Ints) -> int:
    """Read a string that keeps a rule.

    Args:
        text: uint8[]; from `room` on it is free for the text of a string with escapes.
        at: the place of its quote.
        rule: its rule, up to `LAST_STRING`.
        high: the rule's HIGH.
        cell: int64[2], written: the string's CELL_AT, the place of its quote, and CELL_SIZE with both quotes; size 0 for
            an empty string.
        room: see `text`.

        questions: see `app.kernels.json_values`; it gets an address that no kernel can judge.

    Returns: the place behind the string; DOUBT if it may break its rule.
    """
    stop = end_of_plain(text, at + 1)
    if text[stop] == QUOTE:
        size = stop - at - 1
        is_sure = size == 0 or keeps_rule(text, at + 1, size, rule, high)
        if not is_sure and (rule != ADDRESS or ask(questions, QUESTION_ADDRESS, at + 1, stop) == DOUBT):
            return DOUBT
        cell[CELL_AT] = at
        cell[CELL_SIZE] = size + 2 if size > 0 else 0
        return stop + 1
    if text[stop] != BACKSLASH or rule != TEXT:
        return DOUBT
    behind, end = copy_string(text, at, text, room, 0)
    if behind == DOUBT or end - room - 2 > high:
        return DOUBT
    cell[CELL_AT] = room
    cell[CELL_SIZE] = end - room
    return behind


@kernel("int64(uint8[::1], int64, int64, int64, int64, int64)")
def end_of_value(text: Bytes, at: int, rule: int, low: int, high: int, latest: int) -> int:
    """The place behind an integer, a time or a boolean at `at` that keeps its rule; else DOUBT."""
    if rule == BOOLEAN:
        return end_of_literal(text, at)
    if rule not in (INTEGER, TIME):
        return DOUBT
    end = end_of_integer(text, at)
    if end == DOUBT:
        return DOUBT
    value = integer_in(text, at, end)
    if rule == TIME:
        high = min(high, latest)
    return end if low <= value <= high else DOUBT


@kernel("int64(uint8[::1], int64, int64, int64[:, ::1], int64[:, ::1], int64, int64, int64[:, ::1])")
def read_value(text: Bytes, at: int, field: int, fields: Ints, cells: Ints, room: int, latest: int, questions: Ints) -> int:
    """Read the value of a field with a rule up to `LAST_VALUE` into its cell, as `read_string` and `end_of_value`.

    Returns: the place behind the value; DOUBT if it may break its rule, and the cell's size is 0 then.
    """
    rule, high = fields[field, RULE], fields[field, HIGH]
    cells[field, CELL_SIZE] = 0
    if rule <= LAST_STRING:
        if text[at] != QUOTE:
            return DOUBT
        return read_string(text, at, rule, high, cells[field], room, questions)
    end = end_of_value(text, at, rule, fields[field, LOW], high, latest)
    if end != DOUBT:
        cells[field, CELL_AT] = at
        cells[field, CELL_SIZE] = end - at
    return end


@kernel("UniTuple(int64, 2)(uint8[::1], int64, int64, uint8[::1], int64, uint64[:, ::1], int64, int64[::1], int64[:, ::1])")
def copy_entry(
    text: Bytes, at: int, end: int, rest: Bytes, size: int, keys: Words, count: int, levels: Ints, questions: Ints
) -> tuple[int, int]:
    """Copy the entry whose key's quote is at `at` to rest[size:], with a comma before it; keys[1, count] becomes its key.

    Returns: the place behind the entry in `text`, DOUBT as `copy_key` and `copy_value`; and the size of `rest` with it.
    """
    rest[size] = COMMA
    at, to = copy_key(text, at, end, rest, size + 1, keys[1], 0, count)
    if at == DOUBT:
        return DOUBT, size
    at, to, _ = copy_value(text, at, end, rest, to, keys[1], count + 1, levels, questions)
    return at, to


@kernel("int64(uint64[:, ::1], int64, int64)")
def share_a_key(keys: Words, own_count: int, rest_count: int) -> int:
    """Whether one of keys[0, :own_count] may be one of keys[1, :rest_count]."""
    for own in range(own_count):
        for other in range(rest_count):
            if keys[0, own] == keys[1, other]:
                return 1
    return 0


@kernel("UniTuple(int64, 2)(uint8[::1], int64, int64)")
def read_label(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """The size of the name whose quote is at `at`, and the place of the value behind its colon.

    Both are DOUBT if there is no such label, or if it has an escape.
    """
    if text[at] != QUOTE:
        return DOUBT, DOUBT
    stop = end_of_plain(text, at + 1)
    if text[stop] != QUOTE:
        return DOUBT, DOUBT
    colon = skip_space(text, stop + 1, end)
    if text[colon] != COLON:
        return DOUBT, DOUBT
    return stop - at - 1, skip_space(text, colon + 1, end)


@kernel(
    "int64(uint8[::1], int64, int64, int64, int64, uint8[::1], int64[:, ::1], int64[::1], int64[:, ::1], int64[:, ::1],"
    " uint8[::1], uint8[::1], uint64[:, ::1], int64[::1], int64[:, ::1], int64[::1])"
)
def read_line(  # noqa: PLR0915
    text: Bytes, at: int, end: int, room: int, latest: int, names: Bytes, fields: Ints, slots: Ints, kinds: Ints,
    cells: Ints, own: Bytes, rest: Bytes, keys: Words, levels: Ints, questions: Ints, line: Ints,
) -> int:  # fmt: skip
    """Read the line text[at:end] into cells, and the parts of its properties into `own` and `rest`.

    Args:
        text: uint8[]; valid UTF-8, and a control character at the end of the line, or else one object by its brackets.
        at: the first byte of the line.
        end: the place behind the line.
        room: from here on `text` is free for as many bytes as the line has, and PAD.
        latest: the latest value of a field of rule TIME.
        names: see the module, as `fields`, `slots` and `kinds`.
        fields: see `names`.
        slots: see `names`.
        kinds: see `names`.
        cells: int64[f, 2], written: CELL_AT and CELL_SIZE in `text` of each field that was found.
        own: uint8[], at least twice the line's bytes and PAD: what is written of the line's own properties.
        rest: uint8[], as `own`, and a comma for each entry: what else goes into the line's properties.
        keys: uint64[2, MOST_KEYS], used: signatures of keys.
        levels: int64[MOST_DEPTH], used.
        questions: see `app.kernels.json_values`; it gets those about this line.
        line: int64[4], written: FOUND, FOUND_KIND, OWN_SIZE, REST_SIZE.

    Returns: DOUBT if another reader has to read the line, else 0.
    """
    found = seen = own_size = rest_size = own_keys = rest_keys = 0
    kind = DOUBT
    at = skip_space(text, at, end)
    mark = COMMA if text[at] == OPEN_OBJECT else 0
    while mark == COMMA:
        label_at = skip_space(text, at + 1, end)
        size, at = read_label(text, label_at, end)
        if at == DOUBT:
            return DOUBT
        field = find_field(text, label_at + 1, size, names, fields, slots)
        rule = DROPPED
        if field != UNKNOWN:
            rule = fields[field, RULE]
            if seen >> field & 1:
                return DOUBT
            seen |= 1 << field
        is_absent = field != UNKNOWN and rule != DROPPED and is_null(text, at)
        is_foreign = rule <= LAST_VALUE and kind != DOUBT and not (kinds[kind, TYPED] | kinds[kind, SIGNED]) >> field & 1
        to = rest_size
        if not is_absent and (rule == DROPPED or is_foreign or fields[field, ALSO]):
            behind, to = copy_entry(text, label_at, end, rest, rest_size, keys, rest_keys, levels, questions)
            if behind == DOUBT:
                return DOUBT
            if rule == DROPPED:
                at = behind
        has_value = False
        if is_absent:
            at += 4
        elif rule <= LAST_VALUE:
            at = read_value(text, at, field, fields, cells, room, latest, questions)
            has_value = cells[field, CELL_SIZE] > 0
            if has_value and cells[field, CELL_AT] == room:
                room += cells[field, CELL_SIZE]
        elif rule == KIND:
            start, at = at, DOUBT
            if text[start] == QUOTE:
                at = end_of_plain(text, start + 1) + 1
                kind = find_kind(text, start, at, names, kinds)
        elif rule == OBJECT:
            if text[at] != OPEN_OBJECT:
                return DOUBT
            at, own_size, own_keys = copy_value(text, at, end, own, 0, keys[0], 0, levels, questions)
        elif rule != DROPPED:
            return DOUBT
        if at == DOUBT:
            return DOUBT
        if to > rest_size and (has_value or field == UNKNOWN):
            rest_size = to
            rest_keys += 1
        if has_value and not is_foreign:
            found |= 1 << field
        at = skip_space(text, at, end)
        mark = text[at]
    if mark != CLOSE_OBJECT or kind == DOUBT or skip_space(text, at + 1, end) != end:
        return DOUBT
    if kinds[kind, REQUIRED] & ~found or found & ~(kinds[kind, TYPED] | kinds[kind, SIGNED]):
        return DOUBT
    if share_a_key(keys, own_keys, rest_keys):
        return DOUBT
    line[FOUND] = found
    line[FOUND_KIND] = kind
    line[OWN_SIZE] = own_size
    line[REST_SIZE] = rest_size
    return 0


@kernel("int64(uint8[::1], int64, uint8[::1], int64[:, ::1], uint8[::1], int64[:, ::1], int64)")
def write_cells(target: Bytes, to: int, names: Bytes, fields: Ints, text: Bytes, cells: Ints, mask: int) -> int:
    """Write the label and the value of each field in `mask`, in their order; the place behind in `target`."""
    left = uint64(mask)
    while left != uint64(0):
        field = cttz(left)
        left &= left - uint64(1)
        to = copy(target, to, names, fields[field, LABEL_AT], fields[field, LABEL_SIZE])
        to = copy(target, to, text, cells[field, CELL_AT], cells[field, CELL_SIZE])
    return to


@kernel("int64(uint8[::1], int64, uint8[::1], int64[::1], uint8[::1], int64, uint8[::1], int64)")
def write_properties(
    target: Bytes, to: int, names: Bytes, label: Ints, own: Bytes, own_size: int, rest: Bytes, rest_size: int
) -> int:
    """Write the properties: a line's own, in their braces, then the rest, whose entries begin with commas."""
    to = copy(target, to, names, label[0], label[1])
    inner = max(own_size - 2, 0)
    to = copy(target, to, own, 1, inner)
    first = 0 if inner > 0 else 1
    to = copy(target, to, rest, first, max(rest_size - first, 0))
    target[to] = CLOSE_OBJECT
    target[to + 1] = QUOTE
    return to + 2


@kernel(
    "int64(uint8[::1], int64[::1], int64[::1], int64, int64, int64, uint8[::1], int64[:, ::1], int64[::1], int64[:, ::1],"
    " int64[::1], uint8[::1], uint8[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], int64[:, ::1])"
)
def store_lines(
    text: Bytes, starts: Ints, ends: Ints, first: int, room: int, latest: int, names: Bytes, fields: Ints, slots: Ints,
    kinds: Ints, layout: Ints, tail: Bytes, own: Bytes, rest: Bytes, stored: Bytes, sizes: Ints, crcs: Ints, questions: Ints,
) -> int:  # fmt: skip
    """Write lines as they are stored, one after the other, until `stored` may be full.

    Args:
        text: uint8[], see `read_line`.
        starts: int64[n], the place of each line.
        ends: int64[n], the place behind each line.
        first: the first line to write.
        room: see `read_line`.
        latest: see `read_line`.
        names: see the module, as `fields`, `slots` and `kinds`.
        fields: see `names`.
        slots: see `names`.
        kinds: see `names`.
        layout: int64[9], see `TAIL_HEAD`.
        tail: uint8[size + PAD], what ends each line, in two parts: before and behind the fields in SIGNED.
        own: see `read_line`.
        rest: see `read_line`.
        stored: uint8[], written: the lines that are not in doubt, without gaps.
        sizes: int64[n], written: of each line its bytes in `stored`, or DOUBT.
        crcs: int64[n], written: of each line the CRC-32 of its key, or 0.
        questions: int64[m, 4], see `app.kernels.json_values`, written: a line is right only if every answer is yes.
            Row COUNT has also the bytes in `stored`.

    Returns: the line behind the last that was looked at; the caller gives `stored` free and goes on there.
    """
    cells = np.empty((fields.shape[0], 2), np.int64)
    keys = np.empty((2, MOST_KEYS), np.uint64)
    levels = np.empty(MOST_DEPTH, np.int64)
    line = np.empty(4, np.int64)
    label = layout[PROPERTIES_AT : PROPERTIES_SIZE + 1]
    to = 0
    questions[COUNT, 0] = 0
    for number in range(first, len(starts)):
        asked = questions[COUNT, 0]
        size = ends[number] - starts[number]
        sizes[number] = DOUBT
        crcs[number] = 0
        if size > layout[MOST_LINE]:
            continue
        questions[COUNT, WRITTEN] = to
        if to + GROWTH * size + layout[ADDED] + PAD > len(stored):
            return number
        outcome = read_line(
            text, starts[number], ends[number], room, latest, names, fields, slots, kinds, cells, own, rest, keys, levels,
            questions, line,
        )  # fmt: skip
        if outcome == DOUBT or line[OWN_SIZE] + line[REST_SIZE] > layout[MOST_PROPERTIES]:
            questions[COUNT, 0] = asked
            continue
        questions[asked + 1 : questions[COUNT, 0] + 1, ASKED_LINE] = number
        found, kind, start = line[FOUND], line[FOUND_KIND], to
        to = copy(stored, to, names, kinds[kind, HEAD_AT], kinds[kind, HEAD_SIZE])
        to = write_cells(stored, to, names, fields, text, cells, found & kinds[kind, TYPED])
        if line[OWN_SIZE] > 2 or line[REST_SIZE] > 0:
            to = write_properties(stored, to, names, label, own, line[OWN_SIZE], rest, line[REST_SIZE])
        to = copy(stored, to, tail, 0, layout[TAIL_HEAD])
        to = write_cells(stored, to, names, fields, text, cells, found & kinds[kind, SIGNED])
        to = copy(stored, to, tail, layout[TAIL_HEAD], layout[TAIL_SIZE] - layout[TAIL_HEAD])
        sizes[number] = to - start
        key = layout[KEY] if found >> layout[KEY] & 1 else layout[OTHER_KEY]
        crcs[number] = crc32(text, cells[key, CELL_AT] + 1, cells[key, CELL_SIZE] - 2)
    questions[COUNT, WRITTEN] = to
    return len(starts)
