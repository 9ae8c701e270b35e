"""One warm spare of the collector, so that after a kill the next one answers in a moment, even on a busy CPU.

A new collector spends most of a CPU second on imports and AWS clients, and posting clients would wait for that. The spare is
a second process of the same command that has done this already; it listens on no port, holds no event, and takes about 100
MB of memory. Steps after a death of the collector:

1. The spare gets the signal `app.collector.standby.TURN` and is the collector from then on: it binds the ports, under its
   own pid.
2. Its pid is recorded, as at any restart. If the supervisor is killed between 1 and 2, the record names the process as the
   spare, and the next `up` or `down` ends it like all others.
3. After `SETTLE_S`, so that it takes no CPU from the recovery, the next spare is started.

A spare that is still warming up gets the signal too: it is ready sooner than a process that starts now. If no spare runs,
the collector is started like any process. The same happens if the collector must run other code than its spare does
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
"""Its name in life.json and the supervisor's log; its own output goes to the collector's log."""
SETTLE_S: Final = 0.2
"""A collector runs for this time before the next spare is started: by then a warm collector answers again."""


class Spare:
    """The spare of one kept process, and its successors."""

    def __init__(self, spec: ProcessSpec, clock: Clock, changed: Callable[[], None], settle_s: float = SETTLE_S) -> None:
        """Prepare; nothing starts before `start`.

        Args:
            spec: the kept process; its command takes `SPARE_FLAG`.
            clock: measures the lifetimes of spares.
            changed: called after the start of every spare, when `pid` is new.
            settle_s: pause after every start of the process before a spare is started.
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
        """Signal the spare that its turn has come, and hand it over; None if no spare runs, or if it runs other code."""
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
        with contextlib.suppress(ProcessLookupError):  # it died at this moment; its new keeper will see it
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
                continue  # the process was started again meanwhile: it settles first
            if self._keeper is None:
                await self._start_one()
            await self._disturbed.wait()

    async def _start_one(self) -> None:
        self._keeper = keeper = _SpareKeeper(self._spec, self._clock, self._changed, log.error)
        keeper.variables = self.variables
        try:
            await keeper.start()
        except OSError as exc:  # the machine cannot fork now: the next death of the process tries again
            log.error("spare cannot be started", error=str(exc))
            self._keeper = None


class _SpareKeeper(Keeper):
    """Starts its process with `TURN` blocked.

    The handler comes late in a start, and without it the signal would kill the process.

    Another process that starts at the same moment inherits the blocked signal too; no other process of the stack uses it.
    """

    async def _spawn(self) -> asyncio.subprocess.Process:
        signal.pthread_sigmask(signal.SIG_BLOCK, {TURN})
        try:
            return await super()._spawn()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
