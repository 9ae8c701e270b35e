"""Faust's Kafka driver as we run it: nothing that a poll brings is lost, and what is sent together travels together."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.protocol.produce import ProduceRequest
from faust.types import TP

from app.adapters.kafka import ensure_topics
from app.apps import new_app
from app.shell.transport import Consumer, Fetched, put_back
from app.topics import topics_of
from tests.agents.bridge.test_bridge_kafka import stack
from tests.worlds.waiting import turns

__all__ = ["stack"]

MESSAGES = 10


@pytest.mark.stack
async def test_what_is_put_back_comes_again_but_where_the_consumer_was_put_elsewhere(stack: Any) -> None:
    await ensure_topics(stack.settings)
    topic = topics_of(stack.settings).blocks.name
    parts = [TP(topic, 0), TP(topic, 1)]
    producer = AIOKafkaProducer(bootstrap_servers=stack.settings.kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.settings.kafka, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        for part in parts:
            for n in range(MESSAGES):
                await producer.send_and_wait(topic, b"%d" % n, partition=part.partition)
        consumer.assign(parts)
        fetched: dict[TP, list[Any]] = {}
        while sum(map(len, fetched.values())) < 2 * MESSAGES:
            for part, records in (await consumer.getmany(timeout_ms=1000)).items():
                fetched.setdefault(TP(*part), []).extend(records)
        consumer.seek(parts[1], 7)  # as a recovery does meanwhile
        gone = TP(topic, 2)  # as a rebalance takes partitions meanwhile
        await put_back(consumer, {**fetched, gone: fetched[parts[0]]})
        again: dict[int, list[int]] = {0: [], 1: []}
        while (len(again[0]), len(again[1])) != (MESSAGES, MESSAGES - 7):
            for part, records in (await consumer.getmany(timeout_ms=1000)).items():
                again[part.partition] += [record.offset for record in records]
        assert again == {0: list(range(MESSAGES)), 1: [7, 8, 9]}
    finally:
        await consumer.stop()
        await producer.stop()


@pytest.mark.stack
async def test_blocks_that_wait_together_share_a_request(stack: Any) -> None:
    await ensure_topics(stack.settings)
    app = new_app("bridge", stack.settings)
    topic = topics_of(stack.settings).blocks.name
    producer = app.transport.create_producer()
    await producer.start()
    sent = 0
    waiting: list[Any] = []
    try:
        client = producer._producer.client
        send = client.send

        async def counted(node: int, request: Any, **options: Any) -> Any:
            """Send a request of blocks once no more of them come to wait, so that no answer is faster than they are."""
            nonlocal sent
            if isinstance(request, ProduceRequest):
                sent += 1
                before = -1
                while before != len(waiting):
                    before = len(waiting)
                    await turns()
            return await send(node, request, **options)

        client.send = counted
        for _ in range(40):
            waiting.append(await producer.send(topic, None, bytes(50_000), 0, None, None))
        placed = [await one for one in waiting]
    finally:
        await producer.stop()
    assert [one.offset for one in placed] == list(range(placed[0].offset, placed[0].offset + 40))
    assert 2 <= sent <= 4  # 2 MB


class Thread:
    """A consumer's thread with its loop, which remembers what was put back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, brings: Fetched) -> None:
        self.thread_loop = loop
        self.brings = brings
        self.back: list[Fetched] = []

    async def getmany(self, *_: Any) -> Fetched:
        return self.brings

    async def put_back(self, records: Fetched) -> None:
        self.back.append(records)


@pytest.fixture
def thread_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("flows", [True, False])
async def test_a_poll_that_ends_while_flow_is_stopped_brings_nothing(
    thread_loop: asyncio.AbstractEventLoop, *, flows: bool
) -> None:
    records: Fetched = {TP(f"changelog-{uuid.uuid4()}", 2): [SimpleNamespace(offset=5)]}
    thread = Thread(thread_loop, records)
    consumer: Any = object.__new__(Consumer)
    consumer._thread, consumer.flow_active = thread, flows
    assert await consumer._getmany(None, 1.0) == (records if flows else {})
    assert thread.back == ([] if flows else [records])
