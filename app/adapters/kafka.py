"""Kafka beside Faust: topics as they must be, and questions to the logs that need no consumer group."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    KafkaError,
    for_code,
)

from app.adapters import kafka_clients
from app.adapters.kafka_clients import REQUEST_TIMEOUT_S
from app.adapters.ports import LoggedMessage, Logs
from app.errors import ConfigurationError, ServiceUnavailable, WrongPartitionCount
from app.settings import Settings
from app.topic_checks import faults_of
from app.topics import TopicSpec, topics_of

log = structlog.get_logger(__name__)

START_PATIENCE_S: Final = 30.0
"""How long a starting process waits for the brokers, and for its topics to have leaders."""
HOLD_MS: Final = 500
QUICK_MS: Final = 10
SCANNED_AT_ONCE: Final = 1000
"""Messages that a scan takes at most before it gives way to other calls."""
_TOPIC_EXISTS: Final = 36
_EPOCH_OF: Final = re.compile(r"(?:blocks|rows)-e(\d+)")


@asynccontextmanager
async def _admin(settings: Settings, patience_s: float = START_PATIENCE_S) -> AsyncIterator[Any]:
    """A connected admin client; waits up to `patience_s` for a broker that answers."""
    deadline_s = asyncio.get_running_loop().time() + patience_s
    while True:
        client = AIOKafkaAdminClient(**kafka_clients.admin(settings))
        try:
            await client.start()
            break
        except KafkaConnectionError as exc:
            await client.close()
            if asyncio.get_running_loop().time() > deadline_s:
                raise ServiceUnavailable(_no_broker(settings)) from exc
            await asyncio.sleep(0.5)
    try:
        yield client
    except KafkaError as exc:
        raise ServiceUnavailable(f"Kafka at {settings.kafka} does not answer: {exc!r}") from exc
    finally:
        await client.close()


def _no_broker(settings: Settings) -> str:
    """The client does not tell a broker that is away from one that refuses us; its log has the reason."""
    way = f"{settings.kafka_security_protocol} {settings.kafka_sasl_mechanism or ''}".strip()
    return f"no Kafka broker answers at {settings.kafka} (INSTREAM_KAFKA), or none lets us in by {way}"


async def _described(client: Any) -> dict[str, list[dict[str, Any]]]:
    """Every topic of the cluster and its partitions."""
    described = await client.describe_topics()
    return {topic["topic"]: topic["partitions"] for topic in described}


async def ensure_topics(settings: Settings) -> None:
    """Create the missing topics of `topics_of(settings)` and verify the others; return when every partition has a leader.

    Safe to call from any number of processes at once.

    Raises:
        WrongPartitionCount: a topic exists with another number of partitions.
        ConfigurationError: the cluster already has a later epoch, or refuses to create a topic; or a topic that somebody
            else made is not as it must be. The text has the command that mends it.
        ServiceUnavailable: no broker answers.
    """
    wanted = topics_of(settings)
    async with _admin(settings) as client:
        present = await _described(client)
        _verify_epoch(present, settings.epoch)
        missing = [spec for spec in wanted if spec.name not in present]
        if missing:
            await _create(client, missing, settings.replication_factor)
        present = await _wait_for_leaders(client, wanted)
        for spec in wanted:
            _verify_partitions(spec, len(present[spec.name]), settings)
        # our own values are not asked for: a broker may not know yet a topic that another one has just made
        await _verify_configs(client, [spec for spec in wanted if spec not in missing], present, settings)


async def _verify_configs(
    client: Any, specs: Sequence[TopicSpec], present: Mapping[str, list[dict[str, Any]]], settings: Settings
) -> None:
    """Refuse topics that are not as the pipeline needs them."""
    configs = await _configs(client, [spec.name for spec in specs])
    faults = []
    for spec in specs:
        replicas = min(len(partition["replicas"]) for partition in present[spec.name])
        faults += faults_of(spec, configs.get(spec.name, {}), replicas, settings)
    if faults:
        raise ConfigurationError("; ".join(faults))


async def _configs(client: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Topic -> its configuration; a topic whose configuration we may not see is left out, with a warning."""
    if not names:
        return {}
    found = {}
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    for code, reason, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if code:
            why = reason or for_code(code).__name__
            log.warning("topic is not checked: its configuration cannot be seen", topic=name, reason=why)
        else:
            found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


