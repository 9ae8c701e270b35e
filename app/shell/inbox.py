"""The inbox of one owned partition: a bounded queue of messages in offset order, sought back over gaps (rule E4)."""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from faust.types import TP

from app.shell.ports import ClockPorts
from app.shell.seeker import Repositions, Seeker

QUEUE_DEPTH: Final = 256
"""Most messages that wait in an inbox."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""Most bytes that wait in an inbox before one more message: a bound of a partition's memory, whatever its messages' size."""


class InboxProcess(Repositions, Protocol):
    """The process that gets a partition's messages."""

    @property
    def ports(self) -> ClockPorts:
        """Its adapters."""


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
