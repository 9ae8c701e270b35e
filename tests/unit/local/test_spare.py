"""The spare of a kept process: it takes over at a death, warm or not, and nobody is left behind. With tiny programs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.clock import SystemClock
from app.collector.standby import SPARE_FLAG, TURN
from app.local.stack.keeper import Keeper, ProcessSpec
from app.local.stack.spare import Spare
from tests.worlds.waiting import PAUSE_S, until

WARM = """
import os, signal, sys, time
if "--spare" in sys.argv:
    print("spare", os.getpid(), flush=True)
    {before}
    signal.sigwait([signal.SIGUSR1])
print("serves", os.getpid(), flush=True)
time.sleep(60)
"""
"""Waits for its turn with what it inherited: it neither blocks the signal itself nor handles it."""


class Kept:
    """A kept program with a spare, and everything that was started for it."""

    def __init__(self, folder: Path, before: str = "", settle_s: float = 0) -> None:
        self.log = folder / "collector.log"
        self.pids: set[int] = set()
        spec = ProcessSpec(
            name="collector", command=[sys.executable, "-c", WARM.format(before=before)], environment=os.environ,
            folder=folder, log=self.log, patience_s=1,
        )  # fmt: skip
        self.keeper = Keeper(spec, SystemClock(), self._note, self._note_loss)
        self.spare = Spare(spec, SystemClock(), self._note, settle_s)
        self.keeper.successor = self.spare.take

    def _note(self) -> None:
        self.pids |= {pid for pid in (self.keeper.pid, self.spare.pid) if pid}

    def _note_loss(self, reason: str) -> None:
        raise AssertionError(reason)

    async def __aenter__(self) -> "Kept":
        await self.keeper.start()
        self.spare.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.spare.stop()
        await self.keeper.stop()
        assert not any(psutil.pid_exists(pid) for pid in self.pids)

    async def said(self, words: str) -> None:
        """Return once the log has `words`."""

        await until(lambda: f"{words}\n" in self.log.read_text(), PAUSE_S)

    async def new_spare(self, *known: int | None) -> int:
        """The pid of a spare that is none of the known ones, once it runs."""

        await until(lambda: self.spare.pid not in {None, *known})
        assert self.spare.pid is not None
        return self.spare.pid

    def kill(self) -> None:
        assert self.keeper.pid is not None
        os.kill(self.keeper.pid, signal.SIGKILL)


async def test_the_spare_takes_over_and_another_one_follows(tmp_path: Path) -> None:
    async with Kept(tmp_path) as kept:
        for deaths in (1, 2, 3):
            pid = await kept.new_spare(kept.keeper.pid)
            await kept.said(f"spare {pid}")
            kept.kill()
            await kept.said(f"serves {pid}")
            assert kept.keeper.pid == pid
            assert kept.keeper.restarts == deaths
        await kept.new_spare(kept.keeper.pid)
    assert len(kept.pids) == 5


async def test_a_spare_that_is_still_warming_up_takes_over_too(tmp_path: Path) -> None:
    is_warm = tmp_path / "warm"
    async with Kept(tmp_path, before=f"while not os.path.exists({str(is_warm)!r}): time.sleep(0.01)") as kept:
        pid = await kept.new_spare()
        kept.kill()
        await until(lambda: kept.keeper.pid == pid)
        is_warm.touch()
        await kept.said(f"serves {pid}")
        assert kept.keeper.pid == pid


async def test_without_a_spare_the_process_is_started_as_ever(tmp_path: Path) -> None:
    async with Kept(tmp_path, settle_s=60) as kept:
        old = kept.keeper.pid
        await kept.said(f"serves {old}")
        kept.kill()

        await until(lambda: kept.keeper.pid not in {None, old})
        await kept.said(f"serves {kept.keeper.pid}")
        assert kept.spare.pid is None


async def test_a_dead_spare_is_replaced(tmp_path: Path) -> None:
    async with Kept(tmp_path) as kept:
        first = await kept.new_spare()
        os.kill(first, signal.SIGKILL)
        second = await kept.new_spare(first)
        kept.kill()
        await kept.said(f"serves {second}")


async def test_a_stopped_spare_is_not_taken(tmp_path: Path) -> None:
    async with Kept(tmp_path) as kept:
        await kept.new_spare()
        await kept.spare.stop()
        assert kept.spare.take() is None
        assert kept.spare.pid is None


AWAIT_TURN = """
import asyncio, os
from app.collector.standby import await_turn
parent = os.getppid()
print(os.getpid(), flush=True)
print("turn" if asyncio.run(await_turn(parent, 0.05)) else "alone", flush=True)
"""


def test_an_early_turn_is_not_lost() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {TURN})
    try:
        process = subprocess.Popen([sys.executable, "-c", AWAIT_TURN], stdout=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
    process.send_signal(TURN)  # before its first line of Python
    said, _ = process.communicate()
    assert said.split() == [str(process.pid), "turn"]


def test_a_spare_whose_supervisor_is_gone_ends_by_itself() -> None:
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {AWAIT_TURN!r}]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) != process.pid  # it waits, or is about to
        process.kill()
        assert process.stdout.readline() == "alone\n"


def test_settings_that_do_not_fit_end_a_spare_as_they_end_a_collector() -> None:
    command = [sys.executable, "-m", "app.collector", SPARE_FLAG]
    environment = os.environ | {"AWS_DEFAULT_REGION": "us-east-1", "INSTREAM_WRITE_KEYS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "INSTREAM_WRITE_KEYS" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_spare_ends_at_once_when_told(tmp_path: Path, number: signal.Signals) -> None:
    async with Kept(tmp_path) as kept:
        pid = await kept.new_spare()
        os.kill(pid, number)
        assert await kept.new_spare(pid) != pid
