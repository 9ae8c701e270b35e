"""The bridge as a process: ownership, pumps and ticks, wired as `agents.bridge.agent` wires them."""

from collections.abc import Collection
from functools import partial
from typing import Any

from faust.types import TP

from agents.bridge.ownership import Ownership
from app.core.formats.checkpoint import Barrier, Checkpoint, decode, encode, further
from tests.simulation.kafka_client import Event, Member, MemberRole, Producer
from tests.simulation.process import Process
from tests.simulation.services import ports_of


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


class Bridge(MemberRole):
    """Ownership, pumps and ticks."""

    def __init__(self, process: Process) -> None:
        world = process.world
        topics = world.topics
        self._producer = Producer(process)
        self._table = CheckpointTable(process, self._producer, topics.checkpoints_table.name)
        blocks, checkpoints = topics.blocks.name, topics.checkpoints.name

        async def append(partition: int, value: bytes) -> Any:
            return await self._producer.send(blocks, partition, value)

        async def record(partition: int, message: Checkpoint | Barrier) -> None:
            await (await self._producer.send(checkpoints, partition, encode(message)))

        self.member = Member(process, world.groups["bridge"], (checkpoints,), ports_of(process), world.settings)
        tokens = iter(range(10**9))
        self.ownership = Ownership(self.member, self._table, append, record, lambda: f"{process.name}-{next(tokens)}")
        self.member.when_assigned(self.ownership.begin)
        self.member.when_leaving(self.ownership.end)
        self.member.watchdog.watch(self.ownership.positions)
        self.member.serve(self._take, self._table.recover)

    async def _take(self, event: Event) -> None:
        current = partial(self.member.is_current, event.message.generation_id)
        if current() and await self.ownership.in_order(event) and current():
            self.ownership.take(event)
            await self._table.settle()
            event.ack()
