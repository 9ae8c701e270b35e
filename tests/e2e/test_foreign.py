"""Other programs write to our topics: nothing stops, nothing is lost, and each message is told of (rules E2, E8)."""

import json

import pytest
from aiokafka import AIOKafkaProducer

from app.adapters import kafka_clients
from app.settings import read_settings
from app.topics import topics_of
from tests.e2e.live_stack import LiveStack

pytestmark = pytest.mark.stack
FOREIGN = [None, b"", b"\xff\xfe no text", b"STP1\x93\x01", b"\x81\xa3at", b'{"version":1}', b'{"title":"\xed\xa0\x80"}']


async def test_foreign_messages_on_every_topic_stop_nothing(stack: LiveStack) -> None:
    settings = read_settings()
    topics = topics_of(settings)
    async with AIOKafkaProducer(**kafka_clients.producer(settings)) as producer:
        for topic in topics:
            for partition in range(topic.partitions):
                for value in FOREIGN:
                    if value is not None or topic.name not in {topics.checkpoints_table.name}:
                        await producer.send_and_wait(topic.name, value, key=b"\xff key", partition=partition)
    run = await stack.load(events=600, rate=300, seed=71)
    await stack.compare_exact(run)
    for role in ("bridge", "etl", "sink", "delivery", "audit"):
        await stack.await_ready(role)
    done = stack.instream("dead-letters", "--json")
    assert done.returncode == 3, done.stderr
    assert "cannot be shown" in done.stderr
    assert any("EnvelopeInvalid" in letter["reason"] for letter in json.loads(done.stdout))
