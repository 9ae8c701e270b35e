"""The ports of an auditor."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from app.adapters.kafka import lag
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.adapters.warehouse_login import login_of
from app.adapters.warehouse_port import LoadedLedger
from app.clock import Clock
from app.crash.proxies import around, between
from app.shell.outside_calls import noted
from app.shell.ports import Ports
from app.topics import topics_of

LIMITS_S: Final = {"entries": 120.0, "delivery": 120.0}
"""The ledger is large, and a load holds the lock on delivery_log."""
Lags = Callable[[frozenset[int]], Awaitable[Mapping[str, int]]]
"""Given partitions, returns role -> its number of waiting messages there. Raises OutsideError."""


class AuditPorts(NamedTuple):
    """The ports of one auditor."""

    store: ObjectStore
    registry: Registry
    stream: BlockStream
    warehouse: LoadedLedger
    lags: Lags
    clock: Clock


@asynccontextmanager
async def open_ports(ports: Ports) -> AsyncIterator[AuditPorts]:
    """The ports of an auditor in a process with these adapters. A call connects; the warehouse is closed at the end."""
    settings = ports.settings
    topics = topics_of(settings)

    async def lags(partitions: frozenset[int]) -> Mapping[str, int]:
        behind = {}
        for role, topic in (("etl", topics.blocks.name), ("sink", topics.rows.name)):
            asked = lag(settings, f"instream-{role}-e{settings.epoch}", topic)
            with ports.calls.during("kafka", "lag"):
                of_role = await between(ports.points, "kafka.lags", asked)
            behind[role] = sum(count for partition, count in of_role.items() if partition in partitions)
        return behind

    ledger = around(ports.points, "ledger", WarehouseLedger(settings.warehouse_url, login_of(settings)))
    warehouse = noted(ports.calls, "warehouse", ledger, LIMITS_S)
    try:
        yield AuditPorts(ports.objects, ports.registry, ports.blocks, warehouse, lags, ports.clock)
    finally:
        await warehouse.close()
