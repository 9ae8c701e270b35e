"""The six roles as processes: production code, wired to the simulated world as the composition roots wire it to ours."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from faults import Fault
from faust.types import TP
from kafka_client import Event, Member, Producer
from process import Process
from visitors import ENRICHER

from agents.audit_ports import AuditPorts
from agents.auditor import Auditor
from agents.bridge_ownership import Outlets, Ownership
from agents.deliverer import Deliverer
from agents.etl_owner import EtlOutside, own_partition
from agents.sink_partition import Connections, SinkPartition, commit_rules, serve
from agents.warehouse_load import WarehouseLoad
from app.adapters.memory import MemoryLoadedLedger
from app.adapters.ports import PutOutcome
from app.chain_store import sweep
from app.collector.batcher import Batcher
from app.collector.batcher import World as CollectorWorld
from app.collector.budget import MemoryBudget
from app.collector.clock_guard import ClockGuard
from app.collector.requests import Sent, read_lines
from app.core.chain import LogBounds, Place
from app.core.checkpoint import Barrier, Checkpoint, decode, encode, further
from app.core.dead_letter import DeadLetterLimit
from app.core.step import EtlRules
from app.core.step_message import StepMessage
from app.errors import OutcomeUnknown, ServiceUnavailable, StepGap, WarehouseError
from app.shell.runners import Inbox, PartitionRunners
from tables.partition_db import PartitionDb, Position
from tables.store_check import StoreCheck


def ports_of(process: Process) -> Any:
    """The process's adapters."""
    world = process.world
    return SimpleNamespace(
        clock=process.clock,
        objects=process.remote(world.objects, "s3", clock_skew_ms=lambda: process.clock.skew_ms),
        registry=process.remote(world.registry, "registry"),
        blocks=Stream(process),
        logs=process.remote(world.logs, "kafka"),
    )


class Stream:
    """Kinesis over the wire: throttled, and puts that fail in part."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._remote = process.remote(process.world.stream, "kinesis")

    async def put(self, blocks: Any) -> Any:
        """Failures of a call are outcomes."""
        faults = self._process.world.faults
        if faults.happens(Fault.THROTTLED):
            faults.note(Fault.THROTTLED)
            await self._process.sleep(0.01)
            return [PutOutcome("ProvisionedThroughputExceededException")] * len(blocks)
        refused = {n for n in range(len(blocks)) if faults.happens(Fault.PARTIAL)}
        faults.counts[Fault.PARTIAL.value] += bool(refused)
        taken = [self._spoilt(block) for n, block in enumerate(blocks) if n not in refused]
        try:
            outcomes = iter(await self._remote.put(taken) if taken else [])
        except (ServiceUnavailable, OutcomeUnknown) as exc:
            return [PutOutcome(type(exc).__name__)] * len(blocks)
        return [PutOutcome("InternalFailure") if n in refused else next(outcomes) for n in range(len(blocks))]

    def _spoilt(self, block: bytes) -> bytes:
        """The block, now and then without its end."""
        world = self._process.world
        if not world.faults.happens(Fault.UNREADABLE):
            return block
        world.faults.note(Fault.UNREADABLE, self._process.role)
        world.unreadable.add(block[:-6])
        return block[:-6]

    async def shards(self) -> Any:
        return await self._remote.shards()

    async def iterator(self, shard: str, after: str | None) -> Any:
        return await self._remote.iterator(shard, after)

    async def records(self, iterator: str, limit: int) -> Any:
        faults, world = self._process.world.faults, self._process.world
        if faults.happens(Fault.THROTTLED):
            faults.note(Fault.THROTTLED)
            raise ServiceUnavailable("records: ProvisionedThroughputExceededException")
        if faults.happens(Fault.EXPIRED):
            faults.note(Fault.EXPIRED)
            world.stream.expire_iterators()
        return await self._remote.records(iterator, world.chance.choice([1, 3, limit]))


# --- collector


class Collector:
    """The batcher behind `POST /v1/events`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self.process, self._ports = process, ports_of(process)
        settings = world.settings
        self._budget = MemoryBudget(settings.max_buffered_bytes)
        self._guard = ClockGuard(self._ports.objects, settings.max_clock_skew_s)
        outside = CollectorWorld(
            self._ports.objects, self._ports.registry, self._ports.blocks, process.clock, process.random.randbytes
        )
        self._batcher = Batcher(settings, outside, self._budget, self._guard, world.threads)
        process.spawn(self._guard.watch(), "guard")
        process.spawn(self._batcher.resender.run(), "resender")
        world.collectors[process.slot] = self

    async def collect(self, body: bytes, user_agent: str, ip: str) -> str:
        """What the server does with an NDJSON body; the batch's id. Raises RequestRejected."""
        self._guard.check()
        settings = self.process.world.settings
        with self._budget.reserve() as held:
            sent = Sent(body, "application/x-ndjson", False, "server", self.process.clock.now_ms(), ip, user_agent)
            lines = read_lines(sent, held, settings.max_decompressed_bytes, settings.max_lines)
            return await self._batcher.add(lines, held.hand_over())

    async def stop(self) -> None:
        await self._batcher.close()


