"""One task and one small bounded queue for each owned partition: etl and sink take their input in this way.

How a role uses it (the agent only dispatches; `work` is called once a partition and assignment, and returns when its inbox
is closing):

    runners = PartitionRunners(app, topics.blocks.name, work)

    @app.agent(blocks)
    async def etl(stream):
        async for event in stream.noack().events():
            await runners.give(event)

    async def work(inbox: Inbox) -> None:
        await inbox.start_at(offset)                    # the first offset it wants; seeks if need be
        while not inbox.closing:
            for event in await inbox.take(timeout_s=1): # [] on timeout or when closing
                ...                                     # event.message.offset, .timestamp (s), event.value (bytes)
            inbox.ack(through=offset)                   # in offset order, only what is durable

Guarantees: `take` hands out exactly the offsets from `start_at` on, each once, no gap: an older message is dropped, and
acknowledged if its result is durable; over a gap the partition is sought back (rule E4). Runners start for every owned
partition, idle ones too, after recovery. On revoke and stop every inbox closes: its waiting messages are dropped, the work
in flight may finish (the app bounds that), and unacknowledged messages come again to the next owner. An exception in `work`
ends the worker (rule E6); NewerFormat makes its partition wait for an upgrade while the others go on (rule E10).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from faust.types import TP

from app.errors import NewerFormat
from app.shell.hooks import AssignedHook, LeavingHook, Member
from app.shell.inbox import QUEUE_DEPTH, Inbox, InboxProcess
from app.shell.owned_loop import crash_on_failure, finish
from app.shell.upgrade import UpgradeWaits


class Watches(Protocol):
    """The watchdog that sees whether partitions move: `app.shell.watchdog.Watchdog`."""

    def watch(self, positions: Callable[[], Mapping[TP, int]]) -> None:
        """Include the answer of `positions()` at each look."""


class RunnersProcess(InboxProcess, Member, Protocol):
    """The process that owns the partitions: `app.shell.faust_app.InstreamApp`, or a simulation."""

    @property
    def role(self) -> str:
        """The role of the process."""

    @property
    def watchdog(self) -> Watches:
        """The watchdog that ends the process when a partition stands still."""

    def when_assigned(self, hook: AssignedHook) -> object:
        """Call `hook(assignment)` each time partitions are owned and recovered."""

    def when_leaving(self, hook: LeavingHook) -> object:
        """Call `hook()` before partitions are lost."""

    def ready_when(self, check: Callable[[], str | None]) -> None:
        """Let /ready ask `check` too."""


Work = Callable[[Inbox], Awaitable[None]]


class PartitionRunners:
    """Starts `work` for every owned partition of one topic, feeds it, and ends it in good order."""

    def __init__(self, process: RunnersProcess, topic: str, work: Work, depth: int = QUEUE_DEPTH) -> None:
        self._process = process
        self._topic = topic
        self._work = work
        self._depth = depth
        self._inboxes: dict[int, Inbox] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._upgrades = UpgradeWaits(process.role)
        process.when_assigned(self._on_assigned)
        process.when_leaving(self.drain)
        process.watchdog.watch(self.positions)
        process.ready_when(self._readiness)

    async def give(self, event: Any) -> None:
        """Queue a message for its partition; one of an older generation of the group is dropped, unacknowledged."""
        message = event.message
        if self._process.is_current(message.generation_id):
            await self._inbox(message.tp).put(event)

    def positions(self) -> dict[TP, int]:
        """Owned partitions and the offset that each takes next, without those that wait for an upgrade."""
        going = [inbox for inbox in self._inboxes.values() if not inbox.standing]
        return {inbox.tp: inbox.next_offset for inbox in going if inbox.next_offset is not None}

    async def drain(self) -> None:
        """Close every inbox and wait for the work in flight."""
        inboxes, tasks = list(self._inboxes.values()), list(self._tasks.values())
        self._inboxes.clear()
        self._tasks.clear()
        for inbox in inboxes:
            inbox.close()
        await finish(tasks)

    def _inbox(self, tp: TP) -> Inbox:
        if tp.partition not in self._inboxes:
            self._inboxes[tp.partition] = Inbox(self._process, TP(tp.topic, tp.partition), self._depth)
        return self._inboxes[tp.partition]

    async def _on_assigned(self, assignment: frozenset[TP]) -> None:
        for tp in sorted(assignment):
            if tp.topic == self._topic and tp.partition not in self._tasks:
                work = partial(self._run, self._inbox(tp))
                running = crash_on_failure(self._process, work, topic=tp.topic, partition=tp.partition)
                self._tasks[tp.partition] = asyncio.ensure_future(running)

    def _readiness(self) -> str | None:
        if (reason := self._upgrades.reason()) is not None:
            return reason
        loading = sorted(partition for partition in self._tasks if self._inboxes[partition].next_offset is None)
        return f"loading partitions {loading}" if loading else None

    async def _run(self, inbox: Inbox) -> None:
        await self._work_or_wait(inbox)
        if not inbox.closing:
            raise RuntimeError(f"the work on {inbox.tp} ended although it is still owned")

    async def _work_or_wait(self, inbox: Inbox) -> None:
        """Work. If a newer version's bytes are next, wait until the partition is lost or the process upgraded."""
        try:
            await self._work(inbox)
        except NewerFormat as exc:
            place = f"{inbox.tp.topic}[{inbox.partition}]"
            self._upgrades.begin(place, exc)
            try:
                await inbox.stand()
            finally:
                self._upgrades.end(place)
