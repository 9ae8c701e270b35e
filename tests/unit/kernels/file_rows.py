"""Rows as the kernels that write files take them, and what each kernel writes, in plain Python."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import strategies as st

from app.kernels.cells import LEN_BITS, PAD, Bytes, Ints, Words
from app.kernels.columns import BOOLEAN, FIRST_MS, INTEGER, LAST_MS, TEXT, TIMESTAMP
from tests.unit.kernels.shapes import arena_of

Value = bytes | int | None
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rows_as_cells(kinds: Sequence[int], rows: Sequence[Sequence[Value]]) -> tuple[Ints, Bytes, Ints, Words]:
    """(kinds, arena, rec, present); cells that are absent hold rubbish."""
    rec, present, texts, at = np.full((len(rows) + 1, len(kinds)), -(2**63) + 5, np.int64), [], [], 0
    for n, row in enumerate(rows):
        present.append(sum(1 << column for column, value in enumerate(row) if value is not None))
        for column, value in enumerate(row):
            if isinstance(value, bytes):
                rec[n, column] = at << LEN_BITS | len(value)
                texts.append(value)
                at += len(value)
            elif value is not None:
                rec[n, column] = value
    bits = np.array([*present, 2**64 - 1], np.uint64)
    return np.array(kinds, np.int64), arena_of(b"".join(texts), behind=ord('"')), rec, bits


def room_for(rows: Sequence[Sequence[Value]]) -> int:
    sizes = {bytes: lambda value: 2 * len(value) + 3, int: lambda _: 28, type(None): lambda _: 1}
    return sum(sizes[type(value)](value) for row in rows for value in row)


def out_of(room: int) -> Bytes:
    return np.full(room + PAD, 0xAA, np.uint8)


def tsv_rows(kinds: Sequence[int], rows: Sequence[Sequence[Value]]) -> bytes:
    return b"".join(b"\t".join(map(_tsv_field, kinds, row)) + b"\n" for row in rows)


def _tsv_field(kind: int, value: Value) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return b'"' + value.replace(b'"', b'""') + b'"' if not value or set(value) & set(b'\t"\r\n') else value
    if kind == TIMESTAMP:
        moment = _EPOCH + timedelta(milliseconds=value)
        return f"{moment.year:04}-{moment:%m-%d %H:%M:%S.%f}".encode()
    if kind == BOOLEAN:
        return b"true" if value else b"false"
    return b"%d" % value


def avro_rows(rows: Sequence[Sequence[Value]], kinds: Sequence[int]) -> list[bytes]:
    return [b"".join(map(_avro_field, kinds, row)) for row in rows]


def _avro_field(kind: int, value: Value) -> bytes:
    if value is None or value == b"":
        return b"\x00"
    if isinstance(value, bytes):
        return b"\x02" + avro_long(len(value)) + value
    return b"\x02" + (bytes([value]) if kind == BOOLEAN else avro_long(value))


def avro_long(value: int) -> bytes:
    rest = 2 * value if value >= 0 else -2 * value - 1
    packed = b""
    while rest >= 1 << 7:
        packed += bytes([rest & 127 | 128])
        rest >>= 7
    return packed + bytes([rest])


NASTY = st.sampled_from([
    b"", b"\t", b"\n", b"\r", b'"', b'""', b"\\", b"\\N", b" lead", b"\x01\x7f", b"\v\f", "\u0085".encode(), "é😀".encode(),
    b'{"a": "b\\n"}', b"x" * 31 + b'"', b"x" * 32 + b"\n", b"x" * 33, b"\\" * 70, b"\x02" * 40 + b"\t", b"y" * 5000, b"'",
])  # fmt: skip
TEXTS = NASTY | st.binary(max_size=70) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)
EDGES = st.sampled_from([0, 1, -1, 9, 10, 99, 100, 63, 64, -64, -65, 2**63 - 1, -(2**63), 10**18, -(10**18)])
TIMES = st.sampled_from([FIRST_MS, LAST_MS, 0, -1, 951_782_400_000, 951_868_799_999, 4_107_542_400_000, -86_400_000])
VALUES = {
    TEXT: TEXTS, INTEGER: EDGES | st.integers(-(2**63), 2**63 - 1), TIMESTAMP: TIMES | st.integers(FIRST_MS, LAST_MS),
    BOOLEAN: st.integers(0, 1),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[int], list[tuple[Value, ...]]]:
    """(kinds, rows)."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6) | st.just([TEXT] * 64))
    most = 2 if len(kinds) > 6 else 5
    return kinds, draw(st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in kinds)), max_size=most))
