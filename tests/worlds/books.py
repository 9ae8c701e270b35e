"""Batches of all kinds of events through the production code of collector, etl, sink and delivery, in memory.

Everything that a check of the books reads is there: raw files, registry, topics, chain, files, manifests, warehouse. A test
damages one of them.
"""

import random
from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec

from agents.audit.deep.audit import audit_deep
from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import DeepReport, Span
from agents.audit.prove.prover import Prover
from agents.audit.stages.stages import StagePorts, Stages
from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from agents.sink.partition import SinkPartition, SinkPorts, commit_rules
from app.core.audit.proof import Proof
from app.core.enrich.enrich import Enricher
from app.core.etl.step import PartitionEtl
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.core.formats.block import WatermarkMessage, encode_control
from app.core.formats.registry_item import BatchState, RegistryItem
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import NO_PREDECESSOR, encode_step
from app.core.formats.transaction_record import TransactionRecord
from app.core.rules import EtlRules, JoinRules
from app.core.sink.chain import ChainId, LogBounds, decode_record
from app.core.state.tables import MemoryState
from app.settings import Settings
from app.testing.memory import (
    MemoryLoadedLedger,
    MemoryLoadedRows,
    MemoryLogs,
    MemoryObjectStore,
    MemoryRegistry,
    MemoryWarehouse,
)
from app.topics import topics_of
from tests.builders.events import event, parse, text

START_MS = 1_795_000_000_000
RULES = EtlRules(epoch=1, partitions=1, join=JoinRules(8000, 3000, 2000), dedup_window_ms=3_600_000, message_bytes=1 << 24)
SETTINGS = Settings(partitions=1, join_window_s=8, join_grace_s=3, join_reorder_s=2, audit_grace_s=20, linger_ms=0)
BOT = {"webdriver": True}
ALL_KINDS = (
    event(event_id="pv", page_view_id="v1", url="https://a.example/x\ty", title='a "title"'),
    event("engagement", event_id="en", page_view_id="v1", dwell_ms=90_000, scroll_pct=50),
    event("ad_impression", event_id="ai", page_view_id="v1", ad_slot=1, revenue_micros=5),
    event("ad_click", event_id="ac", page_view_id="v1", ad_slot=1, revenue_micros=50),
    event("redirect", event_id="re", url="https://a.example/?utm_source=x", cost_micros=9),
    event("engagement", event_id="lone", page_view_id="v2", dwell_ms=1),
    event(event_id="bot", page_view_id="v3", **BOT),
    event(event_id="pv", page_view_id="v1"),
)
"""One event of every outcome but malformed; the last is a duplicate."""


