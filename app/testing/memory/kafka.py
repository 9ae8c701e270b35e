"""Kafka in memory: logs with the broker's times, offsets that groups acknowledged, and owners of partitions."""

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from app.adapters.ports import LoggedMessage
from app.clock import Clock, SystemClock
from app.testing.memory.hooks import Hooked

Place = tuple[str, int]
"""Topic and partition."""


class MemoryMessage(NamedTuple):
    """A message as a consumer gets it."""

    offset: int
    append_ms: int
    """When the broker appended it (LogAppendTime), ms since the epoch."""
    value: bytes


class MemoryLogs(Hooked):
    """The logs of any topics, each partition from offset 0 on; retention has deleted the messages below `trimmed`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.messages: dict[Place, list[bytes]] = {}
        self.append_ms: dict[Place, list[int]] = {}
        self.trimmed: dict[Place, int] = {}
        self.acknowledged: dict[str, dict[Place, int]] = {}
        """Group -> place -> the offset that the group reads next."""

    # --- the broker

    def append(self, topic: str, partition: int, value: bytes) -> int:
        """Append a message; its offset."""
        log = self.messages.setdefault((topic, partition), [])
        times = self.append_ms.setdefault((topic, partition), [])
        times.append(max(self._clock.now_ms(), times[-1] if times else 0))
        log.append(value)
        return len(log) - 1

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[MemoryMessage]:
        """At most `limit` messages from `offset` on; from the earliest one if that offset is gone."""
        first = max(offset, self.trimmed.get((topic, partition), 0))
        values = self.messages.get((topic, partition), [])[first : first + limit]
        times = self.append_ms.get((topic, partition), [])
        return [MemoryMessage(n, times[n], value) for n, value in enumerate(values, first)]

    def trim(self, topic: str, partition: int, first: int) -> None:
        """Delete everything before `first`, as retention does."""
        self.trimmed[topic, partition] = max(first, self.trimmed.get((topic, partition), 0))

    # --- LogScan

    async def scan(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[LoggedMessage]:
        """The messages with first <= offset < end that the log has, in order."""
        await self._enter("scan", topic)
        for message in self.read(topic, partition, first, end - first):
            yield LoggedMessage(message.offset, message.append_ms, message.value)
        await self._leave("scan", topic)

    # --- LogSearch

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset that was appended at `time_ms` or later; the log's end if none was."""
        await self._enter("offset_at", topic)
        found = max(
            bisect_left(self.append_ms.get((topic, partition), []), time_ms), self.trimmed.get((topic, partition), 0)
        )
        await self._leave("offset_at", topic)
        return found

    # --- Logs

    async def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the earliest offset that the log still has."""
        await self._enter("first_offsets", topic)
        found = {p: self.trimmed.get((topic, p), 0) for p in partitions}
        await self._leave("first_offsets", topic)
        return found

    async def end_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> one more than the last offset."""
        await self._enter("end_offsets", topic)
        found = {p: len(self.messages.get((topic, p), [])) for p in partitions}
        await self._leave("end_offsets", topic)
        return found

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The earliest offset that a partition still has, and one more than its last."""
        await self._enter("bounds", topic)
        found = self.trimmed.get((topic, partition), 0), len(self.messages.get((topic, partition), []))
        await self._leave("bounds", topic)
        return found

    async def message_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """The value of the message at `offset`; None if the log does not have it."""
        await self._enter("message_at", topic)
        log = self.messages.get((topic, partition), [])
        found = log[offset] if self.trimmed.get((topic, partition), 0) <= offset < len(log) else None
        await self._leave("message_at", topic)
        return found

    async def committed(self, group: str) -> dict[Place, int]:
        """The offsets that a group has acknowledged."""
        await self._enter("committed", group)
        found = dict(self.acknowledged.get(group, {}))
        await self._leave("committed", group)
        return found


class Membership(msgspec.Struct, frozen=True):
    """The assignment that a group's coordinator sends after each change."""

    generation: int
    owned: Mapping[str, tuple[int, ...]]
    """Member -> its partitions, of every topic of the group alike."""


class MemoryGroup:
    """A consumer group over topics of equally many partitions: its members, their partitions, and a fence for commits."""

    def __init__(self, logs: MemoryLogs, name: str, partitions: int) -> None:
        self.name = name
        self._logs = logs
        self._partitions = partitions
        self._members: list[str] = []
        self.membership = Membership(0, {})

    @property
    def members(self) -> Sequence[str]:
        """The members, in the order in which they joined."""
        return tuple(self._members)

    def join(self, member: str) -> Membership:
        """Add a member; all partitions are assigned anew."""
        if member not in self._members:
            self._members.append(member)
        return self._balance()

    def leave(self, member: str) -> Membership:
        """Remove a member that left, or that was silent for too long."""
        if member in self._members:
            self._members.remove(member)
        return self._balance()

    def commit(self, member: str, generation: int, offsets: Mapping[Place, int]) -> bool:
        """Keep offsets of the current generation; False for an earlier one, and then nothing is kept."""
        if generation != self.membership.generation or member not in self._members:
            return False
        self._logs.acknowledged.setdefault(self.name, {}).update(offsets)
        return True

    def committed(self, place: Place) -> int | None:
        """The offset that the group reads next; None if it has committed none."""
        return self._logs.acknowledged.get(self.name, {}).get(place)

    def _balance(self) -> Membership:
        count = len(self._members)
        owned = {
            member: tuple(p for p in range(self._partitions) if p % count == turn)
            for turn, member in enumerate(self._members)
        }
        self.membership = Membership(self.membership.generation + 1, owned)
        return self.membership
