"""Clients that post without a pause, and note the era of their last acknowledged event."""

import asyncio
import itertools
import time
from typing import Final

import aiohttp

from tests.worlds.waiting import HANGS_S, until

CLIENTS: Final = 4
PAUSE_S: Final = 0.01
"""Pause between two tries of an event, and between two looks at the answers."""


async def post(url: str, event_id: str) -> int:
    """Post an event to the collector at `url`. Returns: the status of its answer; 0 if there was none."""
    event = {"event_id": event_id, "event_type": "redirect", "occurred_at": time.time_ns() // 1_000_000}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HANGS_S)) as session,
            session.post(f"{url}/v1/events", json=event, headers={"X-Write-Key": "demo"}) as answer,
        ):
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


class Clients:
    """Each client posts one event after the other, and repeats each until it is acknowledged."""

    def __init__(self, url: str, name: str = "client") -> None:
        """Post to the collector at `url`; `name` begins the events' ids."""
        self._url = url
        self._name = name
        self._era = 0
        self._answered = [-1] * CLIENTS
        """For each client, the era in which it first sent its last acknowledged event."""
        self._has_ended = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Clients":
        self._tasks = [asyncio.create_task(self._post(number)) for number in range(CLIENTS)]
        await self.all_answered()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._has_ended = True
        await asyncio.gather(*self._tasks)

    async def all_answered(self) -> None:
        """Return once each client has an answer to an event that it first sent after this call."""
        self._era += 1
        await until(lambda: min(self._answered) >= self._era, PAUSE_S)

    async def _post(self, number: int) -> None:
        for count in itertools.count():
            if self._has_ended:
                return
            era = self._era
            while await post(self._url, f"{self._name}-{number}-{count}") != 200:
                await asyncio.sleep(PAUSE_S)
                era = self._era
            self._answered[number] = era
