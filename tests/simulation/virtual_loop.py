"""An event loop in which time passes only when nobody has anything to do: hours in milliseconds, the same each time."""

import asyncio
import selectors
from heapq import heappop, heappush
from typing import Any

TURN_S = 1e-6
"""What a turn of the loop takes: who waits until a moment, and compares it with the clock, must find it past."""


class GoneError(BaseException):
    """Nothing happens any more: the history is over."""


class _NoSelector(selectors.BaseSelector):
    """There is no I/O to wait for."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Only the loop's own pipe comes here; nothing is ever read from it."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[number] = key = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Any:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks in the order in which they were scheduled; work for threads is done at once.

    It keeps its timers itself: a history is tens of thousands of them, and tuples are compared without a call.
    """

    _ready: Any

    def __init__(self) -> None:
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        super().__init__(_NoSelector())

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self._timers_made += 1
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, self._timers_made, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def _run_once(self) -> None:
        """One turn: what is ready now; where nothing is, let time pass until the next timer."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        self._now_s += TURN_S
        if not ready and not self._stopping:
            if not timers:
                raise RuntimeError("nothing is left that could happen: every task waits for ever")
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            timer = heappop(timers)[2]
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future