# --- bridge


class CheckpointTable:
    """What `tables.checkpoints.CheckpointTable` is with Faust below it: memory, and a changelog read anew on assignment."""

    def __init__(self, process: Process, producer: Producer, changelog: str) -> None:
        self._process, self._producer, self._changelog = process, producer, changelog
        self._kept: dict[tuple[int, str], Checkpoint] = {}
        self._sent: list[Any] = []

    async def recover(self, assignment: frozenset[TP]) -> None:
        self._kept.clear()
        world = self._process.world
        for partition in sorted({tp.partition for tp in assignment}):
            for message in world.logs.read(self._changelog, partition, 0, 10**9):
                checkpoint = decode(message.value)
                assert isinstance(checkpoint, Checkpoint)
                self._kept[partition, checkpoint.shard] = checkpoint  # the last one holds, as in a compacted topic

    def advance(self, partition: int, checkpoint: Checkpoint) -> Checkpoint:
        key = (partition, checkpoint.shard)
        self._kept[key] = result = further(self._kept.get(key), checkpoint)
        self._sent.append(self._producer.send(self._changelog, partition, encode(result)))
        return result

    async def settle(self) -> None:
        sent, self._sent = self._sent, []
        for sending in sent:
            await (await sending)

    def of(self, partitions: Collection[int]) -> list[Checkpoint]:
        return [checkpoint for (partition, _), checkpoint in sorted(self._kept.items()) if partition in partitions]


class Bridge:
    """Ownership, pumps and ticks."""

    def __init__(self, process: Process) -> None:
        world = process.world
        topics = world.topics
        self._producer = Producer(process)
        self._table = CheckpointTable(process, self._producer, topics.checkpoints_table.name)
        blocks, checkpoints = topics.blocks.name, topics.checkpoints.name

        async def append(partition: int, value: bytes) -> Any:
            return await self._producer.send(blocks, partition, value)

        async def record(partition: int, checkpoint: Checkpoint) -> None:
            await (await self._producer.send(checkpoints, partition, encode(checkpoint)))

        async def mark(partition: int, barrier: Barrier) -> None:
            await (await self._producer.send(checkpoints, partition, encode(barrier)))

        self._member = Member(process, world.groups["bridge"], (checkpoints,), ports_of(process), world.settings)
        tokens = iter(range(10**9))

        async def begins_at(partition: int) -> int:
            logs = self._member.ports.logs
            committed = await logs.committed("instream-bridge-e1")
            first, _ = await logs.bounds(checkpoints, partition)
            return max(first, committed.get((checkpoints, partition), 0))

        self.ownership = Ownership(
            self._member, self._table, Outlets(append, record, mark, begins_at), lambda: f"{process.name}-{next(tokens)}"
        )
        self._member.when_assigned(self.ownership.begin)
        self._member.when_leaving(self.ownership.end)
        self._member.watchdog.watch(self.ownership.positions)
        self._member.serve(self._take, self._table.recover)

    async def _take(self, event: Event) -> None:
        current = partial(self._member.is_current, event.message.generation_id)
        if current() and await self.ownership.in_order(event) and current():
            self.ownership.take(event)
            await self._table.settle()
            event.ack()

    async def stop(self) -> None:
        await self._member.leave_partitions()


