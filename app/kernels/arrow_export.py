"""The buffers of a data frame, without a copy, by the protocol that Arrow's libraries share.

Source: "Arrow C Data Interface", "Arrow C Stream Interface" and "Arrow PyCapsule Interface".
"""

import ctypes
from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np

from app.kernels.arrow_cells import (
    BITS,
    BUFFERS,
    DATA,
    DESCRIPTION,
    LAYOUT,
    OTHER,
    SIZES,
    SKIPPED,
    VALIDITY,
    VALUES,
    VIEWS,
    WORDS,
)
from app.kernels.cells import Ints
from app.kernels.compiled import kernel
from app.kernels.memory import word_at

_FORMATS: Final = {b"l": WORDS, b"b": BITS, b"vu": VIEWS}
"""The layouts of int64, boolean and views of UTF-8."""
_NUMBER: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_RELEASE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_OFFSET, _BUFFER_COUNT, _POINTERS, _CHILDREN = (8 * word for word in (2, 3, 5, 6))
"""Offsets in ArrowArray: length, null_count, offset, n_buffers, n_children, buffers, children, ..."""


class Exporting(Protocol):
    """A table of any of Arrow's libraries."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule of its record batches."""
        ...


class _Schema(ctypes.Structure):
    """ArrowSchema."""


_Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.c_void_p), ("release", _RELEASE), ("private_data", ctypes.c_void_p),
]  # fmt: skip


class _Array(ctypes.Structure):
    """ArrowArray."""

    _fields_ = (
        ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p), ("release", _RELEASE),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


class _Stream(ctypes.Structure):
    """ArrowArrayStream."""

    _fields_ = (
        ("get_schema", _NUMBER), ("get_next", _NUMBER), ("get_last_error", ctypes.c_void_p), ("release", _RELEASE),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


_pointer: Final = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


@kernel("void(int64, int64[::1], int64[:, ::1])")
def describe_children(array: int, layouts: Ints, table: Ints) -> None:
    """Describe each column of a record batch as `gather_cells` takes it.

    Args:
        array: address of the ArrowArray of a struct.
        layouts: int64[columns], WORDS, BITS, VIEWS or OTHER.
        table: int64[columns, DESCRIPTION], written.
    """
    for number in range(len(layouts)):
        child = word_at(word_at(array + _CHILDREN) + 8 * number)
        count, buffers = word_at(child + _BUFFER_COUNT), word_at(child + _POINTERS)
        table[number, LAYOUT] = layouts[number]
        if layouts[number] == OTHER:
            continue
        table[number, VALIDITY] = word_at(buffers)
        table[number, SKIPPED] = word_at(array + _OFFSET) + word_at(child + _OFFSET)
        table[number, VALUES] = word_at(buffers + 8)
        if layouts[number] == VIEWS:
            table[number, DATA] = buffers + 16
            table[number, SIZES] = word_at(buffers + 8 * (count - 1))
            table[number, BUFFERS] = count - 3


def described(frame: Exporting) -> Iterator[tuple[int, Ints]]:
    """(rows, int64[columns, DESCRIPTION]) of each record batch of a frame; int64, booleans and texts are described.

    The addresses hold until the next batch is asked for.

    Raises:
        RuntimeError: the library refuses.
    """
    capsule = frame.__arrow_c_stream__()
    place = _pointer(capsule, b"arrow_array_stream")
    stream = _Stream.from_address(place)
    layouts = _layouts(stream, place)
    while True:
        batch = _Array()
        _asked(stream.get_next, place, batch)
        if not batch.release:
            return
        try:
            table = np.zeros((len(layouts), DESCRIPTION), np.int64)
            describe_children(ctypes.addressof(batch), layouts, table)
            yield batch.length, table
        finally:
            batch.release(ctypes.addressof(batch))


def _layouts(stream: _Stream, place: int) -> Ints:
    schema = _Schema()
    _asked(stream.get_schema, place, schema)
    try:
        formats = [schema.children[number].contents.format for number in range(schema.n_children)]
    finally:
        schema.release(ctypes.addressof(schema))
    return np.array([_FORMATS.get(each, OTHER) for each in formats], np.int64)


def _asked(ask: Any, place: int, answer: ctypes.Structure) -> None:
    if (failed := ask(place, ctypes.addressof(answer))) != 0:
        raise RuntimeError(f"Arrow stream: error {failed}")
