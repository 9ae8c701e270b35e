"""One warm spare of the collector, so that a killed one answers again in a moment even where the CPU is busy.

A new collector spends most of a CPU second on imports and AWS clients, for which clients that post would wait. The spare is
a second process of the same command that has all of this behind it; it listens on nothing, holds no event, and costs about
100 MB of memory. What happens at a death of the collector:

1. The spare is told (`app.collector.standby.TURN`) and is the collector from then on: it binds the ports, under its own pid.
2. Its pid is recorded, as at any restart. A supervisor killed between the two leaves it on record as the spare, so that the
   next `up` or `down` ends it like all the others.
3. After `SETTLE_S`, so that it takes no CPU from the recovery, the next spare is started.

A spare that is still warming up is told all the same: it has a head start over a process that would be started now. Where no
spare runs, the collector is started as any process is. So it is where the collector is to run other code than its spare does
(`app.local.stack.trees`): that spare is killed, and the next one runs the other code too.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from app.clock import Clock
from app.collector.standby import SPARE_FLAG, TURN
from app.local.stack.keeper import Keeper, ProcessSpec

log = structlog.get_logger(__name__)

SPARE: Final = "collector-spare"
"""Its name in life.json and the supervisor's log; what it says itself is in the log of the collector that it becomes."""
SETTLE_S: Final = 0.2
"""How long a collector has run before the next spare is started: the time in which a warm one is answering again."""


class Spare:
    """The spare of one kept process, and its successors."""

    def __init__(self, spec: ProcessSpec, clock: Clock, changed: Callable[[], None], settle_s: float = SETTLE_S) -> None:
        """Prepare; nothing starts before `start`.

        Args:
            spec: the process that it stands in for; its command takes `SPARE_FLAG`.
            clock: measures how long spares live.
            changed: called after the start of every spare, when `pid` is new.
            settle_s: how long it stays quiet after every start of the process.
        """
        self._spec = msgspec.structs.replace(spec, name=SPARE, command=[*spec.command, SPARE_FLAG], patience_s=3)
        self._clock = clock
        self._changed = changed
        self._settle_s = settle_s
        self.variables: Callable[[], Mapping[str, str]] = dict
        """Gives the further variables of the process that the spare stands in for (`Keeper.variables`)."""
        self._keeper: Keeper | None = None
        self._disturbed = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the spare, None while there is none."""
        return self._keeper.pid if self._keeper else None

    def start(self) -> None:
        """Keep a spare in the background until `stop`; the first starts after `settle_s`."""
        self._task = asyncio.create_task(self._replenish(), name="keep a spare")

    def take(self) -> asyncio.subprocess.Process | None:
        """The spare, told that its turn has come and no longer kept here; None where none of its code runs."""
        self._disturbed.set()
        keeper = self._keeper
        process = keeper.release() if keeper and not self._stopping else None
        if keeper is None or process is None:
            return None
        self._keeper = None
        if not keeper.is_current:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            return None
        with contextlib.suppress(ProcessLookupError):  # it died this moment, which its new keeper is about to see
            process.send_signal(TURN)
        log.info("spare takes over", process=self._spec.name, pid=process.pid)
        return process

    async def stop(self) -> None:
        """End the spare, if any; no other follows. Safe to call twice."""
        self._stopping = True
        self._disturbed.set()
        if self._task:
            await self._task
        if self._keeper:
            await self._keeper.stop()

    async def _replenish(self) -> None:
        while not self._stopping:
            self._disturbed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settle_s):
                    await self._disturbed.wait()
                continue  # started again meanwhile: that one settles first
            if self._keeper is None:
                await self._start_one()
            await self._disturbed.wait()

    async def _start_one(self) -> None:
        self._keeper = keeper = _SpareKeeper(self._spec, self._clock, self._changed, log.error)
        keeper.variables = self.variables
        try:
            await keeper.start()
        except OSError as exc:  # a machine that cannot fork now: the next death of the process leads here again
            log.error("spare cannot be started", error=str(exc))
            self._keeper = None


class _SpareKeeper(Keeper):
    """Starts its process with `TURN` blocked: without a handler for it, which comes late in a start, it would be its end.

    Another process that is started in the same moment inherits the blocked signal too; none of the stack's waits for it.
    """

    async def _spawn(self) -> asyncio.subprocess.Process:
        signal.pthread_sigmask(signal.SIG_BLOCK, {TURN})
        try:
            return await super()._spawn()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
