"""The stall watchdog: Faust's consumers can stop without an error; a worker that stands still ends and is restarted."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from faust.types import TP
from mode import Service
from prometheus_client import Gauge

from app.errors import ServiceUnavailable, WorkerStalled

if TYPE_CHECKING:
    from app.shell.faust_app import InstreamApp

log = structlog.get_logger(__name__)

LAG = Gauge("instream_lag_messages", "Messages of an owned partition that are not worked on yet", ["topic", "partition"])

Positions = Callable[[], Mapping[TP, int]]
"""Owned partitions and the offset that each works on next."""


class Watchdog(Service):
    """Compares the positions of owned partitions with the log's end, which it asks the broker for.

    A partition with lag whose position has not moved for `stall_timeout_s` seconds ends the worker.
    """

    def __init__(self, app: "InstreamApp", stall_timeout_s: float) -> None:
        super().__init__()
        self._app = app
        self._timeout_s = stall_timeout_s
        self._sources: list[Positions] = []
        self._moved: dict[TP, tuple[int, float]] = {}

    def watch(self, positions: Positions) -> None:
        """Include what `positions()` says at each look."""
        self._sources.append(positions)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(min(10.0, self._timeout_s / 4))
            if not (self.should_stop or self._app.rebalancing):
                await self._look()

    async def _look(self) -> None:
        positions = {tp: offset for source in self._sources for tp, offset in source().items()}
        if not positions:
            return
        try:
            ends = await self._ends(positions)
        except ServiceUnavailable as exc:
            log.warning("broker does not say where its logs end", error=str(exc))
            return
        now = self._app.ports.clock.monotonic_s()
        for tp, position in positions.items():
            lag = max(0, ends[tp] - position)
            LAG.labels(tp.topic, tp.partition).set(lag)
            before, since = self._moved.get(tp, (None, now))
            if lag == 0 or before != position:
                self._moved[tp] = (position, now)
            elif now - since >= self._timeout_s:
                reason = f"{tp.topic}[{tp.partition}] stands at {position} with {lag} waiting for {now - since:.0f} s"
                log.error("worker stalled", reason=reason)
                await self._app.crash(WorkerStalled(reason))
                return
        self._moved = {tp: seen for tp, seen in self._moved.items() if tp in positions}

    async def _ends(self, positions: Iterable[TP]) -> dict[TP, int]:
        """Each partition's highwater."""
        logs = await self._app.logs()
        by_topic: dict[str, list[int]] = {}
        for tp in positions:
            by_topic.setdefault(tp.topic, []).append(tp.partition)
        return {
            TP(topic, partition): end
            for topic, partitions in by_topic.items()
            for partition, end in (await logs.end_offsets(topic, partitions)).items()
        }
