"""Gathered columns hold what the chosen lines hold; spread columns are cells again; equal lines have one number."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.kernels import distinct, gather
from app.kernels.cells import LEN_BITS, LEN_MASK, PAD, Bytes, Ints, Words
from app.kernels.secret import SECRET
from tests.unit.kernels.shapes import arena_of

Line = tuple[bytes | None, int | None, bytes | None]
TEXTS = st.one_of(st.none(), st.binary(max_size=3), st.binary(min_size=30, max_size=70))
LINES = st.lists(
    st.tuples(TEXTS, st.one_of(st.none(), st.integers(-3, 3), st.just(-(2**63))), TEXTS), min_size=1, max_size=20
)
FIRST, NUMBER, LAST = range(3)


def cells_of(lines: Sequence[Line]) -> tuple[Bytes, Ints, Words]:
    """(arena, rec, present) of lines with two texts and an integer between them."""
    rec, present, text = np.full((len(lines), 3), -1, np.int64), np.zeros(len(lines), np.uint64), b""
    for n, line in enumerate(lines):
        for field, value in enumerate(line):
            if isinstance(value, bytes):
                rec[n, field] = len(text) << LEN_BITS | len(value)
                text += value
            elif value is not None:
                rec[n, field] = value
            present[n] |= np.uint64((value is not None) << field)
    return arena_of(text), rec, present


def chosen(lines: Sequence[Line], numbers: Sequence[int]) -> list[Line]:
    return [(None, None, None) if n < 0 else lines[n] for n in numbers]


def bits_of(values: Sequence[object]) -> list[int]:
    return np.packbits(np.array([value is not None for value in values], np.bool_), bitorder="little").tolist()


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Line], list[int]]:
    lines = draw(LINES)
    return lines, draw(st.lists(st.integers(-1, len(lines) - 1), max_size=25))


@given(tables())
def test_texts(table: tuple[list[Line], list[int]]) -> None:
    lines, numbers = table
    arena, rec, present = cells_of(lines)
    picks, fields = np.array(numbers, np.int64), np.array([LAST, FIRST])
    expected = [[line[field] for line in chosen(lines, numbers)] for field in (LAST, FIRST)]
    size = gather.text_bytes(rec, present, picks, fields)
    assert size == sum(len(text) for texts in expected for text in texts if text)  # type: ignore[arg-type]
    offsets, data = np.zeros((2, len(numbers) + 1), np.int32), np.zeros(size + PAD, np.uint8)
    bounds, nulls = np.zeros(3, np.int64), np.zeros(2, np.int64)
    validity = np.zeros((2, (len(numbers) + 7) // 8), np.uint8)
    gather.gather_texts(arena, rec, present, picks, fields, offsets, data, bounds, validity, nulls)
    for n, texts in enumerate(expected):
        column = data[bounds[n] : bounds[n + 1]].tobytes()
        found = [column[start:end] for start, end in zip(offsets[n][:-1], offsets[n][1:], strict=True)]
        assert found == [text or b"" for text in texts]
        assert (nulls[n], validity[n].tolist()) == (texts.count(None), bits_of(texts))


@given(tables())
def test_integers(table: tuple[list[Line], list[int]]) -> None:
    lines, numbers = table
    _, rec, present = cells_of(lines)
    expected = [line[NUMBER] for line in chosen(lines, numbers)]
    values, nulls = np.ones((1, len(numbers)), np.int64), np.zeros(1, np.int64)
    validity = np.zeros((1, (len(numbers) + 7) // 8), np.uint8)
    gather.gather_integers(rec, present, np.array(numbers, np.int64), np.array([NUMBER]), values, validity, nulls)
    assert values[0].tolist() == [value or 0 for value in expected]
    assert (nulls[0], validity[0].tolist()) == (expected.count(None), bits_of(expected))


@given(LINES, st.integers(0, 50))
def test_columns_become_cells_again(lines: list[Line], at: int) -> None:
    texts, integers = [line[FIRST] for line in lines], [line[NUMBER] for line in lines]
    offsets = np.cumsum([0, *(len(text or b"") for text in texts)]).astype(np.int32)
    rec, present = np.full((len(lines), 3), -7, np.int64), np.full(len(lines), 1 << LAST, np.uint64)
    gather.spread_texts(offsets, np.array(bits_of(texts), np.uint8), None in texts, at, FIRST, rec, present)
    gather.spread_integers(
        np.array([value or 0 for value in integers], np.int64), np.array(bits_of(integers), np.uint8), None in integers,
        NUMBER, rec, present,
    )  # fmt: skip
    column = bytes(at) + b"".join(text or b"" for text in texts)
    for line, cells, bits in zip(lines, rec.tolist(), present.tolist(), strict=True):
        assert bits == (line[FIRST] is not None) | (line[NUMBER] is not None) << NUMBER | 1 << LAST
        if line[FIRST] is not None:
            assert column[cells[FIRST] >> LEN_BITS :][: cells[FIRST] & LEN_MASK] == line[FIRST]
        assert cells[NUMBER] == (-7 if line[NUMBER] is None else line[NUMBER])
        assert cells[LAST] == -7


def group_lines(lines: Sequence[tuple[object, ...]]) -> tuple[list[int], list[int]]:
    """The number of each line's combination, and the place of the first line that has it."""
    number: dict[tuple[object, ...], int] = {}
    groups = [number.setdefault(line, len(number)) for line in lines]
    return groups, [groups.index(n) for n in range(len(number))]


@given(tables(), st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
def test_equal_lines_have_one_number(table: tuple[list[Line], list[int]], fields: list[int]) -> None:
    lines, numbers = table
    arena, rec, present = cells_of(lines)
    slots = np.full(1 << (2 * len(numbers)).bit_length(), -1, np.int64)
    groups, firsts = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
    count = distinct.group_lines(
        arena, rec, present, np.array(numbers, np.int64), np.array(fields),
        np.array([field != NUMBER for field in fields], np.uint8), SECRET, slots, groups, firsts,
    )  # fmt: skip
    expected = group_lines([tuple(line[field] for field in fields) for line in chosen(lines, numbers)])
    assert (groups.tolist(), firsts[:count].tolist()) == expected