# --- etl


class EtlState:
    """The stores of a worker's partitions, recovered from `rows`: what `tables.partition_state` is with Faust below it."""

    def __init__(self, process: Process, ports: Any) -> None:
        self._process, self._ports = process, ports
        self._dbs: dict[int, PartitionDb] = {}

    def _open(self, partition: int) -> PartitionDb:
        world = self._process.world
        engine = world.disk.open(f"{self._process.slot}/{partition}")
        self._dbs[partition] = db = PartitionDb(engine, world.settings.dedup_window_ms)
        return db

    def _wipe(self, partition: int) -> None:
        self._dbs.pop(partition).wipe()

    async def recover(self, assignment: frozenset[TP]) -> None:
        world, logs = self._process.world, self._ports.logs
        rows = world.topics.rows.name
        self.close()
        check = StoreCheck(logs, self._ports.objects, world.topics, 1, "instream-etl-e1")
        for partition in sorted({tp.partition for tp in assignment}):
            first, end = await logs.bounds(rows, partition)
            db = self._open(partition)
            if await check.is_stale(db, partition, first, end):
                self._wipe(partition)
                db = self._open(partition)
            start = first if db.empty else max(db.rows_offset + 1, first)
            await self._process.gate()
            for message in world.logs.read(rows, partition, start, end - start):
                try:
                    db.follow(message.value, message.offset)
                except StepGap:
                    self._wipe(partition)
                    raise
            await self._process.sleep(0.01)

    def close(self) -> None:
        for db in self._dbs.values():
            db.close()
        self._dbs.clear()

    async def verify_recovered(self, partition: int) -> None:
        _, end = await self._ports.logs.bounds(self._process.world.topics.rows.name, partition)
        self._dbs[partition].verify_read_to(end)

    def position(self, partition: int) -> Position:
        return self._dbs[partition].position

    def reader(self, partition: int) -> Any:
        return Reader(self._dbs, partition)

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        self._dbs[step.partition].commit(step, message, offset)


class Reader:
    """Looks its store up at every call."""

    def __init__(self, dbs: dict[int, PartitionDb], partition: int) -> None:
        self._dbs, self._partition = dbs, partition

    def get(self, table: str, keys: Any) -> Any:
        return self._dbs[self._partition].get(table, keys)

    def scan(self, table: str) -> Any:
        return self._dbs[self._partition].scan(table)


