"""A single-node Kafka (KRaft, broker and controller in one JVM) on loopback, from plain jars.

    prepare(home, ports)  writes server.properties and log settings, formats the storage once; keeps what is there
    command(home)         the argument list of the broker's process
    wait_ready(port)      returns when the broker answers API requests

Tuned for one machine and a fast start: small heap, few internal partitions, no rebalance delay, no automatic topics.
No setting weakens the durability that the topics ask for.
"""

import asyncio
import base64
import subprocess
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from app.adapters import kafka_clients
from app.errors import LocalStackError
from app.local.services.java import java_binary, kafka_jars
from app.settings import Settings

HEAP: Final = ("-Xms128m", "-Xmx512m")
FAST_START: Final = (
    "--sun-misc-unsafe-memory-access=allow",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
)
MESSAGE_MARGIN_BYTES: Final = 1024 * 1024
"""Bytes of a record batch around its largest message."""
FORMAT_TIMEOUT_S: Final = 60
PROBE_TIMEOUT_MS: Final = 5_000


class KafkaPorts(NamedTuple):
    """Loopback ports of the broker and of its controller."""

    broker: int
    controller: int


def prepare(home: Path, ports: KafkaPorts, max_message_bytes: int) -> None:
    """Make `home` (created if missing) a folder from which a broker starts on `ports`.

    Idempotent: a formatted storage is kept with its data, the settings are written anew.

    Args:
        home: a folder only for this broker: settings, `data/` and `log/`.
        ports: the ports on 127.0.0.1.
        max_message_bytes: largest message that topics may allow.

    Raises:
        LocalStackError: Java or the jars are missing, or the storage cannot be formatted.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "log").mkdir(exist_ok=True)
    (home / "server.properties").write_text(_properties(home, ports, max_message_bytes))
    (home / "log4j2.properties").write_text(_log_properties(home))
    if (home / "data" / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # one word: an id may begin with a dash, and would be taken for an option
    arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(home / "server.properties")]
    done = subprocess.run(
        [*_java(home), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=FORMAT_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line and not line[0].isspace()]
        raise LocalStackError(f"Kafka's storage cannot be formatted: {said[-1] if said else done.returncode}")


def command(home: Path) -> list[str]:
    """The argument list that runs the broker prepared in `home`.

    Raises:
        LocalStackError: Java or the jars are missing.
    """
    return [*_java(home), "kafka.Kafka", str(home / "server.properties")]


async def wait_ready(port: int, timeout_s: float = 60) -> None:
    """Return when the broker on `port` lists itself in its metadata.

    Raises:
        LocalStackError: it does not list itself within `timeout_s` seconds.
    """
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 - slow to import
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    options = kafka_clients.admin(Settings(kafka=f"127.0.0.1:{port}"), PROBE_TIMEOUT_MS)

    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        if await _accepts(port):
            client = AIOKafkaAdminClient(**options)
            try:
                await client.start()
                if (await client.describe_cluster())["brokers"]:
                    return
            except (KafkaError, OSError):
                pass  # not yet: asked again below, until the deadline
            finally:
                await client.close()
        if loop.time() > deadline:
            raise LocalStackError(f"Kafka does not answer on port {port} after {timeout_s:.0f} s")
        await asyncio.sleep(0.1)


async def _accepts(port: int) -> bool:
    """Whether the port is open; avoids the client's own noisy retries."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _java(home: Path) -> list[str]:
    logs = f"-Dlog4j2.configurationFile={(home / 'log4j2.properties').as_uri()}"
    return [str(java_binary()), *HEAP, *FAST_START, logs, "-cp", f"{kafka_jars()}/*"]


def _properties(home: Path, ports: KafkaPorts, max_message_bytes: int) -> str:
    largest = max_message_bytes + MESSAGE_MARGIN_BYTES
    broker, controller = f"127.0.0.1:{ports.broker}", f"127.0.0.1:{ports.controller}"
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{controller}",
        "log.dirs": home / "data",
        # one broker: one replica of each internal topic
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        # topics are made only with their configuration
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
        "message.max.bytes": largest,
        "replica.fetch.max.bytes": largest,
        "socket.request.max.bytes": max(100 * 1024 * 1024, 2 * largest),
        # a member that joins or leaves is answered at once
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "initial.broker.registration.timeout.ms": 30_000,
        "controlled.shutdown.enable": "false",
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "log.cleaner.threads": 1,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _log_properties(home: Path) -> str:
    """Log warnings and the few lines of a start to one rolling file, and nothing to the console."""
    return f"""status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {home}/log/kafka.log
appender.file.filePattern = {home}/log/kafka.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""
