"""The stall watchdog: Faust's consumers can stop without an error.

This watchdog ends a worker that stands still, and its supervisor restarts it.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import Future
from typing import Final, Protocol

import structlog
from faust.types import TP
from mode import Service
from prometheus_client import Gauge

from app.adapters.ports import Logs
from app.errors import ServiceUnavailable, WorkerStalled
from app.shell.deadline import Deadman
from app.shell.ports import ClockPorts, Crashes

log = structlog.get_logger(__name__)

LAG = Gauge("instream_lag_messages", "Messages of an owned partition that are not worked on yet", ["topic", "partition"])

REBALANCE_S: Final = 60.0
"""Longest time of a rebalance without a sign of life: the group waits 30 s for its members, a request to the broker 20 s."""
LOOP_S: Final = 60.0
"""The event loop may block for longer than other things by this time: loading a store or a large step takes long."""
BEAT_S: Final = 5.0

Positions = Callable[[], Mapping[TP, int]]
"""Owned partitions, each with its next offset to work on."""
Partitions = Callable[[], Iterable[TP]]


class WatchedProcess(Crashes, Protocol):
    """The watched worker: `app.shell.faust_app.InstreamApp`, or a simulation."""

    @property
    def ports(self) -> ClockPorts:
        """Its adapters; the times of stalls are its clock's."""

    @property
    def group(self) -> str:
        """The name of its consumer group."""

    @property
    def in_worker(self) -> bool:
        """Whether the watchdog may end the process; False in a test."""

    def readiness(self) -> str | None:
        """None if it owns its partitions and works; else the reason why it waits."""

    def recovery_progress(self) -> Hashable | None:
        """None while partitions are owned and recovered; until then a value that changes with every progress."""

    def acknowledged(self) -> Mapping[TP, int]:
        """Owned partition -> the offset behind the last message that was acknowledged here."""

    def ask_consumer(self) -> "Future[None]":
        """A future that the consumer's thread fulfils. Raises RuntimeError if that thread has ended."""

    async def logs(self) -> Logs:
        """Kafka's logs."""


