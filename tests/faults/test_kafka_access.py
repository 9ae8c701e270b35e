"""A real broker behind TLS: topics, logs and workers get in by a certificate, a password or a token, and nobody without."""

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.adapters import kafka_clients
from app.adapters.kafka import LogReader, committed_offsets, ensure_topics
from app.errors import ConfigurationError, ServiceUnavailable
from app.settings import Settings
from app.topics import topics_of
from tests.worlds.etl_workers import World, aws
from tests.worlds.secured_broker import Secured, secured_broker
from tests.worlds.waiting import PAUSE_S, until

pytestmark = pytest.mark.stack

ONE = {"partitions": "2", "replication_factor": "1", "min_insync_replicas": "1"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as ways:
        yield ways


@pytest.mark.parametrize("way", Secured._fields)
async def test_admin_producer_and_log_reader_get_in(secured: Secured, way: str) -> None:
    settings = Settings(**(getattr(secured, way) | ONE))
    topic = topics_of(settings).manifests.name
    await ensure_topics(settings)
    async with AIOKafkaProducer(**kafka_clients.producer(settings)) as producer, LogReader(settings) as logs:
        sent = await producer.send_and_wait(topic, way.encode(), partition=1)
        assert await logs.message_at(topic, 1, sent.offset) == way.encode()
        assert await logs.offset_at(topic, 1, sent.timestamp) == sent.offset
        assert await logs.offset_at(topic, 1, sent.timestamp + 1) == sent.offset + 1, "nothing is later: the log's end"
    assert await committed_offsets(settings, "nobody") == {}


@pytest.mark.parametrize("wrong", ["no TLS", "no certificate", "another password", "another authority"])
async def test_nobody_else_gets_in(secured: Secured, wrong: str) -> None:
    values = {
        "no TLS": {"kafka": secured.tls["kafka"]},
        "no certificate": {key: secured.tls[key] for key in ("kafka", "kafka_security_protocol", "kafka_ca_file")},
        "another password": secured.scram | {"kafka_password": "wrong"},
        "another authority": {key: value for key, value in secured.scram.items() if key != "kafka_ca_file"},
    }[wrong]
    with pytest.raises(ServiceUnavailable):
        await committed_offsets(Settings(**(values | ONE)), "nobody")


async def test_a_worker_gets_in(secured: Secured, tmp_path: Path) -> None:
    with aws() as aws_url, pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(("AWS_", "INSTREAM_"))]:
            environment.delenv(name)
        world = World(tmp_path, 0, aws_url, {**secured.scram, "partitions": "2"})
        for name, value in world.aws_environment.items():
            environment.setenv(name, value)
        async with world:
            worker = world.workers[0]
            worker.start()
            await world.until(worker.ready, "a worker is ready behind TLS")
            assert worker.end(signal.SIGTERM) == 0


async def test_topics_of_somebody_else_are_refused_with_the_command_that_mends_them(secured: Secured) -> None:
    settings = Settings(**(secured.scram | ONE), epoch=7)
    topics = topics_of(settings)
    admin = AIOKafkaAdminClient(**kafka_clients.admin(settings))
    await admin.start()
    try:
        of_theirs = topics.rows.config | {"message.timestamp.type": "CreateTime", "retention.ms": "3600000"}
        await admin.create_topics([NewTopic(topics.rows.name, topics.rows.partitions, 1, topic_configs=of_theirs)])
        with pytest.raises(ConfigurationError) as caught:
            await ensure_topics(settings)
        mended = re.fullmatch(r"topic rows-e7 has .* --entity-name rows-e7 --add-config (\S+)", str(caught.value))
        assert mended is not None
        values = dict(value.split("=") for value in mended[1].split(","))
        assert values == {name: topics.rows.config[name] for name in ("retention.ms", "message.timestamp.type")}
        await admin.alter_configs([
            ConfigResource(ConfigResourceType.TOPIC, topics.rows.name, topics.rows.config | values)
        ])  # fmt: skip
        await until(partial(fits, settings), PAUSE_S, lambda: "the mended topic is refused")
    finally:  # the other tests are of an earlier epoch
        await admin.delete_topics([spec.name for spec in topics])
        await admin.close()


async def fits(settings: Settings) -> bool:
    """Whether the topics are taken; a broker may need a moment to hear of a change."""
    try:
        await ensure_topics(settings)
    except ConfigurationError:
        return False
    return True
