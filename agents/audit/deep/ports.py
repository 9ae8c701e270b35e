"""The ports of a deep audit."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from app.adapters.kafka import QUICK_MS, LogReader
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.loaded_rows import WarehouseRows
from app.adapters.ports import LogScan, ObjectStore, Registry
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_login import login_of
from app.adapters.warehouse_port import LoadedLedger, LoadedRows
from app.clock import Clock, SystemClock
from app.errors import ServiceUnavailable
from app.settings import Settings


class DeepPorts(NamedTuple):
    """Everything that the deep audit reads; it changes nothing."""

    store: ObjectStore
    registry: Registry
    ledger: LoadedLedger
    rows: LoadedRows
    logs: LogScan | None
    """None: Kafka does not answer, so topic `rows` is not looked at."""
    clock: Clock


@asynccontextmanager
async def open_ports(settings: Settings) -> AsyncIterator[DeepPorts]:
    """The ports on the real services; closed at the end."""
    async with AsyncExitStack() as stack:
        store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
        ledger = WarehouseLedger(settings.warehouse_url, login_of(settings))
        rows = WarehouseRows(settings.warehouse_url, login_of(settings))
        for each in (store, registry, ledger, rows):
            stack.push_async_callback(each.close)
        try:
            logs = await stack.enter_async_context(LogReader(settings, QUICK_MS))
        except ServiceUnavailable:
            logs = None
        yield DeepPorts(store, registry, ledger, rows, logs, SystemClock())
