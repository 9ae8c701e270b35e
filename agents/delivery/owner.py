"""The work of an owner of delivery's partitions from assignment to revoke, under Faust or in a simulation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from agents.delivery.deliverer import Deliverer
from app.shell.owned_loop import OwnedLoop
from app.shell.ports import RoleProcess
from app.topics import topics_of


class DeliveryRounds:
    """Round after round over some partitions: every `interval_s`, or sooner, or once a deferral's pause is over."""

    def __init__(self, deliverer: Deliverer, partitions: Sequence[int], interval_s: float) -> None:
        self._deliverer = deliverer
        self._partitions = partitions
        self._interval_s = interval_s
        self._sooner = asyncio.Event()
        self._leaving = asyncio.Event()

    def look_sooner(self) -> None:
        """Begin the next round at once, unless a deferral's pause has to pass first."""
        self._sooner.set()

    def stop(self) -> None:
        """Make `run` return after the round in hand."""
        self._leaving.set()

    def waits_for(self) -> str | None:
        """The reason why the last round left something unloaded; None if it did not."""
        failure = self._deliverer.deferred
        return None if failure is None else f"warehouse, {failure.reason}: {failure.detail[:200]}"

    async def run(self) -> None:
        """Deliver until `stop`."""
        while not self._leaving.is_set():
            self._sooner.clear()
            report = await self._deliverer.round(self._partitions)
            if report.deferred is None:
                await _first(self._interval_s, self._leaving, self._sooner)
            else:
                await _first(report.pause_s, self._leaving)


class DeliveryOwner(OwnedLoop[DeliveryRounds]):
    """The rounds of one process: over the partitions of `manifests` that it owns, each time with a deliverer of its own.

    A load in hand when partitions go may finish. One that takes too long is cancelled, and the warehouse rolls it back.
    """

    def __init__(self, process: RoleProcess, new_deliverer: Callable[[], Deliverer]) -> None:
        self._interval_s = process.settings.delivery_interval_s
        self._new_deliverer = new_deliverer
        topic = topics_of(process.settings).manifests
        super().__init__(process, topic, self._open_rounds, DeliveryRounds.run, DeliveryRounds.stop)

    def look_sooner(self) -> None:
        """Begin the next round at once, if there are rounds."""
        if self.worker is not None:
            self.worker.look_sooner()

    def waits_for(self) -> str | None:
        """The reason why the last round left something unloaded; None if it did not, or if there are no rounds."""
        return None if self.worker is None else self.worker.waits_for()

    @asynccontextmanager
    async def _open_rounds(self, partitions: list[int]) -> AsyncIterator[DeliveryRounds]:
        deliverer = self._new_deliverer()
        try:
            yield DeliveryRounds(deliverer, partitions, self._interval_s)
        finally:
            await deliverer.close()


async def _first(timeout_s: float, *events: asyncio.Event) -> None:
    """Return when one of `events` is set, or after `timeout_s`."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
