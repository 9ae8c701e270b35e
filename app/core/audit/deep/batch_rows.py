"""The rows of some batches in one transaction: the warehouse's against those of the data files."""

from collections.abc import Mapping

import polars as pl
from pyroaring import BitMap

from app.core.audit.deep.lines import LinesOf, of_output, outcome_lines
from app.core.audit.deep.rows import TransactionOutput, compare_places, compare_rows
from app.core.audit.differences import Difference
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import FLOWS, LEDGER

Frames = Mapping[str, pl.DataFrame]
"""Output -> normalised rows of the batches that are looked at."""


def empty(output: str) -> pl.DataFrame:
    """No rows of an output."""
    return pl.DataFrame(schema=frame_schema(output))


def compare_batches(whats: Mapping[str, TransactionOutput], files: Frames, warehouse: Frames) -> list[Difference]:
    """The differences of the warehouse's rows from one transaction's files.

    Args:
        whats: output -> its name for differences, for the six flows and the ledger.
        files: the rows of the files; an output whose file is lost or changed is absent.
        warehouse: the rows with the transaction's id.
    """
    differences: list[Difference] = []
    lines = ledger_lines(files, warehouse)
    for output, what in whats.items():
        found = warehouse.get(output, empty(output))
        if output in files:
            differences += compare_rows(what, files[output], found)
        elif output != LEDGER.name:
            differences += compare_places(what, of_output(output, lines), found)
    return differences


def ledger_lines(files: Frames, warehouse: Frames) -> LinesOf:
    """Outcome -> batch -> lines, by the ledger file; by the warehouse's ledger if the file is damaged."""
    ledger = files.get(LEDGER.name, warehouse.get(LEDGER.name, empty(LEDGER.name)))
    return outcome_lines(ledger)


def lines_in(output: str, batch_id: str, lines: LinesOf) -> BitMap:
    """The lines of a batch that an output of a transaction is about; all of them for no output."""
    outputs = [output] if output else [*(flow.name for flow in FLOWS), LEDGER.name]
    found = BitMap()
    for each in outputs:
        found |= of_output(each, lines).get(batch_id, BitMap())
    return found
