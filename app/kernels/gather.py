"""Columns of chosen lines, out of cells and into the buffers of Arrow columns.

A line is chosen by its number; the number -1 stands for a line that has no field at all.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel, part
from app.kernels.copying import copy_bytes

Offsets: TypeAlias = npt.NDArray[np.int32]


@part
def has_field(present: Words, line: int, field: int) -> bool:
    """Whether `line`, -1 for none, has a field."""
    return line >= 0 and (present[line] >> uint64(field)) & uint64(1) != uint64(0)


@kernel("int64(int64[:, ::1], uint64[::1], int64[::1], int64[::1])")
def text_bytes(rec: Ints, present: Words, lines: Ints, fields: Ints) -> int:
    """The bytes of the texts in some fields of the chosen lines, together.

    Args:
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        fields: int64[c], fields of kind text.
    """
    total = 0
    for k in range(len(lines)):
        for i in range(len(fields)):
            if has_field(present, lines[k], fields[i]):
                total += rec[lines[k], fields[i]] & LEN_MASK
    return total


@kernel(
    "void(uint8[::1], int64[:, ::1], uint64[::1], int64[::1], int64[::1], int32[:, ::1], uint8[::1], int64[::1], "
    "uint8[:, ::1], int64[::1])"
)
def gather_texts(
    arena: Bytes, rec: Ints, present: Words, lines: Ints, fields: Ints,
    offsets: Offsets, data: Bytes, bounds: Ints, validity: Bytes, nulls: Ints,
) -> None:  # fmt: skip
    """Copy texts of the chosen lines into columns, one column behind the other.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        fields: int64[c], fields of kind text.
        offsets: int32[c, m + 1], written: the end of each text, from the start of its column.
        data: uint8[text_bytes + PAD], written: the texts; text_bytes is below 2^31.
        bounds: int64[c + 1], written: column i is data[bounds[i] : bounds[i + 1]].
        validity: uint8[c, (m + 7) // 8], zeros; written: bit k % 8 of byte k // 8 says that line k has the text.
        nulls: int64[c], written: how many lines lack the text.
    """
    at = 0
    for i in range(len(fields)):
        field, start, missing = fields[i], at, 0
        bounds[i] = at
        offsets[i, 0] = 0
        for k in range(len(lines)):
            if has_field(present, lines[k], field):
                cell = rec[lines[k], field]
                copy_bytes(data, at, arena, cell >> LEN_BITS, cell & LEN_MASK)
                at += cell & LEN_MASK
                validity[i, k >> 3] |= 1 << (k & 7)
            else:
                missing += 1
            offsets[i, k + 1] = at - start
        nulls[i] = missing
    bounds[len(fields)] = at


@kernel("void(int64[:, ::1], uint64[::1], int64[::1], int64[::1], int64[:, ::1], uint8[:, ::1], int64[::1])")
def gather_integers(
    rec: Ints, present: Words, lines: Ints, fields: Ints, values: Ints, validity: Bytes, nulls: Ints
) -> None:
    """Copy integers of the chosen lines into columns.

    Args:
        rec: int64[n, fields].
        present: uint64[n].
        lines: int64[m], numbers of lines or -1.
        fields: int64[c], fields of kind integer.
        values: int64[c, m], written: the integers, 0 where the line lacks one.
        validity: uint8[c, (m + 7) // 8], zeros; written as by `gather_texts`.
        nulls: int64[c], written: how many lines lack the integer.
    """
    for i in range(len(fields)):
        missing = 0
        for k in range(len(lines)):
            if has_field(present, lines[k], fields[i]):
                values[i, k] = rec[lines[k], fields[i]]
                validity[i, k >> 3] |= 1 << (k & 7)
            else:
                values[i, k] = 0
                missing += 1
        nulls[i] = missing


@kernel("void(int32[::1], uint8[::1], boolean, int64, int64, int64[:, ::1], uint64[::1])")
def spread_texts(offsets: Offsets, validity: Bytes, has_nulls: bool, at: int, field: int, rec: Ints, present: Words) -> None:
    """Make cells of a column of texts.

    Args:
        offsets: int32[n + 1], ascending: the end of each text; no text is longer than LEN_MASK.
        validity: uint8[(n + 7) // 8]: which texts there are; of no meaning without `has_nulls`.
        has_nulls: whether a text is missing.
        at: where the column's bytes begin in the arena of the cells.
        field: the field that the cells get.
        rec: int64[n, fields], written.
        present: uint64[n], written: the bit of the field.
    """
    for k in range(len(present)):
        if not has_nulls or (validity[k >> 3] >> (k & 7)) & 1:
            rec[k, field] = (at + offsets[k]) << LEN_BITS | (offsets[k + 1] - offsets[k])
            present[k] |= uint64(1) << uint64(field)


@kernel("void(int64[::1], uint8[::1], boolean, int64, int64[:, ::1], uint64[::1])")
def spread_integers(values: Ints, validity: Bytes, has_nulls: bool, field: int, rec: Ints, present: Words) -> None:
    """Make cells of a column of integers.

    Args:
        values: int64[n].
        validity: uint8[(n + 7) // 8]: which integers there are; of no meaning without `has_nulls`.
        has_nulls: whether an integer is missing.
        field: the field that the cells get.
        rec: int64[n, fields], written.
        present: uint64[n], written: the bit of the field.
    """
    for k in range(len(present)):
        if not has_nulls or (validity[k >> 3] >> (k & 7)) & 1:
            rec[k, field] = values[k]
            present[k] |= uint64(1) << uint64(field)
