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
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from faust.types import TP

from app.errors import NewerFormat
from app.shell.hooks import AssignedHook, LeavingHook, Member
from app.shell.owned_loop import crash_on_failure, finish
from app.shell.ports import ClockPorts
from app.shell.seeker import Repositions, Seeker
from app.shell.upgrade import UpgradeWaits

QUEUE_DEPTH: Final = 256
"""Most messages that wait in an inbox."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Most bytes that wait in an inbox before one more message: a bound of a partition's memory, whatever its messages' size."""


class InboxProcess(Repositions, Protocol):
    """The process that gets a partition's messages."""

    @property
    def ports(self) -> ClockPorts:
        """Its adapters."""


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


class _WaitingEvents(asyncio.Queue[Any]):
    """A queue of events with a bound of number and of bytes; None ends a wait and is no event."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self._bytes = 0

    def full(self) -> bool:
        return self._bytes >= QUEUE_BYTES or super().full()

    def peek(self) -> Any:
        """The next event; None if there is none."""
        return self._queue[0] if self._queue else None  # type: ignore[attr-defined]

    def _put(self, item: Any) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= _size(item)
        return item


def _size(event: Any) -> int:
    return 0 if event is None else len(event.value or b"")


class Inbox:
    """The messages of one owned partition, in offset order from `start_at` on."""

    def __init__(self, process: InboxProcess, tp: TP, depth: int = QUEUE_DEPTH) -> None:
        self._clock = process.ports.clock
        self._queue = _WaitingEvents(depth)
        self._unacked: deque[Any] = deque()
        self._handed_out: list[Any] = []
        self._seeker = Seeker(process, self._clock, tp)
        self.tp = tp
        self.next_offset: int | None = None
        """The offset that `take` hands out next; None before `start_at`."""
        self._done_below = 0
        self.closing = False
        self.standing = False
        """The inbox takes no more messages; the watchdog ignores it."""

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self.tp.partition

    async def start_at(self, offset: int) -> None:
        """Hand out messages from `offset` on; seeks unless the queue already begins at or before it."""
        if self.next_offset is None:
            self._done_below = offset
        self.next_offset = offset
        if self.closing:
            return  # the partition may be gone: do not seek in it
        self._unacked = deque(event for event in self._unacked if event.message.offset < offset)
        first = self._queue.peek()
        if first is None or first.message.offset > offset:
            self._discard()
            await self._seeker.seek(offset)

    async def take(self, timeout_s: float | None = None, limit: int = QUEUE_DEPTH) -> list[Any]:
        """Up to `limit` consecutive events; waits for the first one. Their values last until the next call.

        Returns: the events, or [] after `timeout_s` seconds without one (None waits for ever) and when closing.

        Raises:
            SourceGap: the next offset does not come although it was sought again and again.
        """
        if self.next_offset is None:
            raise RuntimeError("start_at comes before take")
        self._let_go()
        taken: list[Any] = []
        clock = self._clock
        until_s = None if timeout_s is None else clock.monotonic_s() + timeout_s
        while not self.closing:
            while len(taken) < limit and not self._queue.empty():
                await self._accept(self._queue.get_nowait(), taken)
            if taken:
                break
            quiet_s = await self._seeker.seek_again(self.next_offset)
            left_s = None if until_s is None else until_s - clock.monotonic_s()
            if left_s is not None and left_s <= 0:
                break
            is_last = left_s is not None and (quiet_s is None or left_s <= quiet_s)
            try:
                await self._accept(await asyncio.wait_for(self._queue.get(), left_s if is_last else quiet_s), taken)
            except TimeoutError:
                if is_last:
                    break
        self._unacked.extend(taken)
        self._handed_out = list(taken)
        return taken

    def ack(self, through: int) -> None:
        """Acknowledge every message handed out with an offset up to `through`, in order."""
        self._done_below = max(self._done_below, through + 1)
        while self._unacked and self._unacked[0].message.offset <= through:
            self._unacked.popleft().ack()

    async def put(self, event: Any) -> None:
        """Add an event; waits while the queue is full."""
        if not (self.closing or self.standing):
            await self._queue.put(event)

    async def stand(self) -> None:
        """Take no more messages: new ones are dropped, unacknowledged. Returns when closing."""
        self.standing = True
        self._discard()
        while not self.closing:
            await self._queue.get()

    def close(self) -> None:
        """Drop the waiting messages and end `take`."""
        self.closing = True
        self._discard()
        self._queue.put_nowait(None)

    def _let_go(self) -> None:
        """Drop the values that were handed out last: a message that waits for its acknowledgement needs no bytes."""
        for event in self._handed_out:
            event.value = event.message.value = None
        self._handed_out = []

    def _discard(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    async def _accept(self, event: Any, taken: list[Any]) -> None:
        """Append the event if it is the next one; drop and acknowledge it if it is older; seek back over a gap."""
        if event is None or self.next_offset is None:
            return
        offset = event.message.offset
        if offset == self.next_offset:
            taken.append(event)
            self.next_offset += 1
            self._seeker.came()
        elif offset < self.next_offset:
            if offset < self._done_below:  # else it was handed out before, and is acknowledged with that one
                event.ack()
        else:
            await self._seeker.seek_back(self.next_offset, offset)


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
