"""Asks each service that the roles stand on, all at once and each for a short time."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from agents.audit.status.roles import read_page
from app.adapters.kafka import QUICK_MS, LogReader
from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.adapters.warehouse import ask, connect
from app.adapters.warehouse_login import login_of
from app.core.delivery.schema_found import lacking, tables_of
from app.core.delivery.statements import COLUMNS, Statement
from app.core.status.seen import ProcessSeen, ServiceSeen
from app.errors import InstreamError
from app.settings import Settings
from app.topics import topics_of

ANSWER_S: Final = 1.0
AGAIN_S: Final = 2.0
"""A service that does not answer in `ANSWER_S` is asked once more, for so long: the machine may be busy."""
NO_BATCH: Final = "status-probe"
"""No batch has this id."""
BEHIND: Final = {"s3": "aws", "registry": "aws", "kinesis": "aws", "warehouse": "postgres"}
"""Service -> the process of the local stack that it cannot do without."""

Ask = Callable[[], Awaitable[str | None]]
"""Asks a service once; the fault in its answer, None if there is none."""


class AskedServices(NamedTuple):
    """The clients of the services, which other questions use too."""

    store: ObjectStore
    registry: Registry
    stream: BlockStream


async def ask_services(
    settings: Settings, clients: AskedServices, processes: Mapping[str, ProcessSeen], postgres: str = ""
) -> tuple[ServiceSeen, ...]:
    """Whether each service answers as it must.

    Args:
        settings: of the pipeline.
        clients: of AWS.
        processes: of the local stack; a service whose process is gone or frozen is not asked.
        postgres: host and port of the engine behind the local warehouse; empty elsewhere.
    """
    asks: dict[str, Ask] = {
        "kafka": lambda: _kafka(settings),
        "s3": lambda: _s3(clients.store),
        "registry": lambda: _registry(clients.registry),
        "kinesis": lambda: _kinesis(clients.stream),
        "warehouse": lambda: _warehouse(settings),
    }
    if "aws" in processes:
        asks["aws"] = _aws
    if postgres and "postgres" in processes:
        asks["postgres"] = lambda: _postgres(postgres)
    dead = {name for name, process in processes.items() if process.pid is None or process.is_frozen}
    first: list[str] = [name for name in ("aws", "postgres") if name in asks]
    seen = dict(zip(first, await _ask_all(first, asks, dead), strict=True))
    dead |= {name for name, fault in seen.items() if fault is not None}
    others = [name for name in asks if name not in first]
    seen |= dict(zip(others, await _ask_all(others, asks, dead), strict=True))
    return tuple(ServiceSeen(name=name, fault=seen[name], process=processes.get(name)) for name in [*first, *others])


async def _ask_all(names: Sequence[str], asks: Mapping[str, Ask], dead: set[str]) -> list[str | None]:
    async def one(name: str) -> str | None:
        if name in dead:
            return "its process does not answer"
        if BEHIND.get(name) in dead:
            return f"{BEHIND[name]} does not answer"
        return await _ask(asks[name])

    return list(await asyncio.gather(*(one(name) for name in names)))


async def _ask(ask: Ask) -> str | None:
    fault: str | None = None
    for limit_s in (ANSWER_S, AGAIN_S):
        try:
            async with asyncio.timeout(limit_s):
                return await ask()
        except TimeoutError:
            fault = f"no answer in {limit_s:.0f} s"
        except (InstreamError, OSError) as exc:
            fault = " ".join(str(exc).split())[:300]
    return fault


async def _aws() -> str | None:
    """The local stand-in for S3, DynamoDB and Kinesis."""
    page = await read_page(os.environ["AWS_ENDPOINT_URL"] + "/moto-api/health")
    if not page.status:
        raise TimeoutError
    return None if page.status < 400 else f"it answers {page.status}"


async def _kafka(settings: Settings) -> str | None:
    topics = topics_of(settings)
    async with LogReader(settings, QUICK_MS) as logs:
        for topic in (topics.blocks, topics.rows):
            found = len(await logs.partitions(topic.name))
            if found != topic.partitions:
                return f"topic {topic.name} has {found} partitions, the settings say {topic.partitions}"
        await logs.end_offsets(topics.blocks.name, range(topics.blocks.partitions))
    return None


async def _s3(store: ObjectStore) -> str | None:
    async for _ in store.list("transactions/", limit=1):
        break
    return None


async def _registry(registry: Registry) -> str | None:
    await registry.get(NO_BATCH)
    return None


async def _kinesis(stream: BlockStream) -> str | None:
    return None if await stream.shards() else "the stream has no shard"


async def _warehouse(settings: Settings) -> str | None:
    """Whether it answers and has what a load writes (rule D5).

    A load holds a lock, and the description of a locked table waits for it: then nothing is said of the columns.
    """
    connection = await connect(settings.warehouse_url, login_of(settings))
    try:
        await ask(connection, Statement("SELECT 1"))
        try:
            async with asyncio.timeout(ANSWER_S / 2):
                return lacking(tables_of(await ask(connection, COLUMNS)))
        except TimeoutError:
            return None
    finally:
        await connection.close()


async def _postgres(address: str) -> str | None:
    """The engine behind the local warehouse: it answers a request for TLS with one byte."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write((8).to_bytes(4) + (80877103).to_bytes(4))  # SSLRequest. Source: PostgreSQL, "Message Formats"
        return None if await reader.read(1) else "it closes new connections"
    finally:
        writer.close()
