"""The ports of a trace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from app.adapters.kafka import LogReader
from app.adapters.loaded_fates import WarehouseFates
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.ports import LogSearch, ObjectStore, Registry
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_login import login_of
from app.adapters.warehouse_port import LoadedFates, LoadedLedger
from app.clock import Clock, SystemClock
from app.errors import ServiceUnavailable
from app.settings import Settings

KAFKA_WITHIN_S: Final = 10
"""A trace of an event that is loaded needs Kafka for an offset only, and does not wait longer for it."""


class TracePorts(NamedTuple):
    """The services that are asked."""

    store: ObjectStore
    registry: Registry
    ledger: LoadedLedger
    fates: LoadedFates
    logs: Callable[[], Awaitable[LogSearch]]
    """Kafka's logs. Raises ServiceUnavailable."""
    clock: Clock


@asynccontextmanager
async def open_trace_ports(settings: Settings) -> AsyncIterator[TracePorts]:
    """The ports of a command. Kafka is connected to meanwhile: a trace begins with S3."""
    store, registry, login = S3ObjectStore(settings), DynamoRegistry(settings), login_of(settings)
    ledger, fates = WarehouseLedger(settings.warehouse_url, login), WarehouseFates(settings.warehouse_url, login)
    async with AsyncExitStack() as opened:
        opening = asyncio.create_task(_connect(opened, settings))

        async def logs() -> LogSearch:
            return await asyncio.shield(opening)

        try:
            yield TracePorts(store, registry, ledger, fates, logs, SystemClock())
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await ledger.close()
            await fates.close()
            await registry.close()
            await store.close()


async def _connect(opened: AsyncExitStack, settings: Settings) -> LogSearch:
    try:
        async with asyncio.timeout(KAFKA_WITHIN_S):
            return await opened.enter_async_context(LogReader(settings))
    except TimeoutError as exc:
        raise ServiceUnavailable(f"Kafka at {settings.kafka} does not answer within {KAFKA_WITHIN_S} s") from exc
