"""The ledger of a step: batch and outcome -> lines. Over all steps each line is in it exactly once (invariant I2)."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import polars as pl
from pyroaring import BitMap

from app.core.etl.lines import Part
from app.core.formats.step_message import LedgerEntry
from app.kernels.cells import Ints


class BatchLines(NamedTuple):
    """Some lines of a step, as arrays."""

    batch_ids: Sequence[str]
    of_line: Ints
    """int64[n]: for each line the place of its batch in `batch_ids`."""
    numbers: Ints
    """int64[n]: for each line its number in its batch."""

    def by_batch(self) -> Iterator[tuple[str, Sequence[int]]]:
        """(batch_id, line numbers) of each batch that has any, in the order of its place; a batch may come twice."""
        of_line, numbers = self.of_line, self.numbers.astype(np.uint32)
        if (of_line[1:] < of_line[:-1]).any():
            order = np.argsort(of_line, kind="stable")
            of_line, numbers = of_line[order], numbers[order]
        starts = np.flatnonzero(of_line[1:] != of_line[:-1]) + 1
        ends = [*starts.tolist(), len(of_line)] if len(of_line) else []
        for start, end in zip([0, *ends], ends, strict=False):
            yield self.batch_ids[of_line[start]], array("I", numbers[start:end].tobytes())


class StepLedger:
    """Gathers the outcomes of lines; one entry for each batch and outcome."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], BitMap] = {}

    def add(self, rows: pl.DataFrame, outcome: str) -> None:
        """Every row of `rows` (columns `batch_id`, `line`) became `outcome`; a row without a batch does not count."""
        for batch_id, lines in lines_by_batch(rows).items():
            self._add(batch_id, outcome, lines)

    def add_part(self, part: Part, outcome: str) -> None:
        """Every line of `part` became `outcome`."""
        for batch_id, lines in part.by_batch():
            self._add(batch_id, outcome, lines)

    def add_lines(self, lines: BatchLines, outcome: str) -> None:
        """Every line of `lines` became `outcome`."""
        for batch_id, numbers in lines.by_batch():
            self._add(batch_id, outcome, numbers)

    def lines(self) -> Iterable[tuple[tuple[str, str], BitMap]]:
        """((batch_id, outcome), lines), for each pair that has any."""
        return self._lines.items()

    def entries(self) -> list[LedgerEntry]:
        """The entries, in the order in which their first lines were added."""
        return [_entry(batch_id, outcome, lines) for (batch_id, outcome), lines in self._lines.items()]

    def _add(self, batch_id: str, outcome: str, lines: Sequence[int]) -> None:
        known = self._lines.get((batch_id, outcome))
        if known is None:
            self._lines[batch_id, outcome] = BitMap(lines)
        else:
            known.update(lines)


def lines_by_batch(rows: pl.DataFrame) -> dict[str, list[int]]:
    """The line numbers of each batch in `rows` (columns `batch_id`, `line`); rows without a batch are passed over."""
    places = zip(rows["batch_id"].to_list(), rows["line"].to_list(), strict=True)
    by_batch: dict[str, list[int]] = {}
    for batch_id, run in groupby(places, key=itemgetter(0)):
        if batch_id is not None:
            by_batch.setdefault(batch_id, []).extend([line for _, line in run])
    return by_batch


def _entry(batch_id: str, outcome: str, lines: BitMap) -> LedgerEntry:
    lines.run_optimize()
    return LedgerEntry(batch_id, outcome, len(lines), lines.serialize())