class Books:
    """One partition. Nothing moves by itself: each stage does its work when a test says so."""

    def __init__(self) -> None:
        self.at_ms = START_MS
        self.settings = SETTINGS
        self.store = MemoryObjectStore(self)
        self.registry = MemoryRegistry()
        self.warehouse = MemoryWarehouse(self.store, self)
        self.logs = MemoryLogs(self)
        self.topics = topics_of(SETTINGS)
        self.ledger = MemoryLoadedLedger(self.warehouse)
        self.rows = MemoryLoadedRows(self.warehouse)
        self.ports = DeepPorts(self.store, self.registry, self.ledger, self.rows, self.logs, self)
        self._state = MemoryState()
        self._etl = PartitionEtl.load(0, RULES, Enricher({}, {}), self._state, None, -1)
        self._taken = self._number = 0
        self._last = NO_PREDECESSOR
        self._ids = count()
        self._load = WarehouseLoad(self.store, self.warehouse.connect, SETTINGS, self, map(str, count()).__next__)

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000

    # --- stages

    async def batch(
        self, events: Iterable[dict[str, Any]] = ALL_KINDS, malformed: int = 1, *, arrives: bool = True
    ) -> SealedBatch:
        """A batch that is stored and registered, and in topic `blocks` if it arrives there."""
        lines = [parse(text(each), received_at_ms=self.at_ms) for each in events]
        lines += [parse(b"{no json", received_at_ms=self.at_ms)] * malformed
        sealed = seal(new_batch_id(self.at_ms, random.Random(self.at_ms).randbytes(10)), 1, 1, lines)
        await self.store.put(sealed.item.raw_key, sealed.raw)
        await self.registry.register(sealed.item)
        for block in sealed.blocks * arrives:
            self.logs.append(self.topics.blocks.name, 0, block)
        return sealed

    def pass_s(self, seconds: float) -> None:
        """Time passes, and the bridge says so."""
        self.at_ms += int(seconds * 1000)
        message = encode_control(WatermarkMessage({"shard": self.at_ms}, {"shard": []}))
        self.logs.append(self.topics.blocks.name, 0, message)

    def step(self) -> None:
        """The etl takes everything that is in topic `blocks`."""
        found = self.logs.read(self.topics.blocks.name, 0, self._taken, 1000)
        messages = [SourceMessage(each.offset, each.append_ms, each.value) for each in found]
        self._taken += len(messages)
        while messages or self._etl.leftover:
            taken = self._etl.take(messages)
            self._number += 1
            step = self._etl.decide(messages[:taken], self._number, self._last).message
            self._state.apply(step.changes)
            self._etl.advance(step)
            self._last = self.logs.append(self.topics.rows.name, 0, encode_step(step))
            messages = messages[taken:]

    async def commit(self) -> None:
        """The sink commits one transaction of everything that is in topic `rows`."""
        rows = self.topics.rows.name

        async def announce(_: bytes) -> None:
            """Delivery looks by itself."""

        async def bounds() -> LogBounds:
            return LogBounds(*(await self.logs.bounds(rows, 0)))

        ports = SinkPorts(self.store, announce, bounds, self, lambda: f"{next(self._ids):08x}")
        sink = SinkPartition(ChainId(1, 0), commit_rules(SETTINGS), ports)
        offset = await sink.open()
        for message in self.logs.read(rows, 0, offset, 1000):
            sink.take(message.offset, message.value)
        await sink.commit()

    async def deliver(self) -> None:
        """Delivery loads what is ready."""
        report = await Deliverer(self.store, self._load, SETTINGS, self, random.Random(1)).round([0])
        assert report.deferred is None, report.deferred

    async def through(self) -> None:
        """Etl, sink and delivery, once."""
        self.step()
        await self.commit()
        await self.deliver()

    async def settled(self, batches: int = 2) -> list[SealedBatch]:
        """Batches whose every line has its outcome in the warehouse, each in transactions of its own."""
        made = []
        for n in range(batches):
            events = [each | {name: f"{each[name]}{n}" for name in ("event_id", "page_view_id")} for each in ALL_KINDS]
            made.append(await self.batch(events))
            await self.through()
            self.pass_s(30)
            await self.through()
            self.pass_s(30)
        return made

    # --- looking and damaging

    async def audit(self, span: Span | None = None) -> DeepReport:
        return await audit_deep(self.ports, self.settings, span or Span())

    async def prove(self, *batch_ids: str, find_offsets: bool = False) -> list[Proof]:
        return await self.prover().of(batch_ids, find_offsets=find_offsets)

    def prover(self) -> Prover:
        stages = Stages(StagePorts(self.store, self.ledger, self.logs), SETTINGS)
        return Prover(self.ports, stages, self.settings)

    async def records(self) -> list[TransactionRecord]:
        keys = [info.key async for info in self.store.list("transactions/1/0/")]
        return [decode_record(await self.store.get(key), ChainId(1, 0), n) for n, key in enumerate(keys, 1)]

    async def record_with(self, output: str) -> TransactionRecord:
        """The first transaction that has rows of an output."""
        return next(record for record in await self.records() if record.output(output).rows)

    def change_rows(self, table: str, change: Any) -> None:
        """Replace a table's rows by `change(rows)`."""
        committed = self.warehouse.committed
        tables = committed.tables | {table: tuple(change(list(committed.tables[table])))}
        self.warehouse.committed = msgspec.structs.replace(committed, tables=tables)

    def change_log(self, change: Any) -> None:
        """Replace the rows of delivery_log by `change(rows)`."""
        committed = self.warehouse.committed
        self.warehouse.committed = msgspec.structs.replace(committed, log=tuple(change(list(committed.log))))

    def complete(self, batch: SealedBatch) -> RegistryItem:
        """The audit marked the batch as complete."""
        item = msgspec.structs.replace(batch.item, state=BatchState.COMPLETE)
        self.registry._items[item.batch_id] = item
        return item