def _verify_epoch(present: Iterable[str], epoch: int) -> None:
    latest = max((int(match[1]) for name in present if (match := _EPOCH_OF.fullmatch(name))), default=epoch)
    if latest > epoch:
        raise ConfigurationError(f"the cluster is in epoch {latest}, this process in {epoch}: set INSTREAM_EPOCH={latest}")


def _verify_partitions(spec: TopicSpec, found: int, settings: Settings) -> None:
    if found == spec.partitions:
        return
    remedy = (
        f"raise INSTREAM_EPOCH above {settings.epoch} (with no open batches), or set the count back"
        if spec.name.endswith(f"-e{settings.epoch}")
        else f"recreate it with {spec.partitions}"
    )
    raise WrongPartitionCount(f"topic {spec.name} has {found} partitions, the settings say {spec.partitions}: {remedy}")


async def _create(client: Any, specs: list[TopicSpec], replication_factor: int) -> None:
    topics = [NewTopic(s.name, s.partitions, replication_factor, topic_configs=s.config) for s in specs]
    response = await client.create_topics(topics)
    for name, code, *detail in response.topic_errors:
        if code not in {0, _TOPIC_EXISTS}:
            reason = detail[0] if detail and detail[0] else for_code(code).__name__
            raise ConfigurationError(f"the cluster refuses topic {name}: {reason}")
        if code == 0:
            log.info("topic created", topic=name)


async def _wait_for_leaders(client: Any, specs: Iterable[TopicSpec]) -> dict[str, list[dict[str, Any]]]:
    names = [spec.name for spec in specs]
    deadline_s = asyncio.get_running_loop().time() + START_PATIENCE_S
    while True:
        present = await _described(client)
        waiting = [n for n in names if not present.get(n) or any(p["leader"] < 0 for p in present[n])]
        if not waiting:
            return present
        if asyncio.get_running_loop().time() > deadline_s:
            raise ServiceUnavailable(f"topics without a leader after {START_PATIENCE_S:.0f} s: {', '.join(waiting)}")
        await asyncio.sleep(0.1)


async def committed_offsets(settings: Settings, group: str) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the offset that consumer group `group` reads next; partitions without one are absent.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    deadline_s = asyncio.get_running_loop().time() + START_PATIENCE_S
    async with _admin(settings, patience_s=0) as client:
        while True:
            try:
                found = await client.list_consumer_group_offsets(group)
                break
            except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):  # a young cluster makes its topic
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                await asyncio.sleep(0.2)
    return {(tp.topic, tp.partition): at.offset for tp, at in found.items() if at.offset >= 0}


