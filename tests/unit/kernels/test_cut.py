"""Content is cut, counted and grouped as plain Python does it."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.core.events.request_body import count_values
from app.core.formats.batch import group_plainly
from app.core.formats.line_groups import group_by_kernel
from app.core.formats.stored_line import PackedLines
from app.kernels import cut
from app.kernels.json_text import DOUBT
from tests.unit.kernels.shapes import arena_of

CONTENT = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"0123456789", b"{[,", b'"', b"\x0b", b"\x8a"]), max_size=30
).map(b"".join)
OBJECTS = st.lists(
    st.dictionaries(
        st.text('ab"\\{}[],', max_size=4), st.text('"\\{}[],\n ', max_size=6) | st.lists(st.just({})), max_size=3
    ),
    max_size=5,
)


def cut_lines(text: bytes) -> list[bytes]:
    return [line for part in text.split(b"\n") if (line := part.removesuffix(b"\r"))]


def cut_array(text: bytes) -> list[object]:
    return json.loads(text)


def pieces(found: int, bounds: np.ndarray, text: bytes) -> list[bytes]:
    return [text[start:end] for start, end in bounds[:, :found].T.tolist()]


@given(CONTENT)
def test_lines(text):
    bounds = np.zeros((2, 40), np.int64)
    arena = arena_of(text, 0x0A)
    found = cut.cut_lines(arena, len(text), *bounds)
    assert pieces(found, bounds, text) == cut_lines(text)
    assert cut.cut_lines(arena, len(text), *bounds[:, : max(found - 1, 0)]) == (DOUBT if found else 0)
    assert cut.count_marks(arena, len(text)) == count_values(text)


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_arrays(values, indent, is_escaped):
    text = json.dumps(values, indent=indent, ensure_ascii=is_escaped).encode()
    bounds = np.zeros((2, 5), np.int64)
    found = cut.cut_array(arena_of(text, 0), len(text), *bounds)
    assert found == (len(values) or DOUBT)
    assert [json.loads(piece) for piece in pieces(max(found, 0), bounds, text)] == cut_array(text)
    for other in (text[:-1], text + b"x", text[1:], text + text):
        assert cut.cut_array(arena_of(other, 0), len(other), *bounds) == DOUBT


@given(
    st.lists(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 9)), min_size=1, max_size=5), min_size=1, max_size=4)
)
def test_groups(requests):
    packed = [
        PackedLines(bytearray().join(line + b"\n" for line, _ in lines), np.array([len(line) + 1 for line, _ in lines]),
                    np.array([crc for _, crc in lines]), 1)
        for lines in requests
    ]  # fmt: skip
    partitions = np.concatenate([request.crcs for request in packed]) % 4
    sizes = np.concatenate([request.sizes for request in packed])
    places = np.array([sizes[partitions < partition].sum() for partition in range(4)])
    assert bytes(group_by_kernel(packed, partitions, places)) == bytes(group_plainly(packed, partitions, places))
