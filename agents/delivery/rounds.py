"""The loop of a delivery process between being given partitions and losing them, whatever runs it (rules D1 to D4)."""

import asyncio
from collections.abc import Callable

import structlog
from faust.types import TP

from agents.delivery.deliverer import Deliverer
from app.shell.role_process import RoleProcess
from app.topics import topics_of

log = structlog.get_logger(__name__)


class DeliveryRounds:
    """Every DELIVERY_INTERVAL_S, and sooner when `wake` is set: one round over the partitions that are owned."""

    def __init__(self, process: RoleProcess, new_deliverer: Callable[[], Deliverer]) -> None:
        self.wake = asyncio.Event()
        self._process = process
        self._new_deliverer = new_deliverer
        self._topic = topics_of(process.settings).manifests.name
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._owned: frozenset[TP] = frozenset()
        self._deliverer: Deliverer | None = None

    async def begin(self, assignment: frozenset[TP]) -> None:
        """Deliver these partitions."""
        await self.end()
        self._owned = frozenset(tp for tp in assignment if tp.topic == self._topic)
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
        deliverer = self._new_deliverer()
        self._deliverer = deliverer
        try:
            while not self._leaving.is_set():
                self.wake.clear()
                report = await deliverer.round(partitions)
                if report.deferred is None:
                    await _first(self._process.settings.delivery_interval_s, self._leaving, self.wake)
                else:
                    await _first(report.pause_s, self._leaving)
        except Exception as exc:
            log.exception("delivery failed")
            await self._process.crash(exc)  # nobody would see it otherwise
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
