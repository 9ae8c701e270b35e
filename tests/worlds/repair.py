"""The books of one partition, and what a repair changes in them."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agents.audit.repair.ports import RepairPorts
from agents.audit.repair.repair import repair
from agents.audit.repair.report import RepairReport
from agents.etl.log_repair import LogRepairPorts, find_damage, store_repairs
from app.core.enrich.enrich import Enricher
from app.core.formats.step_message import StepLog
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainId
from app.shell.repairs import read_replacements
from app.testing.memory import MemoryBlockStream, MemoryKnownEvents
from app.testing.memory.engine import Disk
from tables.store.partition_store import PartitionStore
from tests.worlds.books import RULES, Books

ENRICHER = Enricher({}, {})


class RepairedBooks(Books):
    """Books with the ports of a repair."""

    def __init__(self) -> None:
        super().__init__()
        self.enricher = ENRICHER
        self.stream = MemoryBlockStream(1, self)

    @property
    def repair_ports(self) -> RepairPorts:
        return RepairPorts(
            self.ports, self.warehouse.connect, self.stream, self.enricher, MemoryKnownEvents(self.warehouse),
            self.replace_steps,
        )  # fmt: skip

    async def replace_steps(self, partition: int) -> Mapping[int, str]:
        """What `instream repair-log --apply` does."""
        rows, blocks = self.topics.rows.name, self.topics.blocks.name
        stored = await read_replacements(self.store, 1, {partition})
        replaced = stored.get(partition, Replacements())
        log = StepLog(rows, partition, 1)
        found = await find_damage(
            LogRepairPorts(self.logs, rows, blocks, RULES, ENRICHER, etl_is_stopped=True), partition,
            lambda: PartitionStore(Disk().open("store"), RULES.dedup_window_ms, step_log=log), replaced,
        )  # fmt: skip
        await store_repairs(self.store, ChainId(1, partition), found.repairs)
        return {} if found.refused is None else {-1: found.refused}

    async def repair(self, *, apply: bool = False) -> RepairReport:
        return await repair(self.repair_ports, self.settings, apply=apply)

    async def both_repair(self) -> list[RepairReport]:
        """Two repairs side by side."""
        return await asyncio.gather(self.repair(apply=True), self.repair(apply=True))

    async def everything(self) -> dict[str, Any]:
        """The whole state of the books, less when and by which load rows came."""
        objects = {info.key: await self.store.get(info.key) async for info in self.store.list("")}
        tables = {
            name: sorted(str({k: v for k, v in row.items() if k != "loaded_at"}) for row in rows)
            for name, rows in self.warehouse.committed.tables.items()
        }
        log = sorted(str(row._replace(load_id="")) for row in self.warehouse.log)
        return {
            "objects": {key: body for key, body in objects.items() if not key.startswith("loads/")},
            "tables": tables, "log": log, "registry": dict(self.registry._items), "stored": list(self.registry.stored),
        }  # fmt: skip
