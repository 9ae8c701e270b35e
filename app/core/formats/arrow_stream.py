"""Arrow IPC streams written from buffers, and read back into buffers, without an object for each value.

The stream is the one that `app.core.formats.columns` reads and writes with polars: a schema, one record batch, each buffer
an lz4 frame of its own. Texts are `Utf8` here (32-bit offsets), where polars writes views; every Arrow reader takes both. It
costs a fifth of the time of polars.

A stream is read back only if it has exactly the form that is written here: `read_stream` answers None for any other, and
polars reads it.

Source: Arrow Columnar Format, "Encapsulated message format", "IPC Streaming Format" and "Compression"; `Message.fbs`,
`Schema.fbs`; FlatBuffers, "Binary schema format".
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import lz4.frame
import numpy as np
import numpy.typing as npt
import polars as pl

from app.core.formats.columns import schema_in
from app.errors import FormatInvalid

Array = npt.NDArray[Any]


class BufferKind(IntEnum):
    """The type of a column; the number is the type's in `Schema.fbs`."""

    INTEGER = 2
    BINARY = 4
    TEXT = 5
    BOOLEAN = 6


class Buffers(NamedTuple):
    """A column of n values."""

    name: str
    kind: BufferKind
    nulls: int
    """How many of its values are NULL."""
    validity: Array | None
    """uint8[(n + 7) // 8]: bit k % 8 of byte k // 8 says that value k is not NULL; None: no value is."""
    offsets: Array | None
    """int32[n + 1], the first is 0: value k is data[offsets[k] : offsets[k + 1]]; None for integers and booleans."""
    data: Array
    """uint8: the bytes of texts, or the bits of booleans, as in `validity`; int64[n]: integers."""


class _Form(NamedTuple):
    """What two streams with the same columns have in common."""

    names: tuple[str, ...]
    kinds: tuple[BufferKind, ...]
    schema: bytes
    """The message with the schema."""
    batch: bytes
    """The message with the head of the record batch, its numbers zero."""
    body_bytes_at: int
    height_at: int
    nodes_at: int
    buffers_at: int

    @property
    def buffer_count(self) -> int:
        """Buffers of the record batch."""
        return sum(_BUFFERS[kind] for kind in self.kinds)


_BUFFERS: Final = {BufferKind.INTEGER: 2, BufferKind.BOOLEAN: 2, BufferKind.TEXT: 3, BufferKind.BINARY: 3}
_DTYPES: Final[dict[pl.DataType, BufferKind]] = {
    pl.String(): BufferKind.TEXT, pl.Int64(): BufferKind.INTEGER, pl.Boolean(): BufferKind.BOOLEAN,
    pl.Binary(): BufferKind.BINARY,
}  # fmt: skip
_CONTINUES: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUES + bytes(4)
_PREFIX: Final = struct.Struct("<q")
_LENGTH: Final = struct.Struct("<i")
_PADDING: Final = tuple(bytes(-size % 8) for size in range(8))
_METADATA_V5: Final = 4
_SCHEMA, _RECORD_BATCH = 1, 3


def write_stream(height: int, columns: Sequence[Buffers]) -> bytes:
    """The stream of a frame with these columns, each of `height` values."""
    form = _form(tuple(column.name for column in columns), tuple(column.kind for column in columns))
    body: list[bytes] = []
    places: list[int] = []
    at = 0
    for column in columns:
        for buffer in _buffers_of(column):
            if buffer is None or not buffer.nbytes:
                places += [at, 0]
                continue
            packed = lz4.frame.compress(buffer, store_size=False)
            size = _PREFIX.size + len(packed)
            body += [_PREFIX.pack(buffer.nbytes), packed, _PADDING[size % 8]]
            places += [at, size]
            at += size + len(_PADDING[size % 8])
    head = bytearray(form.batch)
    _PREFIX.pack_into(head, form.body_bytes_at, at)
    _PREFIX.pack_into(head, form.height_at, height)
    nodes = [number for column in columns for number in (height, column.nulls)]
    struct.pack_into(f"<{len(nodes)}q", head, form.nodes_at, *nodes)
    struct.pack_into(f"<{len(places)}q", head, form.buffers_at, *places)
    return b"".join([form.schema, head, *body, _END])


