"""Damage behind a history: stored copies are lost or changed, and repairs that fail and die mend them beside the pipeline.

The damage is none that stops a role, because every role goes on: it spares the last transaction of each chain.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agents.audit.deep.ports import DeepPorts
from agents.audit.repair.ports import RepairPorts
from agents.audit.repair.repair import repair
from agents.audit.repair.report import RepairReport
from app.core.enrich.enrich import Enricher
from app.core.formats.block import decode_header, is_control
from app.core.formats.object_keys import record_key
from app.core.formats.transaction_record import TransactionRecord
from app.errors import OutsideError
from app.testing.memory import MemoryKnownEvents, MemoryLoadedRows
from tests.simulation.faults import Fault, Faults
from tests.simulation.invariants import records_of
from tests.simulation.process import Process, at_once
from tests.simulation.role_audit import ledger_of
from tests.simulation.role_delivery import connector
from tests.simulation.services import Stream, ports_of
from tests.simulation.world import World

LIVES = 12
"""Repairs that may fail or die; the one behind them has no faults."""
KINDS = 7
"""Kinds of damage in one history."""
RATES = {Fault.FAILS: 0.002, Fault.LOST: 0.002, Fault.REPEATED: 0.01, Fault.SLOW: 0.005, Fault.DROPPED: 0.005}
"""How often a repair's call goes wrong."""


class DamagedWorld(World):
    """A history that ends with damage and repairs."""

    async def play(self) -> None:
        """The history; then damage, and repairs until nothing is damaged."""
        await super().play()
        if self.violations:
            return
        false_alarms = (await self._repair(None)).differences
        if false_alarms:
            self.violation("R1", f"nothing is damaged, and {len(false_alarms)} differences are named: {false_alarms[0]}")
        harm = Harm(self)
        for name in harm.chance.sample(sorted(harm.kinds), KINDS):
            self.tell("world", f"damage: {name}")
            self.faults.counts[f"damage: {name}"] += harm.kinds[name]()
        faults = Faults(self.seed)
        faults.rates = {fault: RATES.get(fault, 0.0) for fault in faults.rates}
        await asyncio.gather(*(self._life(n, faults, harm.chance) for n in range(2)))  # side by side
        for n in range(2, LIVES):
            await self._life(n, faults, harm.chance)
        self.faults.counts += faults.counts
        last = await self._repair(None)
        undone = [(each.kind, each.reason) for each in last.differences if not each.done]
        if undone or not last.is_mended:
            self.violation("R1", f"not mended: {undone} {last.left[:1]} {last.unchecked}")
        if (again := await self._repair(None)).differences:
            self.violation("R1", f"a second repair finds {again.differences[0]}")

    async def _life(self, number: int, faults: Faults, chance: random.Random) -> None:
        """A repair that may fail or be killed."""
        process = Process(FaultyFor(self, faults), "repair", f"repair-{number}", 1)
        process.calls_left = chance.choice([None, chance.randrange(1, 300)])
        work = process.spawn(self._repair(process), "repair")
        await asyncio.wait([work, process.ended], return_when=asyncio.FIRST_COMPLETED)
        process.die("has ended")

    async def _repair(self, process: Process | None) -> RepairReport:
        calm = process is None
        process = process or Process(self, "repair", "repair", 1)
        ports = ports_of(process)
        rows = MemoryLoadedRows(self.warehouse)
        deep = DeepPorts(ports.objects, ports.registry, ledger_of(process), rows, ports.logs, process.clock)
        events = MemoryKnownEvents(self.warehouse)
        made = RepairPorts(deep, connector(process), Stream(process), Enricher({}, {}), events, _no_step_is_damaged)
        try:
            return await repair(made, self.settings, apply=True)
        except OutsideError:
            if calm:
                raise
            return RepairReport(applied=True)


