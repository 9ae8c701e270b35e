"""The kernel writes the TSV that plain Python writes."""

from calendar import isleap
from datetime import date

import pytest
from hypothesis import example, given

from app.kernels import copying, tsv
from app.kernels.columns import FIRST_MS, INTEGER, LAST_MS, TIMESTAMP
from tests.unit.kernels.file_rows import Value, out_of, room_for, rows_as_cells, tables, tsv_rows

_EPOCH_DAY = date(1970, 1, 1).toordinal()


def written(kinds: list[int], rows: list[tuple[Value, ...]]) -> bytes:
    columns, arena, rec, present = rows_as_cells(kinds, rows)
    room = copying.room_for(columns, rec, present, len(rows))
    assert room == room_for(rows)
    out = out_of(room)
    end = tsv.tsv_rows(columns, arena, rec, present, len(rows), out)
    assert 0 <= end <= room
    return out[:end].tobytes()


@given(tables())
@example(([INTEGER], [(value,) for digits in range(19) for value in (10**digits - 1, 10**digits, -(10**digits))]))
@example(([TIMESTAMP], [(day * 86_400_000 + 12 * 3_600_000 + 59_999,) for day in range(-719_162, 2_932_896, 30_013)]))
@example(([TIMESTAMP], [((10_957 + day) * 86_400_000,) for day in range(800)]))
def test_rows_as_tsv(table: tuple[list[int], list[tuple[Value, ...]]]) -> None:
    assert written(*table) == tsv_rows(*table)


def test_the_turns_of_all_years_and_the_ends_of_all_februaries() -> None:
    turns = [date(year, month, day) for year in range(1, 10_000) for month, day in ((1, 1), (2, 28), (3, 1), (12, 31))]
    rows = [((turn.toordinal() - _EPOCH_DAY) * 86_400_000 + extra,) for turn in turns for extra in (0, 86_399_999)]
    leap = [((date(year, 2, 29).toordinal() - _EPOCH_DAY) * 86_400_000,) for year in range(4, 10_000, 4) if isleap(year)]
    assert written([TIMESTAMP], rows + leap) == tsv_rows([TIMESTAMP], rows + leap)


@pytest.mark.parametrize("moment_ms", [FIRST_MS - 1, LAST_MS + 1, -(2**63), 2**63 - 1])
def test_a_time_without_four_digits_of_year_is_a_doubt(moment_ms: int) -> None:
    columns, arena, rec, present = rows_as_cells([INTEGER, TIMESTAMP], [(1, 0), (1, moment_ms)])
    assert tsv.tsv_rows(columns, arena, rec, present, 2, out_of(200)) == tsv.DOUBT
