"""Streams written from buffers: polars reads them, and they are read back as they were."""

import io
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from app.core.formats.arrow_stream import BufferKind, Buffers, Frame, read_stream, stack_frames, write_stream
from app.core.formats.columns import schema_in, unpack_frame
from app.errors import FormatInvalid

DTYPES = {
    BufferKind.TEXT: pl.String, BufferKind.INTEGER: pl.Int64, BufferKind.BOOLEAN: pl.Boolean, BufferKind.BINARY: pl.Binary,
}  # fmt: skip
VALUES: dict[BufferKind, st.SearchStrategy[Any]] = {
    BufferKind.TEXT: st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    BufferKind.INTEGER: st.integers(-(2**63), 2**63 - 1), BufferKind.BOOLEAN: st.booleans(),
    BufferKind.BINARY: st.binary(max_size=5),
}  # fmt: skip
Column = tuple[BufferKind, list[Any]]


@st.composite
def columns(draw: st.DrawFn, height: int) -> dict[str, Column]:
    kinds = draw(st.dictionaries(st.text("abü", min_size=1, max_size=3), st.sampled_from(list(BufferKind)), max_size=4))
    values = {kind: st.lists(st.one_of(st.none(), VALUES[kind]), min_size=height, max_size=height) for kind in BufferKind}
    return {name: (kind, draw(values[kind])) for name, kind in kinds.items()}


def buffers_of(name: str, kind: BufferKind, values: list[Any]) -> Buffers:
    nulls = values.count(None)
    validity = np.packbits([value is not None for value in values], bitorder="little") if nulls else None
    if kind is BufferKind.INTEGER:
        return Buffers(name, kind, nulls, validity, None, np.array([value or 0 for value in values], np.int64))
    if kind is BufferKind.BOOLEAN:
        return Buffers(name, kind, nulls, validity, None, np.packbits([bool(v) for v in values], bitorder="little"))
    texts = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return Buffers(name, kind, nulls, validity, offsets, np.frombuffer(b"".join(texts), np.uint8))


def frame_of(height: int, held: dict[str, Column]) -> Frame:
    return Frame(height, [buffers_of(name, kind, values) for name, (kind, values) in held.items()])


def packed(frame: Frame) -> bytes:
    return write_stream(frame.height, frame.columns)


@given(st.integers(1, 20).flatmap(lambda height: st.tuples(st.just(height), columns(height))))
def test_polars_reads_what_was_written(drawn: tuple[int, dict[str, Column]]) -> None:
    height, held = drawn
    stream = packed(frame_of(height, held))
    if held:
        assert unpack_frame(stream).to_dict(as_series=False) == {name: values for name, (_, values) in held.items()}
        assert schema_in(stream) == {name: DTYPES[kind] for name, (kind, _) in held.items()}
    back = read_stream(stream)
    assert back is not None
    assert packed(back) == stream


@given(
    st.lists(st.integers(1, 9).flatmap(lambda height: st.tuples(st.just(height), columns(height))), min_size=1, max_size=3)
)
def test_frames_one_below_the_other(drawn: list[tuple[int, dict[str, Column]]]) -> None:
    kinds = {name: kind for _, held in drawn for name, (kind, _) in held.items()}
    frames = [(height, {n: column for n, column in held.items() if column[0] is kinds[n]}) for height, held in drawn]
    stacked = stack_frames([frame_of(height, held) for height, held in frames])
    expected = {
        name: [value for height, held in frames for value in (held[name][1] if name in held else [None] * height)]
        for name in dict.fromkeys(name for _, held in frames for name in held)
    }
    assert stacked.height == sum(height for height, _ in frames)
    if expected:
        assert unpack_frame(packed(stacked)).to_dict(as_series=False) == expected


def test_a_stream_of_polars_is_left_to_polars() -> None:
    out = io.BytesIO()
    pl.DataFrame({"a": ["x", None], "b": [1, 2]}).write_ipc_stream(out, compression="lz4")
    assert read_stream(out.getvalue()) is None


def test_a_damaged_stream_is_refused_or_left_to_polars() -> None:
    stream = packed(frame_of(3, {"a": (BufferKind.TEXT, ["x", None, "yz"]), "b": (BufferKind.INTEGER, [1, 2, 3])}))
    good = read_stream(stream)
    assert good is not None
    for at in range(len(stream)):
        damaged = stream[:at] + bytes([stream[at] ^ 0xFF]) + stream[at + 1 :]
        try:
            found = read_stream(damaged)
        except FormatInvalid:
            continue
        for column in () if found is None else found.columns:
            assert column.offsets is None or column.offsets[-1] == len(column.data)
    for size in range(len(stream)):
        try:
            assert read_stream(stream[:size]) is None
        except FormatInvalid:
            continue