async def lag(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """Partition -> messages of `topic` that consumer group `group` has not acknowledged.

    If a partition has no commit, all messages that the log still has count.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    committed = await committed_offsets(settings, group)
    async with LogReader(settings) as logs:
        partitions = await logs.partitions(topic)
        first, end = await logs.first_offsets(topic, partitions), await logs.end_offsets(topic, partitions)
    return {p: max(0, end[p] - max(committed.get((topic, p), 0), first[p])) for p in partitions}


async def reads_next(logs: Logs, group: str, topic: str, partition: int) -> int:
    """The offset that a consumer group reads next in a partition, or the earliest later offset that the log still has.

    Raises:
        ServiceUnavailable: the brokers do not answer.
    """
    committed = await logs.committed(group)
    first, _ = await logs.bounds(topic, partition)
    return max(first, committed.get((topic, partition), 0))


class LogReader:
    """Reads single messages and the bounds of logs, without a consumer group.

    `start` before use and `stop` after it, or `async with`. Safe to share between tasks of one loop.

    Raises:
        ServiceUnavailable: from every method, when the brokers do not answer.
    """

    def __init__(self, settings: Settings, hold_ms: int = HOLD_MS) -> None:
        """Connect to nothing yet.

        Args:
            settings: lead to the brokers.
            hold_ms: how long a broker may hold a fetch that finds nothing. Behind the end of one range the client fetches
                ahead, and the next range waits for that fetch: a reader of many short ranges wants `QUICK_MS`.
        """
        self._settings = settings
        self._hold_ms = hold_ms
        self._consumer: Any = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect."""
        self._consumer = AIOKafkaConsumer(**kafka_clients.log_reader(self._settings, self._hold_ms))
        try:
            await self._consumer.start()
        except KafkaError as exc:
            await self._consumer.stop()
            raise ServiceUnavailable(_no_broker(self._settings)) from exc

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def partitions(self, topic: str) -> list[int]:
        """The partitions of `topic`, ascending; empty when there is no such topic."""
        cluster = await self._consumer._client.fetch_all_metadata()
        return sorted(cluster.partitions_for_topic(topic) or ())

    async def first_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> the earliest offset that the log still has; its end where it is empty."""
        return await self._bounds(self._consumer.beginning_offsets, topic, partitions)

    async def end_offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> one more than the last offset (the highwater)."""
        return await self._bounds(self._consumer.end_offsets, topic, partitions)

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """The offsets that consumer group `group` has acknowledged (`committed_offsets`)."""
        return await committed_offsets(self._settings, group)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The earliest offset that a partition still has, and one more than its last."""
        first = await self.first_offsets(topic, [partition])
        end = await self.end_offsets(topic, [partition])
        return first[partition], end[partition]

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset that the log has and that was appended at `time_ms` or later; the log's end if none was."""
        tp = TopicPartition(topic, partition)
        try:
            found = (await self._consumer.offsets_for_times({tp: time_ms})).get(tp)
        except KafkaError as exc:
            raise ServiceUnavailable(f"{topic}[{partition}] cannot be searched by time: {exc!r}") from exc
        return found.offset if found is not None else (await self.end_offsets(topic, [partition]))[partition]

    async def message_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """The value of the message at `offset`, b"" for a null; None where the log does not have it (any more, or yet)."""
        first, end = await self.bounds(topic, partition)
        if not first <= offset < end:
            return None
        tp = TopicPartition(topic, partition)
        async with self._lock:
            try:
                self._consumer.assign([tp])
                self._consumer.seek(tp, offset)
                message = await asyncio.wait_for(self._consumer.getone(tp), REQUEST_TIMEOUT_S)
            except (KafkaError, TimeoutError) as exc:
                raise ServiceUnavailable(f"{topic}[{partition}] cannot be read at {offset}: {exc!r}") from exc
        return (message.value or b"") if message.offset == offset else None

    async def scan(self, topic: str, partition: int, first: int, end: int) -> AsyncIterator[LoggedMessage]:
        """The messages with first <= offset < end that the log has, in order. Several scans may go on side by side."""
        tp, at = TopicPartition(topic, partition), first
        while at < end:
            async with self._lock:
                try:
                    self._consumer.assign([tp])
                    self._consumer.seek(tp, at)
                    found = await self._consumer.getmany(
                        tp, timeout_ms=REQUEST_TIMEOUT_S * 1000, max_records=SCANNED_AT_ONCE
                    )
                except KafkaError as exc:
                    raise ServiceUnavailable(f"{topic}[{partition}] cannot be read at {at}: {exc!r}") from exc
            messages = found.get(tp, [])
            if not messages:
                raise ServiceUnavailable(f"{topic}[{partition}] cannot be read at {at}: no answer in {REQUEST_TIMEOUT_S} s")
            for message in messages:
                if message.offset < end:
                    yield LoggedMessage(message.offset, message.timestamp, message.value or b"", message.key)
            at = messages[-1].offset + 1

    async def _bounds(self, ask: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        try:
            found: Mapping[TopicPartition, int] = await ask(wanted)
        except KafkaError as exc:
            raise ServiceUnavailable(f"the bounds of {topic} cannot be read: {exc!r}") from exc
        return {tp.partition: offset for tp, offset in found.items()}
