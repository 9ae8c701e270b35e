"""Faust's Kafka driver as we run it: an idempotent producer, and a consumer that can be put at an offset for good.

The consumer also remembers what was acknowledged: whether the broker hears of it is the watchdog's to find out.
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
    """Producer with our settings in the place of Faust's."""

    def _settings_extra(self) -> Mapping[str, Any]:
        app: Any = self.app  # ours
        return kafka_clients.producer(app.settings)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread of the Kafka client, which is made with our settings; Faust has options for some of them only."""

    def _create_worker_consumer(self, _: driver.Transport) -> AIOKafkaConsumer:
        app: Any = self.app  # ours
        has_tables = app.conf.table_standby_replicas > 0 or bool(app.tables.changelog_topics)
        assignor = app.assignor if has_tables else RoundRobinPartitionAssignor  # as Faust chooses
        return AIOKafkaConsumer(**kafka_clients.group_member(app.settings, app.group, assignor))

    async def put_back(self, records: Fetched) -> None:
        """See that what was fetched comes again; called in this thread."""
        await put_back(self._ensure_consumer(), records)


async def put_back(consumer: AIOKafkaConsumer, records: Fetched) -> None:
    """Put `consumer` at the first of each partition's records again, but where it has been put elsewhere since."""
    for tp, fetched in records.items():
        if tp in consumer.assignment() and await consumer.position(tp) == fetched[-1].offset + 1:
            consumer.seek(tp, fetched[0].offset)


class Consumer(driver.Consumer):
    """Consumer with `reposition` and `ask`, and with short polls, which loses nothing that they bring.

    Attributes:
        acknowledged: Owned partition -> the offset behind the highest message acknowledged here; what Faust must commit.
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
        """Begin anew: what an earlier generation acknowledged and did not commit comes again."""
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
        """What a poll brings; nothing while flow is stopped.

        A poll may be under way while recovery stops the flow and puts a table's partition at the offset where it is to go
        on. What such a poll still brings from there, Faust would throw away, and wait for it without end.
        """
        records: Fetched = await super()._getmany(active_partitions, min(timeout, POLL_S))
        if records and not self.flow_active:
            thread = cast(ConsumerThread, self._thread)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(thread.put_back(records), thread.thread_loop))
            return {}
        return records

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: after five minutes Faust calls every changelog stalled, since no stream reads one, and logs it for ever.

        What really stands still is found, and ended, by `app.shell.watchdog`.
        """

    async def reposition(self, tp: TP, offset: int) -> None:
        """Read `tp` from `offset` on, and commit from there on.

        Faust's own `seek` leaves its notion of the committed offset behind: after a seek forward it would see a hole
        between the two and never commit again.
        """
        seek = asyncio.run_coroutine_threadsafe(self._seek(tp, offset), self._thread.thread_loop)
        await asyncio.wrap_future(seek)  # in the consumer's thread, and not behind its long polls
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
