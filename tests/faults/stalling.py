"""Workers for whose watchdog time passes when a test says so: `faust -A tests.faults.stalling:<role> worker`.

WATCH is a folder. The file `now_s` in it is the watchdog's time, which stands until the file is replaced; `seen_s` has the
last one that the watchdog saw. While the file `silent` exists, what STALL names never comes back from Kafka's client, as
happens to Faust's at times: `commit`, `fetch`, or the `thread` of the client itself. Nothing is raised, nothing is logged.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import app.worker
from app.local.stack.life import replace_file
from app.shell.transport import ConsumerThread
from tests.worlds.waiting import PAUSE_S, until

KIND = os.environ.get("STALL")
MODULE = "tests.faults.stalling"
SETTINGS = {
    "INSTREAM_STALL_TIMEOUT_S": "4",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
}
"""A look every second, a quarter of what may stand still, in real time."""
LONG_S = 1000
"""Much longer than anything may stand still."""


class Watch:
    """A watchdog's time and its client's silence, as a test decides them in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._now, self._seen, self._silent = (folder / name for name in ("now_s", "seen_s", "silent"))

    # --- the test's side

    def pass_s(self, seconds: float = LONG_S) -> None:
        """Let time pass for the watchdog."""
        replace_file(self._now, str(self.now_s() + seconds).encode())

    async def look_long(self) -> None:
        """Return once the watchdog has looked so often, and so much later, that it must have ended what stands still.

        A stall begins at its first look; when it sees the third time, its look at the second is over.
        """
        for seconds in (LONG_S, LONG_S, 1):
            self.pass_s(seconds)
            await until(lambda: self._seen.exists() and float(self._seen.read_text()) == self.now_s(), PAUSE_S)

    def fall_silent(self) -> None:
        """Let the client be silent from now on."""
        self._silent.touch()

    def answer(self) -> None:
        """Let the next client answer."""
        self._silent.unlink()

    # --- the worker's side

    def now_s(self) -> float:
        """The time."""
        return float(self._now.read_text()) if self._now.exists() else 0.0

    def look(self) -> float:
        """The time, and a note that it was seen."""
        now_s = self.now_s()
        replace_file(self._seen, str(now_s).encode())
        return now_s

    def is_silent(self, kind: str) -> bool:
        """Whether what `kind` names does not come back now."""
        return kind == KIND and self._silent.exists()


class Stalling(ConsumerThread):
    """A client that falls silent."""

    async def _commit(self, offsets: Any) -> bool:
        if watch().is_silent("commit"):
            await asyncio.Event().wait()
        return bool(await super()._commit(offsets))

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        if watch().is_silent("fetch"):
            await asyncio.Event().wait()
        if watch().is_silent("thread"):
            time.sleep(3600)  # noqa: ASYNC251 - that is the fault
        return await super()._fetch_records(*args, **options)


def watch() -> Watch:
    """This worker's."""
    return Watch(Path(os.environ["WATCH"]))


def __getattr__(role: str) -> Any:
    found = getattr(app.worker, role)
    transport = found.transport
    transport.Consumer._new_consumer_thread = lambda self: Stalling(self, loop=self.loop, beacon=self.beacon)
    found.watchdog._now_s = watch().look
    return found
