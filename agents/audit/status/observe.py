"""Looks at a whole pipeline from outside, in parallel and in bounded time: whoever is frozen holds nobody else up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final, NamedTuple, TypeVar

import msgspec

from agents.audit.stages.stages import StagePorts
from agents.audit.status.freshness import FreshLook, FreshPorts
from agents.audit.status.roles import ask_alarms, ask_roles
from agents.audit.status.services import BEHIND, AskedServices, ask_services
from app.adapters.kafka import QUICK_MS, LogReader
from app.adapters.kinesis import KinesisBlockStream
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_login import login_of
from app.clock import Clock
from app.core.status.judge import StatusLimits
from app.core.status.seen import Freshness, Installation, Seen, Worker
from app.errors import InstreamError
from app.settings import Settings

LOOK_S: Final = 5.0
"""Longest time of each look at the data's way."""

T = TypeVar("T")


class Observed(NamedTuple):
    """What was seen."""

    seen: Seen
    is_held_up: bool
    """Calls without an answer are still under way in threads: the process must not wait for them."""


def limits_of(settings: Settings, healthy_s: float) -> StatusLimits:
    """What is normal with these settings; a process that ran `healthy_s` has recovered from its deaths."""
    usual_s = {
        "bridge": 3.0,
        "etl": 5.0,
        "sink": settings.commit_interval_s + 3.0,
        "delivery": settings.delivery_interval_s + 3.0,
    }
    return StatusLimits(settings.freshness_s, usual_s, healthy_s)


def elsewhere(settings: Settings) -> Installation:
    """The workers that ROLE_URLS names."""
    return Installation([Worker(role, url) for role, _, url in (entry.partition("=") for entry in settings.role_urls)])


async def observe(settings: Settings, place: Installation, clock: Clock) -> Observed:
    """Look at the pipeline.

    Args:
        settings: lead to its services.
        place: where it runs.
        clock: tells now.
    """
    processes = place.services
    async with AsyncExitStack() as stack:
        store, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
        warehouse = WarehouseLedger(settings.warehouse_url, login_of(settings))
        stack.push_async_callback(warehouse.close)
        for each in (store, registry, stream):
            stack.push_async_callback(each.close)
        look = _DataLook(settings, {name for name, one in processes.items() if one.pid is None or one.is_frozen})
        clients = AskedServices(store, registry, stream)
        now_ms = clock.now_ms()
        roles, alarms, services, (freshness, lags) = await asyncio.gather(
            ask_roles(place.workers),
            ask_alarms(place.workers),
            ask_services(settings, clients, processes, place.postgres),
            look.at_data(stack, clients, warehouse, now_ms),
        )
        faulty = any(service.fault is not None and "instream init" not in service.fault for service in services)
    lost = freshness.lost + sum(alarms.values())
    seen = Seen(
        now_ms=now_ms, is_local=place.is_local, roles=roles, services=services, lags_s=lags,
        freshness=msgspec.structs.replace(freshness, lost=lost), unread=() if faulty else tuple(look.unread),
        stack_state=place.state, stack_failure=place.failure,
    )  # fmt: skip
    return Observed(seen, look.is_held_up or faulty)


class _DataLook:
    """The looks that need services: each in its time, and none at a service whose process is known to be of no use."""

    def __init__(self, settings: Settings, dead: set[str]) -> None:
        self.unread: list[str] = []
        self.is_held_up = False
        self._settings = settings
        self._dead = dead | {service for service, process in BEHIND.items() if process in dead}

    def _answer(self, *names: str) -> bool:
        return not self._dead & set(names)

    async def at_data(
        self, stack: AsyncExitStack, clients: AskedServices, warehouse: WarehouseLedger, now_ms: int
    ) -> tuple[Freshness, Mapping[str, float]]:
        """How far the warehouse is complete, and the lags of the stages; as well as both can be known."""
        reader = LogReader(self._settings, QUICK_MS)
        ports = FreshPorts(StagePorts(clients.store, warehouse, reader), clients.registry)
        fresh = FreshLook(ports, self._settings, now_ms)
        is_whole = self._answer("kafka", "s3", "warehouse", "registry") and (
            await self._within("topics", lambda: stack.enter_async_context(reader)) is not None
        )
        if is_whole:
            return await asyncio.gather(self._freshness(fresh, with_stages=True), self._lags(fresh))
        return await self._freshness(fresh, with_stages=False), {}

    async def _freshness(self, fresh: FreshLook, *, with_stages: bool) -> Freshness:
        if not self._answer("registry"):
            return Freshness()
        found = None
        if self._answer("warehouse"):
            found = await self._within("completeness", lambda: fresh.freshness(with_stages=with_stages))
        return found or await self._within("the oldest open batch", fresh.bound) or Freshness()

    async def _lags(self, fresh: FreshLook) -> Mapping[str, float]:
        return await self._within("the stages' lags", fresh.lags_s) or {}

    async def _within(self, what: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer, or None with a note."""
        try:
            async with asyncio.timeout(LOOK_S):
                return await ask()
        except TimeoutError:
            self.is_held_up = True
            self.unread.append(f"{what} could not be read in {LOOK_S:.0f} s")
        except InstreamError as exc:
            self.unread.append(f"{what} could not be read: {' '.join(str(exc).split())[:300]}")
        return None
