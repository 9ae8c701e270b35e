"""The traffic that the stack gets for as long as a drill lasts."""

import asyncio
import time
from typing import Final

from app.errors import LocalStackError
from app.local.stack.stack_file import Stack
from app.local.traffic.run import TrafficPlan, TrafficRun, run_traffic
from tests.rig.upgrade.newer_events import NewerRun, send_newer
from tests.worlds.waiting import HANGS_S

MOST_EVENTS: Final = 10_000_000
"""No drill lasts so long."""


class Load:
    """The traffic while the steps are made."""

    def __init__(self, stack: Stack, rate: float, *, sends_newer: bool) -> None:
        """Prepare to send.

        Args:
            stack: where to.
            rate: lines a second.
            sends_newer: send events of the type, too, that only the newer version knows.
        """
        self._stack = stack
        self._rate = rate
        self._sends_newer = sends_newer
        self._has_ended = False
        self.began_s = self.ended_s = time.time()
        self._traffic: asyncio.Task[TrafficRun] | None = None
        self._newer: asyncio.Task[NewerRun] | None = None

    def start(self) -> None:
        """Begin."""
        self.began_s = time.time()
        terms = TrafficPlan(events=MOST_EVENTS, rate=self._rate, keep_bodies=True, patience_s=HANGS_S)
        self._traffic = asyncio.create_task(run_traffic(self._stack, terms, None, self._ask))
        if self._sends_newer:
            self._newer = asyncio.create_task(send_newer(self._stack.collector_url, self._ask))

    def check(self) -> None:
        """Raise the error that ended the load before its time, if any."""
        for task in (self._traffic, self._newer):
            if task is not None and task.done():
                task.result()

    async def end(self) -> tuple[TrafficRun, NewerRun | None]:
        """Begin no more stories, and send the rest of those that began. Returns: everything that was sent."""
        self._has_ended, self.ended_s = True, time.time()
        if self._traffic is None:
            raise LocalStackError("the load was not started")
        return await self._traffic, await self._newer if self._newer else None

    async def cancel(self) -> None:
        """End at once."""
        for task in (self._traffic, self._newer):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    def _ask(self) -> bool:
        return self._has_ended
