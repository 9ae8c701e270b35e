"""The ledger of a step: of each batch, which lines became what (invariant: over all steps each line exactly once)."""

import polars as pl
from pyroaring import BitMap

from app.core.step_message import LedgerEntry


class StepLedger:
    """Gathers what became of lines; one entry a batch and outcome."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame, outcome: str) -> None:
        """Every row of `rows` (columns `batch_id`, `line`) became `outcome`."""
        self._parts.append(rows.select("batch_id", "line", pl.lit(outcome).alias("outcome")))

    def entries(self) -> list[LedgerEntry]:
        """The entries, in the order in which their first lines were added."""
        if not self._parts:
            return []
        grouped = pl.concat(self._parts).group_by("batch_id", "outcome", maintain_order=True).agg("line")
        return [_entry(batch_id, outcome, lines) for batch_id, outcome, lines in grouped.rows()]


def _entry(batch_id: str, outcome: str, lines: list[int]) -> LedgerEntry:
    line_set = BitMap(lines)
    line_set.run_optimize()
    return LedgerEntry(batch_id, outcome, len(lines), line_set.serialize())
