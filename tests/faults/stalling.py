"""Workers whose Kafka client falls silent, as Faust's do at times: `faust -A tests.faults.stalling:<role> worker`.

While the file STALL_WHEN exists, what STALL names never comes back: `commit`, `fetch`, or the `thread` of the client itself.
Nothing is raised and nothing is logged.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import app.worker
from app.shell.transport import ConsumerThread

KIND = os.environ["STALL"]
WHEN = Path(os.environ["STALL_WHEN"])


def silent(kind: str) -> bool:
    return kind == KIND and WHEN.exists()


class Stalling(ConsumerThread):
    async def _commit(self, offsets: Any) -> bool:
        if silent("commit"):
            await asyncio.Event().wait()
        return bool(await super()._commit(offsets))

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        if silent("fetch"):
            await asyncio.Event().wait()
        if silent("thread"):
            time.sleep(3600)  # noqa: ASYNC251 - that is the fault
        return await super()._fetch_records(*args, **options)


def __getattr__(role: str) -> Any:
    found = getattr(app.worker, role)
    transport = found.transport
    transport.Consumer._new_consumer_thread = lambda self: Stalling(self, loop=self.loop, beacon=self.beacon)
    return found
