"""Faust's Kafka driver as we run it: an idempotent producer, and a consumer that can be put at an offset for good.

The consumer also remembers acknowledged offsets, and the watchdog checks whether they are committed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from app.adapters import kafka_clients
from app.adapters.kafka_clients import POLL_S

Fetched = Mapping[TP, Sequence[Any]]
"""Records by partition, at least one of each."""


class Producer(driver.Producer):
    """Producer with our settings instead of Faust's."""

    def _settings_extra(self) -> Mapping[str, Any]:
        app: Any = self.app  # ours
        return kafka_clients.producer(app.settings)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread of the Kafka client. The client is made with our settings; Faust has options for only some of them."""

    def _create_worker_consumer(self, _: driver.Transport) -> AIOKafkaConsumer:
        app: Any = self.app  # ours
        has_tables = app.conf.table_standby_replicas > 0 or bool(app.tables.changelog_topics)
        assignor = app.assignor if has_tables else RoundRobinPartitionAssignor  # the same choice as Faust's
        return AIOKafkaConsumer(**kafka_clients.group_member(app.settings, app.group, assignor))

    async def put_back(self, records: Fetched) -> None:
        """Make the fetched records come again; called in this thread."""
        await put_back(self._ensure_consumer(), records)


async def put_back(consumer: AIOKafkaConsumer, records: Fetched) -> None:
    """Put `consumer` back to the first of each partition's records, unless it was put elsewhere since."""
    for tp, fetched in records.items():
        if tp in consumer.assignment() and await consumer.position(tp) == fetched[-1].offset + 1:
            consumer.seek(tp, fetched[0].offset)


class Consumer(driver.Consumer):
    """Consumer with `reposition` and `ask`, and with short polls; it loses no record of a poll.

    Attributes:
        acknowledged: Owned partition -> the offset behind the highest message acknowledged here; Faust must commit it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.acknowledged: dict[TP, int] = {}

    def ack(self, message: Any) -> bool:
        """Note that the message need not come again."""
        counts: bool = super().ack(message)
        if counts:
            self.acknowledged[message.tp] = max(message.offset + 1, self.acknowledged.get(message.tp, 0))
        return counts

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew: messages that an earlier generation acknowledged and did not commit come again."""
        self.acknowledged.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    def ask(self) -> "Future[None]":
        """A future that the consumer's thread fulfils as soon as its event loop turns.

        Raises:
            RuntimeError: that loop is closed.
        """
        question = asyncio.sleep(0)
        try:
            return asyncio.run_coroutine_threadsafe(question, self._thread.thread_loop)
        except RuntimeError:
            question.close()
            raise

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        """The records of a poll; none while the flow is stopped.

        A poll may be under way while recovery stops the flow and puts a table's partition at its next offset. Faust would
        throw the records of such a poll away, and then wait for them without end.
        """
        records: Fetched = await super()._getmany(active_partitions, min(timeout, POLL_S))
        if records and not self.flow_active:
            thread = cast(ConsumerThread, self._thread)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(thread.put_back(records), thread.thread_loop))
            return {}
        return records

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing.

        After five minutes Faust calls every changelog stalled, because no stream reads one, and logs it for ever.

        `app.shell.watchdog` finds a worker that really stands still and ends it.
        """

    async def reposition(self, tp: TP, offset: int) -> None:
        """Read `tp` from `offset` on, and commit from there on.

        Faust's own `seek` keeps the old committed offset. After a seek forward Faust would see a hole between the two
        offsets and never commit again.
        """
        seek = asyncio.run_coroutine_threadsafe(self._seek(tp, offset), self._thread.thread_loop)
        await asyncio.wrap_future(seek)  # in the consumer's thread, not behind its long polls
        self.acknowledged.pop(tp, None)
        self._read_offset[tp] = offset or None
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        self._gap.pop(tp, None)
        self._committed_offset[tp] = offset or None


class Transport(driver.Transport):
    """The driver that makes these two."""

    Producer = Producer
    Consumer = Consumer