class FaultyFor:
    """The world as one process meets it, with faults of its own."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self.faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


async def _no_step_is_damaged(_: int) -> Mapping[int, str]:
    return {}


class Harm:
    """Each kind of damage; it answers whether there was something to damage."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.chance = random.Random(f"damage-{world.seed}")
        records = records_of(world).values()
        last = {record.partition: max(r.number for r in records if r.partition == record.partition) for record in records}
        self._records = [record for record in records if record.number < last[record.partition]]
        """Those with a successor."""
        self.kinds: dict[str, Callable[[], bool]] = {
            "rows lost": lambda: self._change_rows(lambda rows, n: rows[:n] + rows[n + 1 :]),
            "rows doubled": lambda: self._change_rows(lambda rows, n: [*rows, rows[n], rows[n]]),
            "rows changed": lambda: self._change_rows(_with_another_value),
            "log row lost": lambda: self._change_log(lambda log, n: log[:n] + log[n + 1 :]),
            "log row changed": lambda: self._change_log(lambda log, n: [*log[:n], log[n]._replace(rows=-1), *log[n + 1 :]]),
            "file lost": lambda: self._drop(lambda out, _: out.data_key),
            "file changed": lambda: self._spoil(lambda out, _: out.data_key),
            "manifest lost": lambda: self._drop(lambda out, _: out.manifest_key),
            "ready.json lost": lambda: self._drop(lambda _, record: record.ready_key),
            "ready.json changed": lambda: self._spoil(lambda _, record: record.ready_key),
            "record lost": lambda: self._drop(lambda _, record: record_key(1, record.partition, record.number)),
            "raw file lost": lambda: self._harm_batch(self._drop_raw, self._kept_blocks()),
            "item lost": lambda: self._harm_batch(lambda item: world.registry._items.pop(item.batch_id)),
            "item changed": lambda: self._harm_batch(self._change_item),
        }  # fmt: skip

    def _change_rows(self, change: Callable[[list[Any], int], list[Any]]) -> bool:
        committed = self._world.warehouse.committed
        tables = sorted(name for name, rows in committed.tables.items() if rows)
        name = self.chance.choice(tables)
        rows = list(committed.tables[name])
        changed = change(rows, self.chance.randrange(len(rows)))
        self._world.warehouse.committed = msgspec.structs.replace(
            committed, tables=committed.tables | {name: tuple(changed)}
        )
        return True

    def _change_log(self, change: Callable[[list[Any], int], list[Any]]) -> bool:
        """Not of the last transaction: delivery would load it again."""
        committed = self._world.warehouse.committed
        log, known = list(committed.log), {record.txn_id for record in self._records}
        places = [n for n, row in enumerate(log) if row.txn_id in known]
        if places:
            log = change(log, self.chance.choice(places))
            self._world.warehouse.committed = msgspec.structs.replace(committed, log=tuple(log))
        return bool(places)

    def _key(self, key_of: Callable[[Any, TransactionRecord], str | None]) -> str | None:
        keys = sorted({
            key for record in self._records for out in record.outputs
            if out.rows and (key := key_of(out, record)) in self._world.objects._objects
        })  # fmt: skip
        return self.chance.choice(keys) if keys else None

    def _drop(self, key_of: Callable[[Any, TransactionRecord], str | None]) -> bool:
        if (key := self._key(key_of)) is not None:
            at_once(self._world.objects.delete([key]))
        return key is not None

    def _spoil(self, key_of: Callable[[Any, TransactionRecord], str | None]) -> bool:
        if (key := self._key(key_of)) is not None:
            body = at_once(self._world.objects.get(key))
            at_once(self._world.objects.put(key, body[:-3] + b"!"))
        return key is not None

    def _kept_blocks(self) -> set[tuple[str, int]]:
        """(batch, block) of every block that topic `blocks` still has, whole."""
        topic, logs = self._world.topics.blocks.name, self._world.logs
        kept = set()
        for partition in range(self._world.settings.partitions):
            first, end = at_once(logs.bounds(topic, partition))
            for logged in logs.read(topic, partition, first, end):
                if not is_control(logged.value) and logged.value not in self._world.unreadable:
                    header = decode_header(logged.value)
                    kept.add((header.batch_id, header.block))
        return kept

    def _drop_raw(self, item: Any) -> None:
        at_once(self._world.objects.delete([item.raw_key]))

    def _harm_batch(self, harm: Callable[[Any], object], kept: set[tuple[str, int]] | None = None) -> bool:
        """Harm a batch with a raw file; one whose blocks are all in `kept`, if that is given."""
        registry, objects = self._world.registry._items, self._world.objects._objects
        items = [item for item in registry.values() if item.raw_key in objects]
        if kept is not None:
            items = [each for each in items if kept.issuperset((each.batch_id, n) for n in range(len(each.blocks)))]
        if items:
            harm(self.chance.choice(items))
        return bool(items)

    def _change_item(self, item: Any) -> None:
        changed = msgspec.structs.replace(item, sha256="0" * 64)
        self._world.registry._items[item.batch_id] = changed


def _with_another_value(rows: list[Any], n: int) -> list[Any]:
    column = "occurred_at" if "occurred_at" in rows[n] else "batch_id"
    changed = rows[n] | {column: 5 if column == "occurred_at" else "another"}
    return [*rows[:n], changed, *rows[n + 1 :]]
