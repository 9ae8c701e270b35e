"""Keeps one process running: starts it, sees it die, starts it again."""

import asyncio
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from app.clock import Clock
from app.core.backoff import Backoff
from app.core.status.seen import ProcessDeath
from app.crash import points as crash_points

log = structlog.get_logger(__name__)

AT_ONCE: Final = 3
"""Deaths in a row that are answered without delay."""
BACKOFF: Final = Backoff(first_s=1.0, longest_s=30.0)
"""Delays after further deaths."""
REMEMBERED: Final = 20
"""Deaths of a process that are kept for `instream status`."""
HEALTHY_S: Final = 60.0
"""A process that ran this long has recovered: its earlier deaths are forgotten."""


class Deaths:
    """The deaths of a process and the delays of its restarts; uses no clock and no process.

    Args:
        healthy_s: A process that ran this long has recovered: its earlier deaths are forgotten.
    """

    def __init__(self, healthy_s: float = HEALTHY_S) -> None:
        self.in_a_row = 0
        self._healthy_s = healthy_s

    def delay_after(self, lived_s: float, code: int = 1) -> float:
        """Seconds to wait after a death of a process that ran `lived_s` seconds and ended with `code`.

        A planned death (`app.crash.points`) proves nothing about the process's health, and does not count.
        """
        if code == crash_points.EXIT_CODE:
            return 0.0
        self.in_a_row = 1 if lived_s >= self._healthy_s else self.in_a_row + 1
        return BACKOFF.pause_s(self.in_a_row - AT_ONCE)


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    """Its working directory."""
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    patience_s: float = 15.0
    """Longest time for its end; then it is killed."""
    healthy_s: float = HEALTHY_S
    """After this time its earlier deaths are forgotten (`Deaths`)."""
    fatal: bool = False
    """A restart does not help after its death."""


class Keeper:
    """One process and its restarts.

    The process has /dev/null as its input and its log as both outputs, and inherits no other open file. Every death is seen
    at once, with any exit code or signal.
    """

    def __init__(self, spec: ProcessSpec, clock: Clock, changed: Callable[[], None], lost: Callable[[str], None]) -> None:
        """Keep the process of `spec`.

        Args:
            spec: the process.
            clock: measures the process's lifetime.
            changed: called after every start, when `pid` is new.
            lost: called with the reason if a fatal process died or the process cannot be kept; it is not started again.
        """
        self.spec = spec
        self.deaths = Deaths(spec.healthy_s)
        self.restarts = 0
        self.last_deaths: deque[ProcessDeath] = deque(maxlen=REMEMBERED)
        """The last deaths, the oldest first."""
        self.died: Callable[[], None] = lambda: None
        """Called after a death, before the next start."""
        self.successor: Callable[[], asyncio.subprocess.Process | None] = lambda: None
        """Gives a running process as the successor after a death; None if a new one must be started."""
        self.variables: Callable[[], Mapping[str, str]] = dict
        """Gives further variables of the environment; the keeper asks before every start, because they may have changed."""
        self._variables: Mapping[str, str] = {}
        self._clock = clock
        self._changed = changed
        self._lost = lost
        self._process: asyncio.subprocess.Process | None = None
        self._spawning = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the process, None while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def is_current(self) -> bool:
        """Whether the process would be started in the same way now."""
        return self._variables == self.variables()

    async def start(self) -> None:
        """Start the process, then keep it in the background until `stop`."""
        self._process = process = await self._spawn()
        self._changed()
        self._task = asyncio.create_task(self._keep_or_tell(process), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """End the process: send its stop signal, and SIGKILL after its patience. Safe to call twice."""
        self._stopping.set()
        async with self._spawning:
            process = self._process
        if process and process.returncode is None:
            self._send(process, self.spec.stop_signal)
            try:
                async with asyncio.timeout(self.spec.patience_s):
                    await process.wait()
            except TimeoutError:
                log.warning("process does not end, killing it", process=self.spec.name, pid=process.pid)
                self._send(process, signal.SIGKILL)
                await process.wait()
        if self._task:
            await self._task

    def release(self) -> asyncio.subprocess.Process | None:
        """Hand the running process to the caller, who keeps it from now on. None if it does not run."""
        process = self._process
        if process is None or process.returncode is not None or self._task is None or self._stopping.is_set():
            return None
        self._stopping.set()
        self._task.cancel()
        self._process = self._task = None
        return process

    async def _keep_or_tell(self, process: asyncio.subprocess.Process) -> None:
        """Keep the process; report an error in this task, because then the process is no longer restarted."""
        try:
            await self._keep(process)
        except Exception as exc:
            log.exception("process is not kept any more", process=self.spec.name)
            self._lost(f"{self.spec.name} is not kept any more: {exc!r}")

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        while True:
            since = self._clock.monotonic_s()
            code = await process.wait()
            if self._stopping.is_set():
                return
            lived_s = self._clock.monotonic_s() - since
            log.warning("process died", process=self.spec.name, code=code, lived_s=round(lived_s, 1))
            self.last_deaths.append(ProcessDeath(self._clock.now_ms(), describe_exit(code), round(lived_s, 1)))
            if self.spec.fatal:
                self._lost(f"{self.spec.name} died ({describe_exit(code)})")
                return
            self.died()
            again = await self._start_again(lived_s, code)
            if again is None:
                return
            process = again

    async def _start_again(self, lived_s: float, code: int) -> asyncio.subprocess.Process | None:
        """The next process, after its delay; None if `stop` came first. If the machine cannot fork, try again."""
        while not await self._stopped_within(delay_s := self.deaths.delay_after(lived_s, code)):
            async with self._spawning:
                if self._stopping.is_set():
                    return None
                self.restarts += 1
                try:
                    self._process = process = self.successor() or await self._spawn()
                except OSError as exc:
                    log.error("process cannot be started", process=self.spec.name, error=str(exc))
                    lived_s, code = 0, 1
                    continue
            self._changed()  # outside the try: a second process beside a running one would block it for ever
            log.info("process started again", process=self.spec.name, pid=process.pid, after_s=delay_s)
            return process
        return None

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._variables = dict(self.variables())
        with self.spec.log.open("ab") as log_file:
            return await asyncio.create_subprocess_exec(
                *self.spec.command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=subprocess.STDOUT,
                env={**self.spec.environment, **self._variables}, cwd=self.spec.folder, start_new_session=True,
            )  # fmt: skip

    async def _stopped_within(self, delay_s: float) -> bool:
        if not delay_s:
            return self._stopping.is_set()
        try:
            async with asyncio.timeout(delay_s):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    @staticmethod
    def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        try:
            process.send_signal(number)
        except ProcessLookupError:
            return  # it ended meanwhile; wait() returns


def describe_exit(code: int) -> str:
    """An exit code in words: `exit code 1`, `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
