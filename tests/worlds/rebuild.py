"""Batches in memory that went through the core in one order, and go through it again in a rebuild."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from pyroaring import BitMap

from agents.audit.rebuild.offline import Core, Made, run_partition
from agents.audit.rebuild.raw_blocks import Batches, BlockFiles, EpochPartition, gather
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.core.formats.flows import DUPLICATE, FLOWS
from app.core.formats.step_message import StepMessage
from app.core.formats.stored_line import StoredLine
from app.core.rebuild.span import BatchSpan
from app.core.rules import EtlRules
from app.testing.memory import MemoryObjectStore, MemoryRegistry
from app.testing.memory.engine import Disk
from tables.store.partition_store import PartitionStore
from tests.builders.source_log import as_line, at_ms, enricher, etl_rules, log_of, tick
from tests.worlds.etl_run import Run

Line = dict[str, Any]


class RawWorld:
    """A bucket and a registry with batches."""

    def __init__(self, rules: EtlRules | None = None) -> None:
        self.rules = rules or etl_rules(partitions=1)
        self.store = MemoryObjectStore()
        self.registry = MemoryRegistry()
        self.batches: list[SealedBatch] = []

    def add(self, *lines: Line, register: bool = True) -> SealedBatch:
        """A batch of these lines, in raw and, unless told otherwise, in the registry."""
        received = [line["received_at"] for line in lines]
        stored = [
            StoredLine(as_line(line), str(line.get("page_view_id") or line.get("event_id")).encode(), True, None, at)
            for line, at in zip(lines, received, strict=True)
        ]
        batch_id = new_batch_id(max(received), len(self.batches).to_bytes(10), "")
        sealed = seal(batch_id, self.rules.epoch, self.rules.partitions, stored)
        asyncio.run(self._store(sealed, register=register))
        self.batches.append(sealed)
        return sealed

    async def _store(self, sealed: SealedBatch, *, register: bool) -> None:
        await self.store.put(sealed.item.raw_key, sealed.raw)
        if register:
            await self.registry.register(sealed.item)

    def live(self, order: Sequence[int], end_s: float = 10_000) -> list[StepMessage]:
        """The steps of the only partition for the first blocks of the batches in this order; none of them is late."""
        received = [self.batches[n].item.received_at_ms for n in order]
        values = []
        for n, batch in enumerate(order):
            values += [tick(s=(min(received[n:]) - at_ms(0)) / 1000), self.batches[batch].blocks[0]]
        run = Run(self.rules, enricher())
        return run.feed(log_of([*values, tick(s=end_s)]), iter([1] * 2 * len(values) + [1])).steps

    def rebuilt(self, folder: Path, span: BatchSpan, steps: Sequence[StepMessage] = ()) -> "Rebuilt":
        """The rebuild of a span; `steps` made the ledger that the warehouse has."""
        duplicates: dict[str, BitMap] = {}
        for step in steps:
            for entry in step.ledger:
                if entry.outcome == DUPLICATE:
                    known = duplicates.setdefault(entry.batch_id, BitMap())
                    known |= BitMap.deserialize(entry.line_set)
        files, disk = BlockFiles(folder), Disk()
        names = iter(range(1000))
        core = Core(self.rules, enricher(), lambda: PartitionStore(disk.open(str(next(names))), self.rules.dedup_window_ms))
        wide = span.widened(self.rules.join, 0)
        batches = asyncio.run(gather(self.store, self.registry, wide, files))
        made = [m for p in files.partitions() for m in run_partition(files, p, core, span, duplicates)]
        return Rebuilt(batches, files.partitions(), made)


class Rebuilt(NamedTuple):
    """The result of a rebuild."""

    batches: Batches
    partitions: list[EpochPartition]
    made: list[Made]

    def rows(self) -> list[tuple[str, str, int, str]]:
        """Every row, as text."""
        return sorted(row for each in self.made for flow, frame in each.rows.items() for row in rows_of(flow, frame))

    def ledger(self) -> dict[tuple[str, int], str]:
        """(batch, line) -> outcome; each line has one."""
        found: dict[tuple[str, int], str] = {}
        for each in self.made:
            for entry in each.ledger:
                for line in BitMap.deserialize(entry.line_set):
                    assert (entry.batch_id, line) not in found
                    found[entry.batch_id, line] = entry.outcome
        return found


def rows_of(flow: str, frame: pl.DataFrame) -> list[tuple[str, str, int, str]]:
    """(flow, batch, line, the whole row as text) of each row; a column that is left out is NULL."""
    return [
        (flow, row["batch_id"], row["line"], str(sorted((n, v) for n, v in row.items() if v is not None)))
        for row in frame.to_dicts()
    ]


def live_rows(steps: Sequence[StepMessage]) -> list[tuple[str, str, int, str]]:
    """Every row of live steps, as `Rebuilt.rows` has them."""
    parts = [(f.name, step.rows[f.name]) for step in steps for f in FLOWS if f.name in step.rows]
    return sorted(row for flow, packed in parts for row in rows_of(flow, pl.read_ipc_stream(packed)))
