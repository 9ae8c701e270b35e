"""How tests wait: for a condition, never for a moment.

No wait has a deadline of its own, so none fails because the machine is busy. If a condition knows that it waits in vain (a
process ended), it raises. A wait that still hangs is given up after `HANGS_S`, with the condition's place in the traceback.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from typing import Any, Final

HANGS_S: Final = float(os.environ.get("TESTS_HANG_S", "300"))
"""Only a hang takes so long. The pytest setting `timeout` is longer: it ends a hang outside a wait."""
PAUSE_S: Final = 0.05
"""Pause between two looks at another process."""

Story = Callable[[], str]
"""The facts about a wait that was given up."""


async def until(holds: Callable[[], Any], pause_s: float = 0, story: Story = str) -> None:
    """Let the loop turn until the condition, a function or a coroutine function, holds."""
    began_s = time.monotonic()
    while not await _answer(holds):
        _insist(began_s, story)
        await asyncio.sleep(pause_s)


async def turns(count: int = 50) -> None:
    """Let the loop turn: everything that needs no more time happens."""
    for _ in range(count):
        await asyncio.sleep(0)


def eventually(holds: Callable[[], object], story: Story = str) -> None:
    """Return once the condition holds; for tests without an event loop."""
    began_s = time.monotonic()
    while not holds():
        _insist(began_s, story)
        time.sleep(PAUSE_S)


async def _answer(holds: Callable[[], Any]) -> object:
    found = holds()
    return await found if inspect.isawaitable(found) else found


def _insist(began_s: float, story: Story) -> None:
    """Do nothing until the wait hangs."""
    if time.monotonic() - began_s > HANGS_S:
        raise AssertionError(f"did not come about in {HANGS_S:g} s\n{story()}")


class LoopTime:
    """The time of an event loop under a test's control: the time and all timers stand until `pass_s` moves them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._now_s = loop.time()
        loop.time = lambda: self._now_s  # type: ignore[method-assign]

    def pass_s(self, seconds: float) -> None:
        """Let so much time pass: due timers fire in the loop's next turn."""
        self._now_s += seconds

    def go_on(self) -> None:
        """Let time pass by itself again."""
        del self._loop.time
