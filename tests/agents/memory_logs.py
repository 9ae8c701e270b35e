"""Kafka's logs in memory: what `app.adapters.kafka.LogReader` would say of them."""

from dataclasses import dataclass, field


@dataclass
class MemoryLogs:
    """One topic-partition after the other: messages, how many of them retention took, what groups acknowledged."""

    messages: dict[tuple[str, int], list[bytes]] = field(default_factory=dict)
    trimmed: dict[tuple[str, int], int] = field(default_factory=dict)
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)

    async def first_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {p: self.trimmed.get((topic, p), 0) for p in partitions}

    async def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return {p: len(self.messages.get((topic, p), [])) for p in partitions}

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return (await self.first_offsets(topic, [partition]))[partition], len(self.messages.get((topic, partition), []))

    async def message_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        first, end = await self.bounds(topic, partition)
        return self.messages[topic, partition][offset] if first <= offset < end else None

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        return self.acknowledged