class Etl:
    """Partition owners over `blocks`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._world, self._process = world, process
        self._ports = ports_of(process)
        self._producer = Producer(process)
        self._state = EtlState(process, self._ports)
        blocks = world.topics.blocks.name
        self._member = Member(process, world.groups["etl"], (blocks,), self._ports, world.settings)
        runners = PartitionRunners(self._member, blocks, self._work)  # type: ignore[arg-type]
        self._member.serve(runners.give, self._state.recover)
        process.when_dead(self._state.close)

    async def _work(self, inbox: Inbox) -> None:
        settings, topics = self._world.settings, self._world.topics
        rules = EtlRules(
            epoch=1, partitions=settings.partitions, join=settings.join, dedup_window_ms=settings.dedup_window_ms,
            message_bytes=self._world.message_bytes, dead_letters=DeadLetterLimit(share=1),
        )  # fmt: skip

        async def bounds(partition: int) -> tuple[int, int]:
            found: tuple[int, int] = await self._ports.logs.bounds(topics.blocks.name, partition)
            return found

        async def append(partition: int, message: bytes) -> int:
            return await (await self._producer.send(topics.rows.name, partition, message))

        async def bury(partition: int, letters: Sequence[bytes]) -> None:
            for answer in [await self._producer.send(topics.dead_letters.name, partition, letter) for letter in letters]:
                await answer

        await own_partition(inbox, rules, ENRICHER, EtlOutside(self._state, bounds, append, bury, self._process.clock))

    async def stop(self) -> None:
        await self._member.leave_partitions()


# --- sink


class Sink:
    """Transaction chains over `rows`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._world, self._process = world, process
        self._ports = ports_of(process)
        self._producer = Producer(process)
        rows = world.topics.rows.name
        self._member = Member(process, world.groups["sink"], (rows,), self._ports, world.settings)
        runners = PartitionRunners(self._member, rows, self._work)  # type: ignore[arg-type]
        self._member.serve(runners.give)
        process.spawn(self._sweep(), "sweep")

    async def _work(self, inbox: Inbox) -> None:
        topics = self._world.topics

        async def announce(ready: bytes) -> None:
            await (await self._producer.send(topics.manifests.name, inbox.partition, ready))

        async def bounds() -> LogBounds:
            return LogBounds(*await self._ports.logs.bounds(topics.rows.name, inbox.partition))

        connections = Connections(
            self._ports.objects, announce, bounds, self._process.clock, lambda: self._process.random.randbytes(4).hex(),
            self._process.sleep,
        )  # fmt: skip
        await serve(inbox, SinkPartition(Place(1, inbox.partition), commit_rules(self._world.settings), connections))

    async def _sweep(self) -> None:
        while True:
            await self._process.sleep(40)
            await sweep(self._ports.objects, self._process.clock.now_ms() + 86_400_000, self._process.sleep)

    async def stop(self) -> None:
        await self._member.leave_partitions()


# --- delivery


class Delivery:
    """Rounds over the partitions of `manifests`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._world, self._process, self._ports = world, process, ports_of(process)
        self._wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._load_ids = iter(range(10**9))
        topic = world.topics.manifests.name
        self._member = Member(process, world.groups["delivery"], (topic,), self._ports, world.settings)
        self._member.when_assigned(self._begin)
        self._member.when_leaving(self._end)
        self._member.serve(self._look)

    async def _look(self, event: Event) -> None:
        self._wake.set()
        event.ack()

    async def _begin(self, assignment: frozenset[TP]) -> None:
        await self._end()
        owned = sorted({tp.partition for tp in assignment})
        if owned:
            self._leaving.clear()
            self._task = self._process.spawn(self._loop(owned), "rounds")

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._leaving.set()
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()

    async def _loop(self, owned: list[int]) -> None:
        settings, clock, objects = self._world.settings, self._process.clock, self._ports.objects
        load = WarehouseLoad(
            objects, connector(self._process), settings, clock, lambda: f"{self._process.slot}{next(self._load_ids):06d}"
        )
        deliverer = Deliverer(objects, load, settings, clock, self._process.random)
        try:
            while not self._leaving.is_set():
                self._wake.clear()
                report = await deliverer.round(owned)
                for txn_id in report.quarantined:
                    self._world.violation("quarantine", f"{txn_id} was set aside although its files are sound")
                pause_s = self._world.settings.delivery_interval_s if report.deferred is None else report.pause_s
                waits = [asyncio.ensure_future(e.wait()) for e in (self._leaving, self._wake)]
                await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        finally:
            if self._process.alive:
                await deliverer.close()

    async def stop(self) -> None:
        await self._member.leave_partitions()


REFUSALS = ("53100", "57014", "40001", "XX000")
"""Disk full, cancelled while it waited for a lock, serialization, an internal error that names no file."""


def connector(process: Process) -> Callable[[], Any]:
    """Opens sessions whose every call passes the process's gate, takes time, and may go wrong."""
    world = process.world

    async def before(call: str, _: str) -> None:
        await process.gate()
        process.count_call()
        await process.sleep(process.delay_s())
        if call in {"rollback", "close"}:
            return
        if world.is_away("warehouse"):
            raise WarehouseError(None, "the warehouse is away")
        if world.faults.happens(Fault.WAREHOUSE):
            world.faults.note(Fault.WAREHOUSE)
            code = world.chance.choice(REFUSALS)
            world.tell(process.name, f"warehouse.{call} is refused: {code}")
            raise WarehouseError(code, "1023 serializable isolation violation" if code == "XX000" else "refused")
        if world.faults.happens(Fault.DROPPED):
            world.faults.note(Fault.DROPPED)
            world.tell(process.name, f"warehouse.{call}: connection lost before")
            raise WarehouseError(None, "dropped")

    async def after(call: str, _: str) -> None:
        world.tell(process.name, f"warehouse.{call}")
        if call != "rollback" and world.faults.happens(Fault.DROPPED):
            world.faults.note(Fault.DROPPED)
            world.tell(process.name, f"warehouse.{call}: connection lost after")
            raise WarehouseError(None, "dropped")
        await process.sleep(process.delay_s())
        process.count_call()
        await process.gate()

    async def connect() -> Any:
        await process.gate()
        process.count_call()
        await process.sleep(process.delay_s())
        if world.is_away("warehouse") or world.faults.happens(Fault.FAILS):
            raise ServiceUnavailable("the warehouse does not answer")
        session = await world.warehouse.connect()
        session.before, session.after = before, after
        process.sessions.append(session)
        return session

    return connect


