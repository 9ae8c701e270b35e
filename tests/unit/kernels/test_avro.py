"""The kernel writes the Avro records that plain Python writes."""

from itertools import accumulate

import numpy as np
from hypothesis import example, given

from app.kernels.avro import avro_rows
from app.kernels.columns import INTEGER
from app.kernels.copying import room_for
from tests.unit.kernels import file_rows
from tests.unit.kernels.file_rows import Value, out_of, rows_as_cells, tables


@given(tables())
@example(([INTEGER], [(value,) for bits in range(63) for value in (1 << bits, (1 << bits) - 1, -(1 << bits))]))
def test_rows_as_avro(table: tuple[list[int], list[tuple[Value, ...]]]) -> None:
    kinds, rows = table
    columns, arena, rec, present = rows_as_cells(kinds, rows)
    room = room_for(columns, rec, present, len(rows))
    out, ends = out_of(room), np.full(len(rows) + 1, -1, np.int64)
    end = avro_rows(columns, arena, rec, present, len(rows), out, ends)
    records = file_rows.avro_rows(rows, kinds)
    assert out[:end].tobytes() == b"".join(records)
    assert ends.tolist() == [*accumulate(map(len, records)), -1]
    assert end <= room
