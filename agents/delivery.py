"""Delivery: what lies ready in S3 becomes rows of the warehouse (rules D1 to D4).

One loop a worker, over the partitions of `manifests` that it owns: every DELIVERY_INTERVAL_S, and sooner when a message
comes. A message says no more than "look"; what is loaded is decided by the chains in S3 and delivery_log.
"""

import asyncio
from functools import partial
from typing import Any

import structlog
from faust.types import TP

from agents.deliverer import Deliverer
from agents.warehouse_load import WarehouseLoad
from app.adapters.warehouse import open_session
from app.apps import delivery as app
from app.crash.proxies import connecting
from app.topics import topics_of

log = structlog.get_logger(__name__)

topics = topics_of(app.settings)
manifests = app.source_topic(topics.manifests.name, topics.manifests.partitions)


class Rounds:
    """The loop of this worker, between being given partitions and losing them."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._owned: frozenset[TP] = frozenset()
        self._deliverer: Deliverer | None = None

    async def begin(self, assignment: frozenset[TP]) -> None:
        """Deliver these partitions."""
        await self.end()
        self._owned = frozenset(tp for tp in assignment if tp.topic == topics.manifests.name)
        if self._owned:
            self._leaving.clear()
            self._task = asyncio.ensure_future(self._loop(sorted(tp.partition for tp in self._owned)))

    async def end(self) -> None:
        """Stop after the load in hand; one that takes too long is cancelled, and the warehouse rolls it back."""
        task, self._task, self._owned = self._task, None, frozenset()
        if task is None:
            return
        self._leaving.set()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()

    def owned(self) -> frozenset[TP]:
        """The partitions that are delivered."""
        return self._owned

    def waits_for(self) -> str | None:
        """Why the last round left something unloaded; None when it did not."""
        failure = self._deliverer.deferred if self._deliverer is not None else None
        return None if failure is None else f"warehouse, {failure.reason}: {failure.detail[:200]}"

    async def _loop(self, partitions: list[int]) -> None:
        settings, store, clock = app.settings, app.ports.objects, app.ports.clock
        to_warehouse = partial(open_session, settings.warehouse_url, settings.copy_iam_role)
        connect = connecting(app.ports.points, "warehouse", to_warehouse)
        deliverer = Deliverer(store, WarehouseLoad(store, connect, settings, clock), settings, clock)
        self._deliverer = deliverer
        try:
            while not self._leaving.is_set():
                self.wake.clear()
                report = await deliverer.round(partitions)
                if report.deferred is None:
                    await _first(settings.delivery_interval_s, self._leaving, self.wake)
                else:
                    await _first(report.pause_s, self._leaving)
        except Exception as exc:
            log.exception("delivery failed")
            await app.crash(exc)  # nobody would see it otherwise
        finally:
            if self._deliverer is deliverer:  # a loop that was cancelled may end after its successor began
                self._deliverer = None
            await deliverer.close()


async def _first(timeout_s: float, *events: asyncio.Event) -> None:
    """Return when one of `events` is set, or after `timeout_s`."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


rounds = Rounds()
app.when_assigned(rounds.begin)
app.when_leaving(rounds.end)
app.watchdog.watch_commits(rounds.owned)
app.ready_when(rounds.waits_for)


@app.agent(manifests)  # type: ignore[untyped-decorator]
async def look_sooner(stream: Any) -> None:
    """Wake the loop; the message is done with at once, for the walk does not depend on it."""
    async for _ in stream:
        rounds.wake.set()
