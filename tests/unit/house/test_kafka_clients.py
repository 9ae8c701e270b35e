"""Every Kafka client is made with the settings of one file, so that a new setting of all of them is a line there."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiokafka.admin
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from app.adapters import kafka, kafka_clients
from app.apps import new_app
from app.errors import ServiceUnavailable
from app.local.services import kafka as broker
from app.settings import Settings
from app.shell.faust_app import InstreamApp

ROOT = Path(__file__).parents[3]
CLIENTS = ("AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient")
OF_FAUST = ("broker", "producer_", "consumer_", "ssl_")
"""How Faust's options of its clients begin."""
PLANTED = "planted-by-a-test"


# --- a setting of all clients


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The process's settings; one of every client is changed, in the one file."""
    every_client = kafka_clients.every_client
    monkeypatch.setattr(kafka_clients, "every_client", lambda settings: every_client(settings) | {"client_id": PLANTED})
    return Settings(home=tmp_path)


@pytest.fixture(params=["plain", "with crash points"])
def app(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> InstreamApp:
    plan = tmp_path / "plan" if request.param == "with crash points" else None
    return new_app("sink", settings.model_copy(update={"crash_plan": plan}))


class Unreachable:
    """In the place of a client's class: makes real clients, which find no broker."""

    def __init__(self, client: type, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client_ids: list[str] = []

        async def start(made: Any) -> None:
            self.client_ids.append(made._client._client_id)
            raise KafkaConnectionError("nobody there")

        monkeypatch.setattr(client, "start", start)


async def test_a_new_setting_reaches_the_consumer_of_a_worker(app: InstreamApp) -> None:
    thread: Any = app.consumer._new_consumer_thread()
    consumer = thread._create_worker_consumer(app.transport)
    assert type(consumer) is AIOKafkaConsumer
    assert consumer._client._client_id == PLANTED


async def test_a_new_setting_reaches_the_producer_of_a_worker(app: InstreamApp) -> None:
    producer: Any = app.producer._new_producer()  # type: ignore[attr-defined]
    assert type(producer) is AIOKafkaProducer
    assert producer.client._client_id == PLANTED


async def test_a_new_setting_reaches_who_reads_logs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    consumers = Unreachable(AIOKafkaConsumer, monkeypatch)
    with pytest.raises(ServiceUnavailable):
        await kafka.LogReader(settings).start()
    assert consumers.client_ids == [PLANTED]


async def test_a_new_setting_reaches_who_asks_for_offsets(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    admins = Unreachable(AIOKafkaAdminClient, monkeypatch)
    with pytest.raises(ServiceUnavailable):
        await kafka.committed_offsets(settings.model_copy(update={"kafka": "127.0.0.1:1"}), "group")
    assert set(admins.client_ids) == {PLANTED}


async def test_a_new_setting_reaches_who_waits_for_a_broker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def accepts(_: int) -> bool:
        return True

    admins = Unreachable(aiokafka.admin.AIOKafkaAdminClient, monkeypatch)
    monkeypatch.setattr(broker, "_accepts", accepts)
    with pytest.raises(broker.LocalStackError):
        await broker.wait_ready(1, timeout_s=0)
    assert admins.client_ids == [PLANTED]


def test_the_settings_of_the_process_lead() -> None:
    settings = Settings(kafka="one:1, two:2", max_message_bytes=5_000_000)
    assert kafka_clients.every_client(settings)["bootstrap_servers"] == "one:1,two:2"
    assert kafka_clients.faust(settings)["broker"] == ["kafka://one:1", "kafka://two:2"]
    assert kafka_clients.producer(settings)["max_request_size"] == 5_000_000
    for options in (kafka_clients.log_reader(settings), kafka_clients.group_member(settings, "g", object())):
        assert options["max_partition_fetch_bytes"] == 5_000_000


# --- nobody makes a client of his own


def own_settings(source: str) -> Iterator[str]:
    """Line and name of each client that is made with anything but what a function of `kafka_clients` gives."""
    tree = ast.parse(source)
    ours = {ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_ours(node.value)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        if name in CLIENTS:
            values = [keyword.value for keyword in node.keywords if keyword.arg is None]
            whole = len(values) == 1 == len(node.keywords) and not node.args
            if not (whole and (_is_ours(values[0]) or ast.unparse(values[0]) in ours)):
                yield f"{node.lineno}: {name}"
        yield from (
            f"{node.lineno}: {k.arg}" for k in node.keywords if name == "InstreamApp" and (k.arg or "").startswith(OF_FAUST)
        )


def _is_ours(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func).startswith("kafka_clients.")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("AIOKafkaProducer(**kafka_clients.producer(settings))", []),
        ("options = kafka_clients.admin(settings)\nAIOKafkaAdminClient(**options)", []),
        ("AIOKafkaProducer(bootstrap_servers=settings.kafka)", ["1: AIOKafkaProducer"]),
        ("AIOKafkaProducer(**kafka_clients.producer(settings), acks=1)", ["1: AIOKafkaProducer"]),
        ("options = {}\naiokafka.AIOKafkaConsumer(**options)", ["2: AIOKafkaConsumer"]),
        ("AIOKafkaConsumer('topic', **kafka_clients.log_reader(settings))", ["1: AIOKafkaConsumer"]),
        ("InstreamApp(role, settings, **kafka_clients.faust(settings), web_enabled=False)", []),
        ("InstreamApp(role, settings, producer_acks=1)", ["1: producer_acks"]),
    ],
)
def test_a_client_with_settings_of_its_own_is_found(source: str, found: list[str]) -> None:
    assert list(own_settings(source)) == found


def test_nobody_makes_a_client_with_settings_of_its_own() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{what}"
        for folder in ("app", "agents", "tables", "tests/rig")
        for path in (ROOT / folder).rglob("*.py")
        for what in own_settings(path.read_text())
    }
    assert not found
