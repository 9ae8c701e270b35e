"""Foreign and damaged messages: on every topic, and in the stream. Nothing stops at them, and no row changes (E2, E8)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app.adapters import kafka_clients
from app.adapters.kafka import LogReader
from app.errors import ServiceUnavailable
from app.settings import Settings
from app.topics import TopicSpec, topics_of
from tests.rig.chaos.plan import Fault
from tests.rig.chaos.report import Journal
from tests.rig.chaos.services import Services

FOREIGN: Final = (
    b"", b"\xff\xfe no text", b"STP1\x93\x01", b"\x81\xa3at", b'{"version":1}', b'{"title":"\xed\xa0\x80"}', b"[" * 5000,
)  # fmt: skip
"""Values that no topic may have."""
KEY: Final = b"\xff no key of ours"
"""Compacted topics need a key; one of ours would let the broker delete our message."""
LOOK_BACK: Final = 20
"""A damaged message is the copy of one of the last so many."""
SEND_S: Final = 30.0


class Messages:
    """What other programs and broken disks put among our messages."""

    def __init__(self, settings: Settings, services: Services, journal: Journal) -> None:
        self._settings = settings
        self._services = services
        self._journal = journal
        self._topics = topics_of(settings)

    async def foreign(self, fault: Fault) -> None:
        """Two foreign messages on one partition of every topic, and one in the stream.

        Only two: a partition of `blocks` stops if too large a share of its messages is unreadable (rule E8).
        """
        places = []
        async with self._producer() as producer:
            for number, topic in enumerate(self._topics):
                partition = fault.chance % topic.partitions
                for which in (fault.chance + number, fault.chance // 7 + number):
                    value = FOREIGN[which % len(FOREIGN)]
                    await producer.send_and_wait(topic.name, value, key=KEY, partition=partition)
                places.append(f"{topic.name}[{partition}]")
        await self._services.put_record(FOREIGN[fault.chance % len(FOREIGN)] or b"\x00")
        self._journal.note(fault.kind, "kafka, kinesis", ", ".join(places))

    async def damaged(self, fault: Fault) -> None:
        """Of every topic, the first half of one of its last messages once more."""
        places = []
        async with LogReader(self._settings) as logs, self._producer() as producer:
            for topic in self._topics:
                partition = fault.chance % topic.partitions
                message = await self._some_message(logs, topic, partition, fault.chance)
                if message is not None:
                    half = message[: len(message) // 2]
                    await producer.send_and_wait(topic.name, half, key=KEY, partition=partition)
                    places.append(f"{topic.name}[{partition}] {len(half)} of {len(message)} bytes")
        if not places:
            raise ServiceUnavailable("no topic has a message yet")
        self._journal.note(fault.kind, "kafka", ", ".join(places))

    async def _some_message(self, logs: LogReader, topic: TopicSpec, partition: int, chance: int) -> bytes | None:
        first, end = await logs.bounds(topic.name, partition)
        found = [
            each.value async for each in logs.scan(topic.name, partition, max(first, end - LOOK_BACK), end) if each.value
        ]
        return found[chance % len(found)] if found else None

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(SEND_S), AIOKafkaProducer(**kafka_clients.producer(self._settings)) as producer:
                yield producer
        except KafkaError as exc:
            raise ServiceUnavailable(f"Kafka: {exc!r}") from exc
