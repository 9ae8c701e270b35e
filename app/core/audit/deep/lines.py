"""The lines that one transaction's ledger names, by outcome: they say which lines a damaged file holds."""

from collections.abc import Mapping
from typing import Final

import msgspec
import polars as pl
from pyroaring import BitMap

from app.core.audit.differences import Difference
from app.core.audit.reconcile import read_lines
from app.core.formats.flows import FLOWS, LEDGER

LinesOf = Mapping[str, Mapping[str, BitMap]]
"""Outcome -> batch -> its lines."""
_FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)


def outcome_lines(ledger: pl.DataFrame) -> LinesOf:
    """The lines of a transaction's ledger rows; a row whose set is no bitmap is passed over."""
    found: dict[str, dict[str, BitMap]] = {}
    for batch_id, outcome, line_set in ledger.select("batch_id", "outcome", "line_set").iter_rows():
        lines = read_lines(line_set or "")
        if lines is not None:
            of_outcome = found.setdefault(outcome, {})
            of_outcome[batch_id] = of_outcome.get(batch_id, BitMap()) | lines
    return found


def of_output(output: str, lines: LinesOf) -> Mapping[str, BitMap]:
    """Batch -> its lines that an output of the transaction is about: a flow's rows, or all lines for the ledger."""
    if output in _FLOW_NAMES:
        return lines.get(output, {})
    return of_all(lines) if output == LEDGER.name else {}


def of_all(lines: LinesOf) -> Mapping[str, BitMap]:
    """Batch -> all its lines in the transaction."""
    found: dict[str, BitMap] = {}
    for by_batch in lines.values():
        for batch_id, some in by_batch.items():
            found[batch_id] = found.get(batch_id, BitMap()) | some
    return found


def by_batch(difference: Difference, lines: Mapping[str, BitMap]) -> list[Difference]:
    """The difference once for each batch, with its lines; itself where no batch is known."""
    return [
        msgspec.structs.replace(difference, batch_id=batch_id, lines=list(lines[batch_id])) for batch_id in sorted(lines)
    ] or [difference]
