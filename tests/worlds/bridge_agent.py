"""A bridge's process over a stream of one shard: a test decides when messages of `checkpoints` come to its agent."""

from typing import Any

from app.core.formats.block import is_control
from app.core.formats.checkpoint import Barrier, Checkpoint, decode, encode, home_of
from app.testing.memory import MemoryBlockStream
from tests.worlds.agent import Member
from tests.worlds.waiting import until

CHECKPOINTS, CHANGELOG, BLOCKS = "checkpoints-e1", "instream-bridge-e1-checkpoints-changelog", "blocks-e1"
HOMES = 3
SHARD = "shardId-000000000000"
HOME = home_of(SHARD, HOMES)
OTHER = (HOME + 1) % HOMES


class Bridge(Member):
    """A bridge over a stream of one shard; the test hands the messages of `checkpoints` to `agent`."""

    def __init__(self) -> None:
        super().__init__("bridge")
        self.app.consumer.topic_partitions = lambda _: HOMES  # type: ignore[method-assign,assignment]
        self.stream = MemoryBlockStream(shards=1)
        self.app.ports.blocks = self.stream
        self.read = [0] * HOMES
        self.agent: Any = None

    async def deliver(self, *partitions: int) -> list[Any]:
        """Hand the agent the new messages on these partitions of `checkpoints`."""
        events = []
        for partition in partitions:
            for value in self.producer.sent(CHECKPOINTS, partition)[self.read[partition] :]:
                self.agent.sent_offset = self.read[partition]
                self.read[partition] += 1
                events.append(await self.agent.put(value, partition=partition, wait=False))
        return events

    async def revoke(self) -> None:
        """Commit the messages that were handed over, as the app does once its hooks have run."""
        await super().revoke()
        group = self.producer.logs.acknowledged.setdefault(self.app.group, {})
        group.update({(CHECKPOINTS, partition): offset for partition, offset in enumerate(self.read)})

    async def on_topic(self, *messages: Checkpoint | Barrier, partition: int = HOME) -> None:
        for message in messages:
            await self.producer.send(CHECKPOINTS, None, encode(message), partition)

    async def serve(self, *partitions: int) -> None:
        """Own partitions, and meet the barriers."""
        before = [self.barriers(partition) for partition in partitions]
        await self.assign(CHECKPOINTS, *partitions)
        await until(lambda: all(self.barriers(p) > count for p, count in zip(partitions, before, strict=True)))
        await self.deliver(*partitions)
        await until(lambda: self.crashes or self.worker is not None)

    @property
    def worker(self) -> Any:
        return self.module.ownership.worker

    def checkpoints(self, partition: int = HOME) -> list[Checkpoint]:
        decoded = map(decode, self.producer.sent(CHECKPOINTS, partition))
        return [message for message in decoded if isinstance(message, Checkpoint)]

    def barriers(self, partition: int) -> int:
        return len(self.producer.sent(CHECKPOINTS, partition)) - len(self.checkpoints(partition))

    def blocks(self) -> list[bytes]:
        return [value for n in range(2) for value in self.producer.sent(BLOCKS, n) if not is_control(value)]
