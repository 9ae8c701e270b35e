"""The ETL as a process: partition owners over `blocks`, wired as `agents.etl.agent` wires them."""

from collections.abc import Sequence
from typing import Any

from faust.types import TP

from agents.etl.owner import EtlPorts, own_partition
from app.core.formats.dead_letter import DeadLetterLimit
from app.core.formats.step_message import StepMessage
from app.core.rules import EtlRules
from app.errors import StepGap
from app.shell.inbox import Inbox
from app.shell.runners import PartitionRunners
from tables.store.engine import Engine
from tables.store.partition_store import PartitionStore
from tables.store.position import StorePosition
from tables.store.store_check import StoreCheck
from tests.builders.visitors import ENRICHER
from tests.simulation.kafka_client import Member, MemberRole, Producer
from tests.simulation.process import Process
from tests.simulation.services import ports_of

GATHERED_BYTES = 4_000
"""A store writes every few steps."""


class EtlState:
    """The stores of a worker's partitions, recovered from `rows`: what `tables.partition_state` is with Faust below it."""

    def __init__(self, process: Process, ports: Any) -> None:
        self._process, self._ports = process, ports
        self._dbs: dict[int, PartitionStore] = {}
        self._engines: dict[int, Engine] = {}

    def _open(self, partition: int) -> PartitionStore:
        world = self._process.world
        self._engines[partition] = engine = world.disk.open(f"{self._process.slot}/{partition}")
        self._dbs[partition] = db = PartitionStore(engine, world.settings.dedup_window_ms, lambda: GATHERED_BYTES)
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

    def abandon(self) -> None:
        """Die: what was gathered and not written is gone."""
        for partition in self._dbs:
            self._engines[partition].close()
        self._dbs.clear()

    async def verify_recovered(self, partition: int) -> None:
        _, end = await self._ports.logs.bounds(self._process.world.topics.rows.name, partition)
        self._dbs[partition].verify_read_to(end)

    def position(self, partition: int) -> StorePosition:
        return self._dbs[partition].position

    def reader(self, partition: int) -> Any:
        return Reader(self._dbs, partition)

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        self._dbs[step.partition].commit(step, message, offset)


class Reader:
    """Looks its store up at every call."""

    def __init__(self, dbs: dict[int, PartitionStore], partition: int) -> None:
        self._dbs, self._partition = dbs, partition

    def get(self, table: str, keys: Any) -> Any:
        return self._dbs[self._partition].get(table, keys)

    def maybe(self, table: str, digests: Any) -> Any:
        return self._dbs[self._partition].maybe(table, digests)

    def scan(self, table: str) -> Any:
        return self._dbs[self._partition].scan(table)


class Etl(MemberRole):
    """Partition owners over `blocks`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._world, self._process = world, process
        self._ports = ports_of(process)
        self._producer = Producer(process)
        self._state = EtlState(process, self._ports)
        blocks = world.topics.blocks.name
        self.member = Member(process, world.groups["etl"], (blocks,), self._ports, world.settings)
        runners = PartitionRunners(self.member, blocks, self._work)
        self.member.serve(runners.give, self._state.recover)
        process.when_dead(self._state.abandon)

    async def _work(self, inbox: Inbox) -> None:
        settings, topics = self._world.settings, self._world.topics
        rules = EtlRules(
            epoch=1, partitions=settings.partitions, join=settings.join, dedup_window_ms=settings.dedup_window_ms,
            message_bytes=self._world.message_bytes, dead_letters=DeadLetterLimit(share=1),
            kernels=settings.kernels,
        )  # fmt: skip

        async def bounds(partition: int) -> tuple[int, int]:
            found: tuple[int, int] = await self._ports.logs.bounds(topics.blocks.name, partition)
            return found

        async def append(partition: int, message: bytes) -> int:
            return await (await self._producer.send(topics.rows.name, partition, message))

        async def send_dead_letters(partition: int, letters: Sequence[bytes]) -> None:
            for answer in [await self._producer.send(topics.dead_letters.name, partition, letter) for letter in letters]:
                await answer

        await own_partition(
            inbox, rules, ENRICHER, EtlPorts(self._state, bounds, append, send_dead_letters, self._process.clock)
        )