# --- audit


class Audit:
    """Rounds of the only auditor."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world
        self._ports = ports_of(process)
        topic = self._world.topics.audit.name
        self._task: asyncio.Task[Any] | None = None
        self._member = Member(process, self._world.groups["audit"], (topic,), self._ports, self._world.settings)
        self._member.when_assigned(self._begin)
        self._member.when_leaving(self._end)
        self._member.serve(self._ignore)

    async def _ignore(self, event: Event) -> None:
        event.ack()

    async def _begin(self, assignment: frozenset[TP]) -> None:
        await self._end()
        if any(tp.partition == 0 for tp in assignment):
            self._task = self._process.spawn(self._rounds(), "rounds")

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _rounds(self) -> None:
        process, world, ports = self._process, self._world, self._ports
        ledger = MemoryLoadedLedger(world.warehouse)

        async def before(_: str, __: str) -> None:
            await process.gate()
            process.count_call()
            await process.sleep(process.delay_s())
            if world.is_away("warehouse") or world.faults.happens(Fault.FAILS):
                raise ServiceUnavailable("the warehouse does not answer")

        async def after(_: str, __: str) -> None:
            await process.sleep(process.delay_s())

        ledger.before, ledger.after = before, after

        async def lags(partitions: frozenset[int]) -> dict[str, int]:
            return await process.call("kafka", "lag", lambda: world.lags(partitions), writes=False)

        audit_ports = AuditPorts(ports.objects, ports.registry, ports.blocks, ledger, lags, process.clock)
        auditor = Auditor(audit_ports, world.settings)
        while True:
            report = await auditor.round()
            world.tell(process.name, f"audit round: {report.judged} judged, {report.completed} complete, "
                                     f"{report.replayed} replayed, {report.waiting} waiting {report.waits_for}")  # fmt: skip
            world.faults.counts["audit replays"] += report.replayed
            if report.alarms:
                world.violation("audit", f"alarm: lost {report.lost}, excess {report.excess}, damaged {report.damaged}: "
                                         f"{report.named}")  # fmt: skip
            await process.sleep(world.settings.audit_interval_s)

    async def stop(self) -> None:
        await self._member.leave_partitions()


MAKERS: dict[str, Callable[[Process], Any]] = {
    "collector": Collector, "bridge": Bridge, "etl": Etl, "sink": Sink, "delivery": Delivery, "audit": Audit,
}  # fmt: skip
