"""Blocks of any lines, and cells as the columns that the plain reader gives."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.etl.cells import Cells
from app.core.etl.decode import Decoded, read_blocks
from app.core.etl.field_table import FIELD
from app.core.events.fields import EVENT_TYPES, STORED_FIELDS
from app.core.formats.block import BlockHeader
from app.core.formats.flows import ColumnKind
from app.core.formats.source import AcceptedBlock

Columns = Mapping[str, Sequence[Any]]


def block_of(text: bytes, received_at_ms: int = 0, stream_time_ms: int = 0, number: int = 0) -> AcceptedBlock:
    """A block of these lines; the last one ends with LF."""
    header = BlockHeader(
        epoch=1, batch_id=f"00000000-0000-0000-0000-{number:012d}", block=0, blocks_in_batch=1, first_line=100,
        lines=text.count(b"\n"), partition=0, attempt=0, received_at_ms=received_at_ms,
    )  # fmt: skip
    return AcceptedBlock(header, number, text, stream_time_ms)


def columns_of(cells: Cells) -> dict[str, list[Any]]:
    """Field -> its value in each line, as `Decoded.columns` has them."""
    return {name: [_value(cells, line, name) for line in range(len(cells.rec))] for name in STORED_FIELDS}


def plain_columns(blocks: Sequence[AcceptedBlock]) -> dict[str, list[Any]]:
    """The same from the plain reader."""
    found: list[Decoded] = list(read_blocks(blocks))
    return {name: [value for decoded in found for value in decoded.columns[name]] for name in STORED_FIELDS}


def _value(cells: Cells, line: int, name: str) -> Any:
    field = FIELD[name]
    has_type = bool(int(cells.present[line]) >> FIELD["event_type"] & 1)
    assert has_type == (cells.types[line] >= 0)
    if not int(cells.present[line]) >> field & 1:
        return None
    cell = int(cells.rec[line, field])
    if STORED_FIELDS[name] is ColumnKind.STRING:
        text = cells.text(cell).decode()
        assert name != "event_type" or text == EVENT_TYPES[cells.types[line]]
        return text
    return bool(cell) if STORED_FIELDS[name] is ColumnKind.BOOLEAN else cell
