"""The stall watchdog: Faust's consumers can stop without an error; a worker that stands still ends and is restarted."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import structlog
from faust.types import TP
from mode import Service
from prometheus_client import Gauge

from app.errors import ServiceUnavailable, WorkerStalled

if TYPE_CHECKING:
    from app.shell.faust_app import InstreamApp

log = structlog.get_logger(__name__)

LAG = Gauge("instream_lag_messages", "Messages of an owned partition that are not worked on yet", ["topic", "partition"])

REBALANCE_S: Final = 60.0
"""What a rebalance may take without a sign of life: the group waits 30 s for its members, a question to the broker 20 s."""

Positions = Callable[[], Mapping[TP, int]]
"""Owned partitions and the offset that each works on next."""


class Watchdog(Service):
    """Looks whether the worker moves, and ends it where nothing has for `stall_timeout_s` seconds.

    While partitions are owned: a partition with lag (its log's end, which the broker is asked for, lies behind its position)
    whose position stands. While they are not: a rebalance or a recovery in which neither the group's generation nor any
    table's offset changes, for `REBALANCE_S` longer; Faust waits for that without end.
    """

    def __init__(self, app: "InstreamApp", stall_timeout_s: float) -> None:
        super().__init__()
        self._app = app
        self._timeout_s = stall_timeout_s
        self._sources: list[Positions] = []
        self._moved: dict[TP, tuple[int, float]] = {}
        self._measured: set[TP] = set()
        self._recovering: tuple[Hashable, float] | None = None

    def watch(self, positions: Positions) -> None:
        """Include what `positions()` says at each look."""
        self._sources.append(positions)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(min(10.0, self._timeout_s / 4))
            if not self.should_stop:
                await self.look()

    async def look(self) -> None:
        """Look once; ends the worker if it stands still."""
        progress = self._app.recovery_progress()
        if progress is not None:
            await self._look_at_recovery(progress)
        else:
            self._recovering = None
            await self._look_at_positions()

    async def _look_at_recovery(self, progress: Hashable) -> None:
        now_s = self._app.ports.clock.monotonic_s()
        self._moved.clear()  # nobody works on partitions meanwhile
        if self._recovering is None or self._recovering[0] != progress:
            self._recovering = (progress, now_s)
        elif now_s - self._recovering[1] >= REBALANCE_S + self._timeout_s:
            await self._stalled(
                f"{self._app.readiness() or 'rebalance'} without progress for {now_s - self._recovering[1]:.0f} s"
            )

    async def _look_at_positions(self) -> None:
        positions = {tp: offset for source in self._sources for tp, offset in source().items()}
        self._forget(positions)
        if not positions:
            return
        try:
            ends = await self._ends(positions)
        except ServiceUnavailable as exc:
            log.warning("broker does not say where its logs end", error=str(exc))
            return
        now_s = self._app.ports.clock.monotonic_s()
        for tp, position in positions.items():
            lag = max(0, ends[tp] - position)
            LAG.labels(tp.topic, tp.partition).set(lag)
            self._measured.add(tp)
            before, since_s = self._moved.get(tp, (None, now_s))
            if lag == 0 or before != position:
                self._moved[tp] = (position, now_s)
            elif now_s - since_s >= self._timeout_s:
                await self._stalled(
                    f"{tp.topic}[{tp.partition}] stands at {position} with {lag} waiting for {now_s - since_s:.0f} s"
                )
                return

    def _forget(self, positions: Mapping[TP, int]) -> None:
        """Partitions that are not owned any more: their last lag is somebody else's by now."""
        for tp in self._measured - positions.keys():
            LAG.remove(tp.topic, tp.partition)
            self._measured.discard(tp)
            self._moved.pop(tp, None)

    async def _stalled(self, reason: str) -> None:
        log.error("worker stalled", reason=reason)
        await self._app.crash(WorkerStalled(reason))

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
