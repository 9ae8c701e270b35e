"""Carries one step of a drill out: a process ends, starts from the other tree, and proves it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from app.adapters.loaded_ledger import WarehouseLedger
from app.collector.standby import TURN
from app.errors import LocalStackError, OutsideError
from app.local.stack.life import Home, find
from app.local.stack.probe import answers_ok
from app.local.stack.spare import SPARE
from app.local.stack.start_order import BIN
from app.local.stack.trees import INIT, Trees
from app.settings import Settings
from tests.rig.chaos.workers import Workers
from tests.rig.upgrade.plan import Step, Way

WAITS_S: Final = 300.0
"""A process that is not ready after so long waits for something that does not come."""
LOOK_S: Final = 0.2
_PAGE: Final = aiohttp.ClientTimeout(total=30)
_CODE: Final = re.compile(r'^instream_code_info\{.*?folder="([^"]*)"', flags=re.MULTILINE)
_WHERE: Final = "import pathlib, app; print(pathlib.Path(app.__file__).parents[1])"

_OUTPUTS: Final = "from app.core.formats.flows import OUTPUTS; print(*(flow.name for flow in OUTPUTS))"


class Switch:
    """Moves the processes of one stack between two trees."""

    def __init__(self, home: Home, workers: Workers, settings: Settings, trees: Mapping[Way, Path]) -> None:
        """Move processes.

        Args:
            home: the stack's folder.
            workers: its processes.
            settings: lead to its services.
            trees: the newer tree (up) and the older one (back).
        """
        self._home = home
        self._workers = workers
        self._settings = settings
        self._trees = trees
        self._file = Trees(home.path)

    async def make(self, step: Step) -> None:
        """Do one step; return once the process is ready and has said that it runs the other code.

        1. The file of trees names the other tree. A process that dies from here on comes back as the other version.
        2. The process is told to end, as an operator does it; its supervisor starts it again.
        3. /ready says yes, and the process names the folder of its code.

        Raises:
            LocalStackError: the process does not become ready, or runs other code than it should.
        """
        tree = self._trees[step.way]
        if step.process == INIT:
            await self._migrate(tree)
            return
        self._file.replace(self._file.read() | {step.process: tree})
        if step.process == "collector":
            await self._warm_spare()
        pid = self._workers.send(step.process, signal.SIGTERM)
        await self._until(lambda: self._is_back(step.process, pid), f"{step.process} is not ready")
        if (found := await self.code_of(step.process)) != tree:
            raise LocalStackError(f"{step.process} runs the code of {found}, not of {tree}")

    async def drain(self, role: str) -> None:
        """Return once `role` needs nothing any more that the newer version wrote until now.

        Everything written until now is loaded when each partition's loaded stream time is past now. The etl's state, too,
        was written by the newer version: a page view with a newer field stays in it until its window is closed. So before
        the etl goes back stream time must be past the window as well.

        Raises:
            LocalStackError: it does not come to that.
        """
        window_s = self._settings.join_window_s + self._settings.join_grace_s if role == "etl" else 0.0
        after_ms = round((time.time() + window_s) * 1000)
        warehouse = WarehouseLedger(self._settings.warehouse_url)

        async def is_loaded() -> bool:
            found = (await warehouse.delivery(self._settings.epoch)).partitions
            return all(
                number in found and found[number].stream_time_ms > after_ms for number in range(self._settings.partitions)
            )

        try:
            await self._until(is_loaded, "the newer version's messages are not loaded")
        finally:
            await warehouse.close()

    async def code_of(self, process: str) -> Path:
        """The folder of the code that a process runs, as it says itself.

        A version that does not say it yet is asked in another way: Python, in the process's environment and folder, says
        where it finds the package.

        Raises:
            LocalStackError: the process does not answer.
        """
        page = self._workers.page(process, "metrics")
        try:
            async with aiohttp.ClientSession(timeout=_PAGE) as session, session.get(page) as answer:
                said = _CODE.search(await answer.text())
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise LocalStackError(f"{process} does not show its metrics: {exc!r}") from exc
        if said:
            return Path(said[1])
        pid = self._workers.pid(process)
        if pid is None:
            raise LocalStackError(f"{process} does not run")
        running = psutil.Process(pid)
        return Path((await _run([sys.executable, "-c", _WHERE], running.environ(), Path(running.cwd()))).strip())

    async def _migrate(self, tree: Path) -> None:
        await _run([str(BIN / "instream"), "init"], os.environ | {"PYTHONPATH": str(tree)}, self._home.path)

    async def _is_back(self, process: str, pid: int | None) -> bool:
        now = self._workers.pid(process)
        return now is not None and now != pid and await answers_ok(self._workers.page(process, "ready"))

    async def _warm_spare(self) -> None:
        """Let a spare of the other code be there before the collector ends, as behind a load balancer."""
        await self._until(self._found_spare, "the collector has no spare")
        old = self._spare()
        if old is not None:
            with suppress(psutil.NoSuchProcess):
                old.kill()
        await self._until(lambda: self._is_other_and_warm(old), "the collector's spare does not get warm")

    async def _found_spare(self) -> bool:
        return self._spare() is not None

    async def _is_other_and_warm(self, old: psutil.Process | None) -> bool:
        spare = self._spare()
        return spare is not None and spare != old and _listens_for_its_turn(spare.pid)

    def _spare(self) -> psutil.Process | None:
        life = self._home.read_life()
        records = life.processes if life else []
        return next((find(record) for record in records if record.name == SPARE), None)

    async def _until(self, holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline_s = time.monotonic() + WAITS_S
        while True:
            with suppress(OutsideError):
                if await holds():
                    return
            if time.monotonic() > deadline_s:
                raise LocalStackError(f"{otherwise} after {WAITS_S:g} s")
            await asyncio.sleep(LOOK_S)


async def outputs_of(tree: Path) -> frozenset[str]:
    """The names of all outputs that the version in `tree` knows.

    Raises:
        LocalStackError: its code does not say it.
    """
    return frozenset((await _run([sys.executable, "-c", _OUTPUTS], os.environ | {"PYTHONPATH": str(tree)}, tree)).split())


def _listens_for_its_turn(pid: int) -> bool:
    """Whether a spare has its handler of the signal that tells its turn, which it sets when everything else is ready."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # no Linux: a spare that is not warm yet takes over all the same, a moment later
        return not Path("/proc/self/status").exists()
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", text, flags=re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & (1 << (TURN - 1)))


async def _run(command: list[str], environment: Mapping[str, str], folder: Path) -> str:
    """The output of a command.

    Raises:
        LocalStackError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment), cwd=folder
    )
    said, complaint = await process.communicate()
    if process.returncode:
        raise LocalStackError(f"{' '.join(command)}: {complaint.decode(errors='replace').strip()}")
    return said.decode()
