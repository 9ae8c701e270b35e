"""One log through both paths of a step's lines, the plain one and the one on cells, step by step."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import polars as pl
from pyroaring import BitMap

from app.core.enrich.enrich import Enricher
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import StepMessage
from app.core.rules import EtlRules
from tests.worlds.etl_run import Run


class TwoPaths:
    """A partition on each path. `step` decides on both, and sees that they say the same."""

    def __init__(self, rules: EtlRules, enricher: Enricher) -> None:
        self.plain = Run(msgspec.structs.replace(rules, kernels=False), enricher)
        self.cells = Run(msgspec.structs.replace(rules, kernels=True), enricher)

    def step(self, messages: Sequence[SourceMessage], *, careful: bool = False) -> None:
        """Decide the next step.

        Raises:
            AssertionError: the steps differ.
        """
        plain, cells = (run.step(messages, careful=careful) for run in (self.plain, self.cells))
        assert content_of(cells) == content_of(plain)

    def feed(self, log: Sequence[SourceMessage], cuts: Iterator[int]) -> None:
        """Run the whole of `log`; `cuts` has the number of waiting messages each time."""
        at = 0
        while self.plain.etl.leftover or at < len(log):
            assert self.cells.etl.leftover == self.plain.etl.leftover
            waiting = [] if self.plain.etl.leftover else log[at : at + next(cuts)]
            taken = self.plain.etl.take(waiting)
            assert self.cells.etl.take(waiting) == taken
            self.step(waiting[:taken])
            at += taken

    def change_places(self) -> None:
        """Each path takes over what the other one has stored."""
        self.plain, self.cells = self.cells, self.plain
        for run, kernels in ((self.plain, False), (self.cells, True)):
            run.rules = msgspec.structs.replace(run.rules, kernels=kernels)
            run.restart()


def content_of(step: StepMessage) -> dict[str, Any]:
    """A step's message by its meaning: frames as rows, line sets as numbers, changes as entries; packing is left out."""
    rest = {name: getattr(step, name) for name in step.__struct_fields__ if name not in {"rows", "ledger", "changes"}}
    return {
        **rest,
        "rows": {flow: rows_in(packed) for flow, packed in step.rows.items()},
        "ledger": [
            (entry.batch_id, entry.outcome, entry.lines, list(BitMap.deserialize(entry.line_set))) for entry in step.ledger
        ],
        "changes": [
            (
                change.table,
                sorted(change.deleted()),
                [(key, value_of(change.table, key, value)) for key, value in change.puts()],
            )
            for change in step.changes
        ],
    }


def value_of(table: str, key: bytes, value: bytes) -> Any:
    """The meaning of a value in a table of the state."""
    if table == "pending" or (table == "seconds" and key[-1:] == b"d"):
        return rows_in(value)
    return list(BitMap.deserialize(value)) if table == "seconds" else value


def rows_in(packed: bytes) -> list[dict[str, Any]]:
    """The rows of a packed frame, without the columns that are NULL in a row."""
    rows = pl.read_ipc_stream(packed).to_dicts()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]
