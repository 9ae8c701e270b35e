"""Runs a log through `PartitionEtl` over the in-memory state, as the shell does, and reads the result."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl
from pyroaring import BitMap

from app.core.enrich.enrich import Enricher
from app.core.etl.flow_rows import ROW_SCHEMAS
from app.core.etl.step import PartitionEtl
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import NO_PREDECESSOR, StepMessage, decode_step, encode_step
from app.core.rules import EtlRules
from app.core.state.tables import MemoryState

Row = tuple[tuple[str, Any], ...]


class Run:
    """One partition: its tables, its core, and every step so far."""

    def __init__(self, rules: EtlRules, enricher: Enricher, partition: int = 0) -> None:
        self.rules, self.enricher, self.partition = rules, enricher, partition
        self.state = MemoryState()
        self.steps: list[StepMessage] = []
        self.etl = self.load()

    def load(self) -> PartitionEtl:
        last = self.steps[-1] if self.steps else None
        applied = -1 if last is None else last.source_last
        return PartitionEtl.load(
            self.partition, self.rules, self.enricher, self.state, None if last is None else last.meta, applied
        )

    def restart(self) -> None:
        self.etl = self.load()

    def step(self, messages: Sequence[SourceMessage], *, careful: bool = False) -> StepMessage:
        predecessor = len(self.steps) - 1 if self.steps else NO_PREDECESSOR
        decision = self.etl.decide(messages, len(self.steps) + 1, predecessor, careful=careful)
        message = decode_step(encode_step(decision.message))
        assert message == decision.message
        self.state.apply(message.changes)
        self.etl.advance(message)
        self.steps.append(message)
        assert decision.more == self.etl.leftover
        return message

    def feed(self, log: Sequence[SourceMessage], cuts: Iterator[int] | None = None) -> "Run":
        """Run the whole of `log`; `cuts` has the number of waiting messages each time."""
        at = 0
        while self.etl.leftover or at < len(log):
            waiting = [] if self.etl.leftover else log[at : at + (next(cuts) if cuts else len(log))]
            taken = self.etl.take(waiting)
            assert (taken == 0) == (not waiting)
            self.step(waiting[:taken])
            at += taken
        return self

    def rows(self, flow: str) -> list[dict[str, Any]]:
        return rows_of(self.steps, flow)


def rows_of(steps: Iterable[StepMessage], flow: str) -> list[dict[str, Any]]:
    out = []
    for step in steps:
        if flow in step.rows:
            frame = pl.read_ipc_stream(step.rows[flow])
            assert frame.height == step.row_counts[flow]
            # A column without a value is left out of the frame.
            out += [dict.fromkeys(ROW_SCHEMAS[flow]) | row for row in frame.to_dicts()]
    return out


def accepted(rows: Iterable[dict[str, Any]], without: frozenset[str] = frozenset()) -> Counter[Row]:
    return Counter(tuple(sorted((k, v) for k, v in row.items() if k not in without)) for row in rows)


def ledger_of(steps: Iterable[StepMessage]) -> Counter[tuple[str, int, str]]:
    """(batch, line, outcome), as often as the steps have it."""
    found: Counter[tuple[str, int, str]] = Counter()
    for step in steps:
        assert len({(entry.batch_id, entry.outcome) for entry in step.ledger}) == len(step.ledger)
        for entry in step.ledger:
            lines = BitMap.deserialize(entry.line_set)
            assert len(lines) == entry.lines > 0
            found.update((entry.batch_id, line, entry.outcome) for line in lines)
    return found
