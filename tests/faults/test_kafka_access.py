"""A real broker behind TLS: topics, logs and workers get in by a certificate, a password or a token, and nobody without."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from app.adapters import kafka_clients
from app.adapters.kafka import LogReader, committed_offsets, ensure_topics
from app.errors import ServiceUnavailable
from app.settings import Settings
from app.topics import topics_of
from tests.worlds.etl_workers import World, aws
from tests.worlds.secured_broker import Secured, secured_broker

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
