"""What an auditor reaches outside for."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from app.adapters.kafka import lag
from app.adapters.ports import BlockStream, ObjectStore, Registry
from app.adapters.warehouse_port import LoadedLedger
from app.clock import Clock
from app.crash.proxies import between
from app.settings import Settings
from app.shell.ports import Ports
from app.topics import topics_of

Lags = Callable[[frozenset[int]], Awaitable[Mapping[str, int]]]
"""Given partitions: role -> how many messages it has before it there. Raises OutsideError."""


class AuditPorts(NamedTuple):
    """The ports of one auditor."""

    store: ObjectStore
    registry: Registry
    stream: BlockStream
    warehouse: LoadedLedger
    lags: Lags
    clock: Clock


def real_ports(settings: Settings, ports: Ports, warehouse: LoadedLedger) -> AuditPorts:
    """The ports of a process with these adapters; asking connects, building does not."""
    topics = topics_of(settings)

    async def lags(partitions: frozenset[int]) -> Mapping[str, int]:
        behind = {}
        for role, topic in (("etl", topics.blocks.name), ("sink", topics.rows.name)):
            asked = lag(settings, f"instream-{role}-e{settings.epoch}", topic)
            of_role = await between(ports.points, "kafka.lags", asked)
            behind[role] = sum(count for partition, count in of_role.items() if partition in partitions)
        return behind

    return AuditPorts(ports.objects, ports.registry, ports.blocks, warehouse, lags, ports.clock)
