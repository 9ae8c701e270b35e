"""The settings of every Kafka client, in one place: what each kind is made with, from the settings of the process.

Each client takes its settings from one of these functions and from nowhere else: `AIOKafkaProducer(**producer(settings))`.
All clients share `every_client`: a new setting of all clients is a line there, and is declared in `app.settings`.

    producer        appends to topics: a worker's, inside Faust (`app.shell.transport`), and those of benchmarks
    group_member    a worker's consumer, inside Faust
    log_reader      reads logs beside any group (`app.adapters.kafka.LogReader`)
    admin           makes topics, asks for groups' offsets
    faust           the options by which Faust itself finds and times its brokers
"""

from typing import Any, Final

from app.adapters import kafka_security
from app.settings import Settings

CLIENT_ID: Final = "instream"
"""Our name in the brokers' logs and metrics."""
REQUEST_TIMEOUT_S: Final = 20
"""Longest wait for a broker's answer; appends have a limit of their own."""
APPEND_TIMEOUT_S: Final = 30
"""Longest time that a producer tries to append a message."""
SESSION_TIMEOUT_S: Final = 6
"""A member that is silent for so long is dead. With this and the heartbeat, a killed worker's partitions are given
to others within 7 s, and a worker that joins has its own within 3 s (Kafka 4.3)."""
HEARTBEAT_S: Final = 1
REBALANCE_TIMEOUT_S: Final = 30
"""Longest time that the group waits for a member to let go of its partitions."""
MAX_POLL_INTERVAL_S: Final = 1000
"""Longest time between two polls of a live member: loading a store takes long. The watchdog has shorter limits."""
COMMIT_INTERVAL_S: Final = 1.0
POLL_S: Final = 0.2
"""Longest wait for messages. Faust polls for 1 s and lets the broker hold a fetch for 1.5 s, and all other work of the
consumer's thread or connection waits for both: recovery, commits, seeks. This value lets a worker join seconds sooner."""
BATCH_BYTES: Final = 1_000_000
"""Most that a producer puts into one batch of a partition; a larger message is a batch of its own. The clients' usual
16 KB is less than one block, and one request a block would cost the bridge twice as much as all its other work on the block.
Every topic allows batches of 1 MiB: a broker's default."""


def every_client(settings: Settings) -> dict[str, Any]:
    """The settings of every client."""
    return {"bootstrap_servers": settings.kafka, "client_id": CLIENT_ID, **kafka_security.access(settings)}


def producer(settings: Settings) -> dict[str, Any]:
    """An idempotent producer.

    Its retries neither double nor reorder, and an acknowledged message is on every replica in sync.
    """
    return every_client(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "max_batch_size": BATCH_BYTES,
        "max_request_size": settings.max_message_bytes,
        "request_timeout_ms": APPEND_TIMEOUT_S * 1000,
    }


def group_member(settings: Settings, group: str, assignor: Any) -> dict[str, Any]:
    """A worker's consumer; Faust commits for it.

    Args:
        settings: the process's.
        group: the consumer group.
        assignor: how the group shares out partitions.
    """
    return every_client(settings) | {
        "group_id": group,
        "partition_assignment_strategy": [assignor],
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": settings.max_message_bytes,
        "fetch_max_wait_ms": round(POLL_S * 1000),
        "request_timeout_ms": REQUEST_TIMEOUT_S * 1000,
        "session_timeout_ms": SESSION_TIMEOUT_S * 1000,
        "heartbeat_interval_ms": HEARTBEAT_S * 1000,
        "rebalance_timeout_ms": REBALANCE_TIMEOUT_S * 1000,
        "max_poll_interval_ms": MAX_POLL_INTERVAL_S * 1000,
    }


def log_reader(settings: Settings, fetch_max_wait_ms: int = 500) -> dict[str, Any]:
    """A consumer without a group; its user seeks it to the place to read.

    Args:
        settings: the process's.
        fetch_max_wait_ms: how long the broker may hold a fetch that finds nothing.
    """
    return every_client(settings) | {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "max_partition_fetch_bytes": settings.max_message_bytes,
        "fetch_max_wait_ms": fetch_max_wait_ms,
        "request_timeout_ms": REQUEST_TIMEOUT_S * 1000,
    }


def admin(settings: Settings, request_timeout_ms: int = REQUEST_TIMEOUT_S * 1000) -> dict[str, Any]:
    """An admin client."""
    return every_client(settings) | {"request_timeout_ms": request_timeout_ms}


def faust(settings: Settings) -> dict[str, Any]:
    """The options that Faust's own code reads; its clients are made with `producer` and `group_member`."""
    return {
        "broker": [f"kafka://{server.strip()}" for server in settings.kafka.split(",")],
        "broker_request_timeout": REQUEST_TIMEOUT_S,
        "broker_session_timeout": SESSION_TIMEOUT_S,
        "broker_commit_interval": COMMIT_INTERVAL_S,
    }