def _buffers_of(column: Buffers) -> list[Array | None]:
    validity = column.validity if column.nulls else None
    if column.offsets is None:
        return [validity, column.data]
    return [validity, column.offsets, column.data]


class Frame(NamedTuple):
    """The columns of a stream."""

    height: int
    columns: list[Buffers]


def stack_frames(frames: Sequence[Frame]) -> Frame:
    """At least one frame, and below it the others; a column that only some of them have is NULL in the others.

    Columns of one name have one kind.
    """
    if len(frames) == 1:
        return frames[0]
    by_name = [{column.name: column for column in frame.columns} for frame in frames]
    kinds = {name: column.kind for columns in by_name for name, column in columns.items()}
    heights = [frame.height for frame in frames]
    columns = [_stacked(name, kind, heights, [held.get(name) for held in by_name]) for name, kind in kinds.items()]
    return Frame(sum(heights), columns)


def _stacked(name: str, kind: BufferKind, heights: Sequence[int], parts: Sequence[Buffers | None]) -> Buffers:
    held = list(zip(heights, parts, strict=True))
    nulls = sum(height if part is None else part.nulls for height, part in held)
    validity = _bits([_validity_of(height, part) for height, part in held]) if nulls else None
    if kind is BufferKind.BOOLEAN:
        data = _bits([np.zeros(height, np.uint8) if part is None else _unpacked(part.data, height) for height, part in held])
        return Buffers(name, kind, nulls, validity, None, data)
    if kind is BufferKind.INTEGER:
        values = [np.zeros(height, np.int64) if part is None else part.data for height, part in held]
        return Buffers(name, kind, nulls, validity, None, np.concatenate(values))
    ends, at = [np.zeros(1, np.int32)], 0
    for height, part in held:
        ends.append(np.full(height, at, np.int32) if part is None or part.offsets is None else part.offsets[1:] + at)
        at += 0 if part is None else len(part.data)
    data = np.concatenate([part.data for part in parts if part is not None])
    return Buffers(name, kind, nulls, validity, np.concatenate(ends).astype(np.int32), data)


def _validity_of(height: int, part: Buffers | None) -> Array:
    if part is None:
        return np.zeros(height, np.uint8)
    return np.ones(height, np.uint8) if part.validity is None else _unpacked(part.validity, height)


def _unpacked(bits: Array, height: int) -> Array:
    return np.unpackbits(bits, count=height, bitorder="little")


def _bits(parts: Sequence[Array]) -> Array:
    return np.packbits(np.concatenate(parts), bitorder="little")


def read_stream(packed: bytes) -> Frame | None:
    """The columns in a stream that `write_stream` wrote; None for any other stream.

    Guarantees: arrays can be written; buffers have the sizes that `Buffers` says, and offsets ascend from 0 to the last byte
    of their data.

    Raises:
        FormatInvalid: it is no whole stream.
    """
    start = _end_of_message(packed, 0)
    form = _form_of(packed[:start])
    if form is None:
        return None
    end = _end_of_message(packed, start)
    head = bytearray(packed[start:end])
    if len(head) != len(form.batch):
        return None
    body_bytes, height = _PREFIX.unpack_from(head, form.body_bytes_at)[0], _PREFIX.unpack_from(head, form.height_at)[0]
    nodes = struct.unpack_from(f"<{2 * len(form.kinds)}q", head, form.nodes_at)
    places = struct.unpack_from(f"<{2 * form.buffer_count}q", head, form.buffers_at)
    _clear(form, head)
    if head != form.batch or packed[end + body_bytes :] != _END or set(nodes[::2]) - {height}:
        return None
    opened = iter(
        [_opened(packed, end, end + body_bytes, at, size) for at, size in zip(places[::2], places[1::2], strict=True)]
    )
    columns = [
        _column(name, kind, height, nulls, [next(opened) for _ in range(_BUFFERS[kind])])
        for name, kind, nulls in zip(form.names, form.kinds, nodes[1::2], strict=True)
    ]
    return Frame(height, columns)


