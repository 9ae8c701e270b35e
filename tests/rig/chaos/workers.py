"""The roles' processes: their pids, signals to them, and extra workers that come and go beside the supervised ones."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from app.clock import Clock
from app.errors import LocalStackError
from app.local.stack.environment import process_environment, role_variables
from app.local.stack.keeper import Keeper, ProcessSpec
from app.local.stack.life import Home
from app.local.stack.ports import HOST, Claim, claim_free
from app.local.stack.probe import answers_ok
from app.local.stack.settings import read_local_settings
from app.local.stack.stack_file import Stack, read_stack
from app.local.stack.start_order import worker_command
from app.local.stack.trees import Trees

OBEY_S: Final = 120.0
"""Only a process that hangs in the kernel takes longer to stop, or to end."""
PATIENCE_S: Final = 8.0
"""A fault waits so long for a target."""


class Workers:
    """All processes of roles."""

    def __init__(self, home: Home, stack: Stack, clock: Clock) -> None:
        self._home = home
        self._stack = stack
        self._trees = Trees(home.path)
        self._environment = process_environment(os.environ, stack.environment)
        self._clock = clock
        self._extras: dict[str, Keeper] = {}
        self._claims: list[Claim] = []
        self._ports: dict[str, int] = {}
        self._stopped: dict[str, int] = {}
        self._busy: set[str] = set()

    # --- running processes

    def pid(self, name: str) -> int | None:
        """The pid of a role (`etl`) or of an extra worker (`etl-2`); None while it does not run."""
        if name in self._extras:
            return self._extras[name].pid
        stack = read_stack(self._home)
        if stack is None:
            raise LocalStackError(f"the stack in {self._home.path} is gone")
        pid = stack.pid_of(name)
        return pid if pid is not None and _runs(pid) else None

    async def eligible(self, wanted: str, others: Sequence[str], patience_s: float = PATIENCE_S) -> str | None:
        """`wanted`, or the next one of `others` that runs and is not stopped or being changed; None if there is none."""
        deadline_s = self._clock.monotonic_s() + patience_s
        start = others.index(wanted) if wanted in others else 0
        while True:
            for name in [wanted, *others[start:], *others[:start]]:
                if name not in self._stopped and name not in self._busy and self.pid(name) is not None:
                    return name
            if self._clock.monotonic_s() > deadline_s:
                return None
            await asyncio.sleep(0.1)

    async def unready(self) -> list[str]:
        """The roles and extra workers that are not ready by /ready."""
        stack = read_stack(self._home)
        if stack is None:
            raise LocalStackError(f"the stack in {self._home.path} is gone")
        names = [*stack.metrics, *self._extras]
        answers = await asyncio.gather(*(answers_ok(self.page(name, "ready")) for name in names))
        return [name for name, is_ready in zip(names, answers, strict=True) if not is_ready]

    def page(self, name: str, page: str) -> str:
        """The URL of a page (`ready`, `metrics`) of a role or an extra worker."""
        port = self._ports.get(name)
        url = f"http://{HOST}:{port}/metrics" if port else self._stack.metrics[name]
        return url.replace("/metrics", f"/{page}")

    # --- faults of processes

    def send(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal. Returns: its pid; None if the process is gone already."""
        pid = self.pid(name)
        if pid is None:
            return None
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return None
        return pid

    @asynccontextmanager
    async def stopped(self, name: str, patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
        """Stop a worker for the time of a block.

        Raises:
            LocalStackError: it does not run, or another fault has stopped it.
        """
        found = await self.eligible(name, [name], patience_s)
        pid = self.send(name, signal.SIGSTOP) if found == name else None
        if pid is None:
            raise LocalStackError(f"{name} does not run")
        self._stopped[name] = pid
        try:
            yield
        finally:
            self._wake(name)

    async def stop_for(self, name: str, seconds: float) -> int | None:
        """Stop a worker so long that its group takes it for dead, then wake it. Returns: its pid, None if it is gone."""
        pid = self.send(name, signal.SIGSTOP)
        if pid is None:
            return None
        self._stopped[name] = pid
        try:
            await asyncio.sleep(seconds)
        finally:
            self._wake(name)
        return pid

    def wake_all(self) -> None:
        """Wake all stopped processes."""
        for name in list(self._stopped):
            self._wake(name)

    async def while_down(self, name: str, damage: Callable[[Path], str]) -> str:
        """Kill a worker and damage its directory before it is started again. Returns: the text of `damage`."""
        self._busy.add(name)
        try:
            if name in self._extras:
                return await self._extra_down(name, damage)
            return await self._role_down(name, damage)
        finally:
            self._busy.discard(name)

    # --- extra workers

    @property
    def extras(self) -> list[str]:
        """The existing extra workers."""
        return list(self._extras)

    async def add(self, name: str) -> None:
        """Start an extra worker, `<role>-<number>`, with a directory of its own; it runs until it is removed."""
        port = claim_free()
        self._claims.append(port)
        self._ports[name] = port.port
        role = name.partition("-")[0]
        own = role_variables(role, self._home.path, {f"{role}-web": port.port})
        own["INSTREAM_DATA_DIR"] = str(self.folder(name))
        await self._keep(ProcessSpec(
            name=name, command=worker_command(role),
            environment=self._environment | own, folder=self._home.path, log=self._home.logs / f"{name}.log",
            healthy_s=read_local_settings().restart_healthy_s,
        ))  # fmt: skip

    async def remove(self, name: str) -> None:
        """End an extra worker; its directory stays."""
        self._wake(name)
        await self._extras.pop(name).stop()

    async def close(self) -> None:
        """End all extra workers."""
        self.wake_all()
        await asyncio.gather(*(self.remove(name) for name in self.extras))
        for held in self._claims:
            held.holder.close()

    def folder(self, name: str) -> Path:
        """The directory of a worker's RocksDB."""
        return self._home.data / name

    # --- inside

    async def _keep(self, spec: ProcessSpec) -> None:
        keeper = Keeper(spec, self._clock, lambda: None, lambda _: None)
        keeper.variables = partial(self._trees.variables, spec.name)
        self._extras[spec.name] = keeper
        await keeper.start()

    def _wake(self, name: str) -> None:
        pid = self._stopped.pop(name, None)
        if pid is not None:
            with suppress(ProcessLookupError):  # another fault killed it meanwhile
                os.kill(pid, signal.SIGCONT)

    async def _extra_down(self, name: str, damage: Callable[[Path], str]) -> str:
        keeper = self._extras[name]
        process = keeper.release()
        if process is None:
            raise LocalStackError(f"{name} does not run")
        try:
            process.kill()
            await process.wait()
            return await asyncio.to_thread(damage, self.folder(name))
        finally:
            await self._keep(keeper.spec)

    async def _role_down(self, name: str, damage: Callable[[Path], str]) -> str:
        """The supervisor is stopped meanwhile, because it would start the next process before the damage is done."""
        stack = read_stack(self._home)
        pid = self.pid(name)
        if stack is None or pid is None:
            raise LocalStackError(f"{name} does not run")
        os.kill(stack.supervisor_pid, signal.SIGSTOP)
        try:
            await self._obeyed(
                lambda: _status(stack.supervisor_pid) == psutil.STATUS_STOPPED, "the supervisor does not stop"
            )
            os.kill(pid, signal.SIGKILL)
            await self._obeyed(lambda: not _runs(pid), f"{name} does not die")
            return await asyncio.to_thread(damage, self.folder(name))
        finally:
            os.kill(stack.supervisor_pid, signal.SIGCONT)

    async def _obeyed(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Return once a signal has had its effect."""
        deadline_s = self._clock.monotonic_s() + OBEY_S
        while not holds():
            if self._clock.monotonic_s() > deadline_s:
                raise LocalStackError(otherwise)
            await asyncio.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    return _status(pid) not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def _status(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_DEAD)