class Watchdog(Service):
    """Checks whether the worker moves, and ends it after `stall_timeout_s` seconds without movement.

    While partitions are owned, each of these is a stall:

    - a partition has lag (the broker says that its log ends behind its position), and its position does not change;
    - the worker has acknowledged messages of a partition, but the group's committed offset stays before them. Messages that
      a role holds back on purpose, as the sink does until its transaction is ready, are not acknowledged;
    - a role acknowledges a partition's messages at once, but the partition has lag and its committed offset does not change.

    While partitions are not owned, a rebalance or a recovery is a stall if neither the group's generation nor any table's
    offset changes for `REBALANCE_S` longer; Faust would wait without end. At all times, a consumer's thread that does not
    answer is a stall, and so is an event loop that does not turn for `LOOP_S` longer (another thread sees that).

    A broker that does not answer is no stall of the worker: the time starts again when the broker answers.
    """

    def __init__(self, process: WatchedProcess, stall_timeout_s: float, deadman: Deadman | None = None) -> None:
        super().__init__()
        self._process = process
        self._timeout_s = stall_timeout_s
        self._deadman = deadman or Deadman()
        self._sources: list[Positions] = []
        self._prompt: list[Partitions] = []
        self._moved: dict[TP, tuple[int, float]] = {}
        self._committed: dict[TP, tuple[int, float]] = {}
        self._measured: set[TP] = set()
        self._recovering: tuple[Hashable, float] | None = None
        self._asked: tuple[Future[None], float] | None = None

    def watch(self, positions: Positions) -> None:
        """Include the answer of `positions()` at each look."""
        self._sources.append(positions)

    def watch_commits(self, partitions: Partitions) -> None:
        """Include owned partitions whose messages are acknowledged as soon as they come: no message may wait there."""
        self._prompt.append(partitions)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(min(10.0, self._timeout_s / 4))
            if not self.should_stop:
                await self.look()

    @Service.task
    async def _beat(self) -> None:
        while self._process.in_worker and not self.should_stop:  # a test's process must not end
            self._deadman.beat(self._timeout_s + LOOP_S)
            await self.sleep(BEAT_S)

    async def on_stop(self) -> None:
        """Stop watching: the app's own deadlines end a shutdown that hangs."""
        self._deadman.stop()

    async def look(self) -> None:
        """Look once; end the worker if it stands still."""
        if await self._look_at_consumer():
            return
        progress = self._process.recovery_progress()
        if progress is not None:
            await self._look_at_recovery(progress)
            return
        self._recovering = None
        try:
            if not await self._look_at_positions():
                await self._look_at_commits()
        except ServiceUnavailable as exc:
            self._moved.clear()
            self._committed.clear()
            log.warning("broker does not say where its logs end", error=str(exc))

    async def _look_at_consumer(self) -> bool:
        """Whether the consumer's thread, which fetches and commits, is dead."""
        now_s = self._now_s()
        try:
            if self._asked is None or self._asked[0].done():
                self._asked = (self._process.ask_consumer(), now_s)
        except RuntimeError as exc:  # its loop is closed
            await self._stalled(f"the consumer's thread has ended: {exc}")
            return True
        if now_s - self._asked[1] < self._timeout_s:
            return False
        await self._stalled(f"the consumer's thread has not answered for {now_s - self._asked[1]:.0f} s")
        return True

    async def _look_at_recovery(self, progress: Hashable) -> None:
        now_s = self._now_s()
        self._moved.clear()  # partitions are idle meanwhile
        self._committed.clear()
        if self._recovering is None or self._recovering[0] != progress:
            self._recovering = (progress, now_s)
        elif now_s - self._recovering[1] >= REBALANCE_S + self._timeout_s:
            await self._stalled(
                f"{self._process.readiness() or 'rebalance'} without progress for {now_s - self._recovering[1]:.0f} s"
            )

    async def _look_at_positions(self) -> bool:
        """Whether a position stands although messages wait."""
        positions = {tp: offset for source in self._sources for tp, offset in source().items()}
        self._forget(positions)
        if not positions:
            return False
        ends = await self._ends(positions)
        now_s = self._now_s()
        for tp, position in positions.items():
            lag = max(0, ends[tp] - position)
            LAG.labels(tp.topic, tp.partition).set(lag)
            self._measured.add(tp)
            stood_s = _stood_s(self._moved, tp, position, now_s, waits=lag > 0)
            if stood_s >= self._timeout_s:
                await self._stalled(
                    f"{tp.topic}[{tp.partition}] stands at {position} with {lag} waiting for {stood_s:.0f} s"
                )
                return True
        return False

    async def _look_at_commits(self) -> None:
        """End a worker if its acknowledgements do not reach the broker, or if its prompt partitions wait."""
        acknowledged = dict(self._process.acknowledged())
        prompt = {tp for partitions in self._prompt for tp in partitions()}
        if not (acknowledged or prompt):
            self._committed.clear()
            return
        logs = await self._process.logs()
        of_group = await logs.committed(self._process.group)
        firsts = await self._firsts(prompt)
        committed = {
            tp: max(firsts.get(tp, 0), of_group.get((tp.topic, tp.partition), 0)) for tp in acknowledged.keys() | prompt
        }
        wanted = acknowledged | await self._ends(prompt)
        now_s = self._now_s()
        for tp, offset in committed.items():
            stood_s = _stood_s(self._committed, tp, offset, now_s, waits=wanted[tp] > offset)
            if stood_s >= self._timeout_s:
                await self._stalled(
                    f"{tp.topic}[{tp.partition}] is committed up to {offset} and not to {wanted[tp]} for {stood_s:.0f} s"
                )
                return
        for tp in self._committed.keys() - committed.keys():
            del self._committed[tp]

    def _now_s(self) -> float:
        return self._process.ports.clock.monotonic_s()

    def _forget(self, positions: Mapping[TP, int]) -> None:
        """Remove the lag of partitions that are no longer owned: another worker reports it now."""
        for tp in self._measured - positions.keys():
            LAG.remove(tp.topic, tp.partition)
            self._measured.discard(tp)
            self._moved.pop(tp, None)

    async def _stalled(self, reason: str) -> None:
        log.error("worker stalled", reason=reason)
        await self._process.crash(WorkerStalled(reason))

    async def _ends(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Each partition's highwater."""
        logs = await self._process.logs()
        return {
            TP(topic, partition): end
            for topic, numbers in _by_topic(partitions).items()
            for partition, end in (await logs.end_offsets(topic, numbers)).items()
        }

    async def _firsts(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Each partition's earliest offset."""
        logs = await self._process.logs()
        return {
            TP(topic, partition): first
            for topic, numbers in _by_topic(partitions).items()
            for partition, first in (await logs.first_offsets(topic, numbers)).items()
        }


def _by_topic(partitions: Iterable[TP]) -> dict[str, list[int]]:
    grouped: dict[str, list[int]] = {}
    for tp in partitions:
        grouped.setdefault(tp.topic, []).append(tp.partition)
    return grouped


def _stood_s(seen: dict[TP, tuple[int, float]], tp: TP, offset: int, now_s: float, *, waits: bool) -> float:
    """The time for which `tp` was seen at `offset` while messages waited; notes the look."""
    before, since_s = seen.get(tp, (None, now_s))
    if before != offset or not waits:
        since_s = now_s
    seen[tp] = (offset, since_s)
    return now_s - since_s