def _end_of_message(packed: bytes, start: int) -> int:
    """The end of the head of the message at `start`."""
    size = _LENGTH.unpack_from(packed, start + 4)[0] if len(packed) >= start + 8 else -1
    if packed[start : start + 4] != _CONTINUES or not 0 < size <= len(packed) - start - 8:
        raise FormatInvalid(f"{len(packed)} bytes are no Arrow IPC stream: no message at {start}")
    return start + 8 + int(size)


def _clear(form: _Form, head: bytearray) -> None:
    """Set the numbers in a record batch's head to zero."""
    for at, count in ((form.body_bytes_at, 1), (form.height_at, 1), (form.nodes_at, 2 * len(form.kinds)),
                      (form.buffers_at, 2 * form.buffer_count)):  # fmt: skip
        head[at : at + 8 * count] = bytes(8 * count)


def _opened(packed: bytes, start: int, end: int, at: int, size: int) -> bytearray:
    if not size:
        return bytearray()
    if size < _PREFIX.size or at < 0 or start + at + size > end:
        raise FormatInvalid(f"an Arrow IPC stream has a buffer at {at} to {at + size} of {end - start} bytes")
    stated = _PREFIX.unpack_from(packed, start + at)[0]
    try:
        frame = memoryview(packed)[start + at + _PREFIX.size : start + at + size]
        opened: bytearray = lz4.frame.decompress(frame, return_bytearray=True)
    except RuntimeError as exc:
        raise FormatInvalid(f"a buffer of an Arrow IPC stream is no lz4 frame: {exc}") from exc
    if len(opened) != stated:
        raise FormatInvalid(f"a buffer of an Arrow IPC stream has {len(opened)} bytes, not {stated}")
    return opened


def _column(name: str, kind: BufferKind, height: int, nulls: int, buffers: list[bytearray]) -> Buffers:
    """A column, its sizes checked."""
    bits = (height + 7) // 8
    validity = np.frombuffer(buffers[0], np.uint8) if nulls else None
    fits = validity is None or len(validity) == bits
    offsets = None
    if kind is BufferKind.INTEGER:
        fits = fits and len(buffers[1]) == 8 * height
        data: Array = np.frombuffer(buffers[1] if fits else bytearray(), np.int64)
    elif kind is BufferKind.BOOLEAN:
        data = np.frombuffer(buffers[1], np.uint8)
        fits = fits and len(data) == bits
    else:
        data = np.frombuffer(buffers[2], np.uint8)
        fits = fits and len(buffers[1]) == 4 * (height + 1)
        offsets = np.frombuffer(buffers[1] if fits else bytearray(4), np.int32)
        fits = fits and offsets[0] == 0 and offsets[-1] == len(data) and bool((offsets[1:] >= offsets[:-1]).all())
    if not fits:
        raise FormatInvalid(f"the buffers of column {name} do not fit {height} values")
    return Buffers(name, kind, nulls, validity, offsets, data)


@lru_cache(maxsize=256)
def _form(names: tuple[str, ...], kinds: tuple[BufferKind, ...]) -> _Form:
    batch, places = _batch_message(kinds)
    return _Form(names, kinds, _schema_message(names, kinds), batch, *places)


@lru_cache(maxsize=256)
def _form_of(schema: bytes) -> _Form | None:
    """The form of streams that begin with `schema`; None if this module writes none like it."""
    columns = schema_in(schema)
    kinds = tuple(kind for dtype in columns.values() if (kind := _DTYPES.get(dtype)) is not None)
    if len(kinds) < len(columns):
        return None
    form = _form(tuple(columns), kinds)
    return form if form.schema == schema else None


