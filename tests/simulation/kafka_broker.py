"""Kafka's side of the simulated world: logs that tell their readers, and the coordinator of a group.

A rebalance is eager, as Faust's are: every member that answers lets go of everything, commits, and is given anew. Who does
not answer is put out of the group, and goes on with what it had until it hears of that: a zombie.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from app.clock import Clock
from app.testing.memory.kafka import MemoryGroup, MemoryLogs

if TYPE_CHECKING:
    from tests.simulation.kafka_client import Member
    from tests.simulation.world import World

SESSION_S = 6.0
REBALANCE_S = 30.0


class Logs(MemoryLogs):
    """Logs that tell who reads a topic of every message on it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._readers: dict[str, list[asyncio.Event]] = {}

    def tell_of(self, topics: Iterable[str], news: asyncio.Event) -> None:
        """Set `news` at every message on one of `topics`."""
        for topic in topics:
            self._readers.setdefault(topic, []).append(news)

    def append(self, topic: str, partition: int, value: bytes) -> int:
        for news in self._readers.get(topic, ()):
            news.set()
        return super().append(topic, partition, value)


class Group:
    """A group's coordinator."""

    def __init__(self, world: "World", name: str, partitions: int) -> None:
        self.world = world
        self.state = MemoryGroup(world.logs, name, partitions)
        self._members: dict[str, Member] = {}
        self._changed = asyncio.Event()
        world.spawn(self._coordinate())

    def add(self, member: "Member") -> None:
        """A member asks to join."""
        self._members[member.process.name] = member
        self._changed.set()

    def lost(self, member: "Member") -> None:
        """A member died: noticed when its session times out."""
        self.world.loop.call_later(SESSION_S, self.remove, member)

    def remove(self, member: "Member") -> None:
        """A member is gone: it left, or nobody heard of it for too long."""
        if self._members.pop(member.process.name, None) is not None:
            self.state.leave(member.process.name)
            self._changed.set()

    def expel(self, member: "Member") -> None:
        """A member that is stopped has missed its session; awake again it hears of it, and joins anew."""
        if self._members.get(member.process.name) is member:
            self.world.tell(member.process.name, "is put out of its group")
            self.remove(member)
            self.world.spawn(self._rejoin(member))

    async def _rejoin(self, member: "Member") -> None:
        await member.process.gate()
        await asyncio.sleep(self.world.chance.choice([0.0, 0.3, 1.0, 3.0]))  # a zombie until then
        member.process.spawn(self._join_again(member), "rejoin")

    async def _join_again(self, member: "Member") -> None:
        await member.leave_partitions()
        self.add(member)

    async def _coordinate(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(self.world.chance.choice([0.05, 0.3, 1.0]))
            await self._rebalance()

    async def _rebalance(self) -> None:
        """Everybody lets go, then everybody is given; who does not answer in time is out."""
        while self.world.is_away("kafka"):  # noqa: ASYNC110 - time brings it back, no event
            await asyncio.sleep(0.2)
        before = list(self._members.values())
        leaving = {m: m.process.spawn(m.leave_partitions(), "leave") for m in before if m.process.alive}
        if leaving:
            await asyncio.wait(leaving.values(), timeout=REBALANCE_S)
        for member in before:
            task = leaving.get(member)
            if not member.process.alive:
                self._members.pop(member.process.name, None)
                self.state.leave(member.process.name)
            elif task is not None and not task.done():
                self.expel(member)
        for member in list(self._members.values()):
            self.state.join(member.process.name)
        membership = self.state.membership
        for member in list(self._members.values()):
            owned = membership.owned.get(member.process.name, ())
            member.give(membership.generation, owned)
