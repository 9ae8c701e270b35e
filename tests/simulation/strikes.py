"""What befalls the simulated world at moments: kills, stops, moved partitions, resharding, harmed stores, services away."""

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.faults import Fault
from tests.simulation.kafka_broker import SESSION_S
from tests.simulation.process import Process
from tests.simulation.roles import MAKERS

if TYPE_CHECKING:
    from tests.simulation.world import World

MAX_SHARDS = 10


class Strikes:
    """One kind of fault after another, each at its own pace."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def at_moments(self, fault: Fault, mean_s: float) -> None:
        while True:
            await asyncio.sleep(self._world.chance.expovariate(1 / mean_s))
            await self._strike(fault)

    def _victim(self, roles: tuple[str, ...] = tuple(MAKERS)) -> Process | None:
        alive = [p for slot, p in sorted(self._world.processes.items()) if p.alive and p.role in roles and not p.paused]
        return self._world.chance.choice(alive) if alive else None

    async def _strike(self, fault: Fault) -> None:
        match fault:
            case Fault.CRASH:
                self._crash()
            case Fault.TERM:
                if (process := self._victim()) is not None:
                    self._world.faults.note(fault, process.role)
                    self._world.spawn(self.terminate(process))
            case Fault.ZOMBIE:
                if (process := self._victim()) is not None:
                    self._world.spawn(self._stop_and_wake(process))
            case Fault.MOVED:
                self._move()
            case Fault.SPLIT | Fault.MERGED:
                self._reshard(fault)
            case Fault.STORE_LOST | Fault.STORE_BACK:
                await self._harm_store(fault)
            case Fault.BROKER:
                service = self._world.chance.choice(["kafka", "kafka", "s3", "warehouse", "kinesis", "registry"])
                self._world.faults.note(fault)
                self._world.away[service] = self._world.loop.time() + self._world.chance.choice([0.5, 3.0, 12.0])
                self._world.tell("world", f"{service} is away")
            case Fault.REPLAY:
                self._resend_some()
            case Fault.TRIMMED:
                self._trim()
            case _:
                raise AssertionError(fault)

    def _crash(self) -> None:
        process = self._victim()
        if process is None:
            return
        if self._world.chance.random() < 0.2:
            self._world.faults.note(Fault.CRASH, process.role)
            process.die("is killed")
        else:
            process.calls_left = self._world.chance.randrange(1, 40)

    async def terminate(self, process: Process) -> None:
        self._world.tell(process.name, "is told to stop")
        stopping = process.spawn(self._world.roles[process.slot].stop(), "stop")
        await asyncio.wait([stopping, process.ended], timeout=25, return_when=asyncio.FIRST_COMPLETED)
        if process.alive:
            member = getattr(self._world.roles[process.slot], "member", None)
            if member is not None:
                self._world.groups[process.role].remove(member)
            process.die("has stopped")

    async def _stop_and_wake(self, process: Process) -> None:
        self._world.faults.note(Fault.ZOMBIE, process.role)
        self._world.tell(process.name, "is stopped")
        process.pause()
        seconds = self._world.chance.choice([2.0, 8.0, 15.0])
        if seconds > SESSION_S:
            member = getattr(self._world.roles[process.slot], "member", None)
            await asyncio.sleep(SESSION_S)
            if member is not None and process.alive and process.paused:
                self._world.groups[process.role].expel(member)
            await asyncio.sleep(seconds - SESSION_S)
        else:
            await asyncio.sleep(seconds)
        self._world.tell(process.name, "is woken")
        process.wake()

    def _move(self) -> None:
        role = self._world.chance.choice(["bridge", "etl", "etl", "sink", "sink", "delivery"])
        slot = f"{role}-{self._world.chance.choice([0, 1, 2])}"
        self._world.faults.note(Fault.MOVED, role)
        others = [s for s in self._world.wanted if s.startswith(role) and s != slot]
        if slot not in self._world.wanted:
            self._world.want(slot)
        elif others:
            self._world.wanted.discard(slot)
            process = self._world.processes.get(slot)
            if process is not None and process.alive:
                self._world.spawn(self.terminate(process))

    def _reshard(self, fault: Fault) -> None:
        shards = sorted(
            (s for s in self._world.stream._shards.values() if s.ending_sequence is None), key=lambda s: s.first_key
        )
        if len(self._world.stream._shards) >= MAX_SHARDS:
            return
        if fault is Fault.SPLIT:
            self._world.stream.split(self._world.chance.choice(shards).shard_id)
        elif len(shards) > 1:
            at = self._world.chance.randrange(len(shards) - 1)
            self._world.stream.merge(shards[at].shard_id, shards[at + 1].shard_id)
        else:
            return
        self._world.faults.note(fault)
        self._world.tell("world", str(fault))

    async def _harm_store(self, fault: Fault) -> None:
        names = [name for name in self._world.disk.names() if name.startswith("etl")]
        if not names:
            return
        name = self._world.chance.choice(names)
        slot = name.split("/")[0]
        copy = self._world.disk.snapshot(name)
        if fault is Fault.STORE_BACK:
            await asyncio.sleep(self._world.chance.choice([3.0, 10.0]))
        process = self._world.processes[slot]
        if process.alive:
            process.die("is killed, its store harmed")
        self._world.faults.note(fault)
        self._world.tell("world", f"{name}: {fault}")
        if fault is Fault.STORE_BACK:
            self._world.disk.restore(name, copy)
        else:
            self._world.disk.remove(name)

    def _trim(self) -> None:
        """While no etl runs, retention takes source messages that none of them has read (rule E4)."""
        topic, partition = self._world.topics.blocks.name, self._world.chance.randrange(self._world.settings.partitions)
        applied = self._world.source_applied(partition)
        unread = len(self._world.logs.messages.get((topic, partition), [])) - applied - 1
        if unread < 2:
            return
        for process in self._world.processes.values():
            if process.role == "etl" and process.alive:
                process.die("is killed, its source trimmed")
        self._world.faults.note(Fault.TRIMMED)
        first = applied + 1 + self._world.chance.randrange(1, unread)
        self._world.tell("world", f"{topic}[{partition}] begins at {first} now")
        self._world.logs.trim(topic, partition, first)

    def _resend_some(self) -> None:
        """Put a batch's blocks again, as an audit does that missed what was under way."""
        items = list(self._world.registry._items.values())
        if items:
            self._world.faults.note(Fault.REPLAY)
            self._world.resend(self._world.chance.choice(items), 1)
