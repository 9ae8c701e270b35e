"""The cells of any blocks are what the plain reader reads; `make fuzz TARGET=cells` plays as many as there is time for."""

import pytest

from app.core.etl.cells import CellReader
from app.errors import NewerFormat
from tests.builders.cells import columns_of, plain_columns
from tests.corpus.values import NOW_MS
from tests.rig.fuzz.mutate import case
from tests.rig.fuzz.of_cells import TARGETS, blocks_of

TARGET = TARGETS[0]
CASES = 600


def test_damaged_lines_are_read_as_the_plain_reader_reads_them() -> None:
    scanned = damaged = 0
    reader = CellReader()
    for seed in range(CASES):
        blocks = blocks_of(case(TARGET, seed))
        try:
            plain = plain_columns(blocks)
        except NewerFormat:
            with pytest.raises(NewerFormat):
                reader.read(blocks)
            continue
        before = reader.doubts
        assert columns_of(reader.read(blocks)) == plain, f"make fuzz TARGET=cells SEED={seed}"
        doubts = reader.doubts - before
        damaged += doubts
        scanned += len(blocks) - doubts
    assert min(scanned, damaged) > CASES / 3, "both ways are taken"


def test_the_lines_that_the_collector_stores_are_scanned() -> None:
    reader = CellReader()
    for sample in TARGET.samples:
        reader.read([block for block in blocks_of(sample) if block.header.received_at_ms <= NOW_MS])
    assert reader.doubts == 0