class _FlatBuffer:
    """A FlatBuffer, written from its front to its end: whatever refers to something stands before it."""

    def __init__(self) -> None:
        self.bytes = bytearray(4)

    def pad(self, behind: int, size: int = 8) -> None:
        """Go on at a place that is `behind` a multiple of `size`."""
        self.bytes += bytes((behind - len(self.bytes)) % size)

    def table(self, *fields: tuple[str, int] | None) -> list[int]:
        """Append a table. A field is (format of `struct`, value), None for a default; a reference is `("I", 0)`.

        Returns: the place of each field's value, 0 for a default.
        """
        given = sorted((n for n, field in enumerate(fields) if field), key=lambda n: -struct.calcsize(f"<{fields[n][0]}"))  # type: ignore[index]
        places, size = [0] * len(fields), 4
        for n in given:
            places[n] = size
            size += struct.calcsize(f"<{fields[n][0]}")  # type: ignore[index]
        self.pad(0, 2)
        vtable = len(self.bytes)
        self.bytes += struct.pack(f"<{2 + len(fields)}H", 4 + 2 * len(fields), size, *places)
        self.pad(4)  # the widest fields, 8 bytes, come first
        start = len(self.bytes)
        self.bytes += struct.pack("<i", start - vtable)
        for n in given:
            self.bytes += struct.pack(f"<{fields[n][0]}", fields[n][1])  # type: ignore[index]
        self._last = start
        return [start + place if place else 0 for place in places]

    def refer(self, place: int) -> None:
        """Let the reference at `place` point to the table that was appended last."""
        self._point(place, self._last)

    def vector(self, place: int, count: int, elements: bytes, behind: int = 4) -> int:
        """Append a vector, and point to it. Returns: the place of its first element."""
        self.pad(behind)
        start = len(self.bytes)
        self._point(place, start)
        self.bytes += struct.pack("<I", count) + elements
        return start + 4

    def _point(self, place: int, target: int) -> None:
        struct.pack_into("<I", self.bytes, place, target - place)


def _message(kind: int) -> tuple[_FlatBuffer, int, int]:
    """A message without its head; the places of the reference to the head, and of the body's size."""
    buffer = _FlatBuffer()
    _, _, head, body = buffer.table(("h", _METADATA_V5), ("B", kind), ("I", 0), ("q", 0))
    buffer.refer(0)
    return buffer, head, body


def _sealed(buffer: _FlatBuffer) -> bytes:
    buffer.pad(0)
    return _CONTINUES + _LENGTH.pack(len(buffer.bytes)) + bytes(buffer.bytes)


def _schema_message(names: Sequence[str], kinds: Sequence[BufferKind]) -> bytes:
    buffer, head, _ = _message(_SCHEMA)
    _, fields = buffer.table(None, ("I", 0))
    buffer.refer(head)
    first = buffer.vector(fields, len(names), bytes(4 * len(names)))
    for n, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        title, _, _, described, _, children = buffer.table(("I", 0), ("B", 1), ("B", kind), ("I", 0), None, ("I", 0))
        buffer.refer(first + 4 * n)
        buffer.vector(title, len(name.encode()), name.encode() + b"\0")
        buffer.vector(children, 0, b"")
        buffer.table(*([("i", 64), ("B", 1)] if kind is BufferKind.INTEGER else []))
        buffer.refer(described)
    return _sealed(buffer)


def _batch_message(kinds: Sequence[BufferKind]) -> tuple[bytes, tuple[int, int, int, int]]:
    """The head of a record batch; the places of body size, height, nodes and buffers in it."""
    count = sum(_BUFFERS[kind] for kind in kinds)
    buffer, head, body = _message(_RECORD_BATCH)
    height, nodes, buffers, compression = buffer.table(("q", 0), ("I", 0), ("I", 0), ("I", 0))
    buffer.refer(head)
    nodes_at = buffer.vector(nodes, len(kinds), bytes(16 * len(kinds)))
    buffers_at = buffer.vector(buffers, count, bytes(16 * count))
    buffer.table()  # lz4 frames, buffer by buffer, are the defaults
    buffer.refer(compression)
    start = len(_CONTINUES) + _LENGTH.size
    return _sealed(buffer), (start + body, start + height, start + nodes_at, start + buffers_at)
