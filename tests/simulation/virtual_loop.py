"""An event loop in which time passes only when nobody has anything to do: hours in milliseconds, the same each time."""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

TURN_S = 1e-6
"""What a turn of the loop takes: who waits until a moment, and compares it with the clock, must find it past."""


class _NoSelector(selectors.BaseSelector):
    """There is no I/O: waiting is letting time pass."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        self._wait = wait
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Only the loop's own pipe comes here; nothing is ever read from it."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[number] = key = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._wait(timeout)
        return []

    def get_map(self) -> Any:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks in the order in which they were scheduled; work for threads is done at once."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_NoSelector(self._pass))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now_s

    def _pass(self, seconds: float | None) -> None:
        if seconds is None:
            raise RuntimeError("nothing is left that could happen: every task waits for ever")
        self._now_s += max(seconds, TURN_S)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future
