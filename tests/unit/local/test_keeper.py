"""A kept process of the local stack: its deaths, its restarts, its end. With tiny programs."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from app.clock import SystemClock
from app.local.stack.keeper import BACKOFF, Deaths, Keeper, ProcessSpec, describe_exit
from tests.worlds.waiting import PAUSE_S, until


def test_three_deaths_are_answered_at_once_and_then_ever_later():
    deaths = Deaths()
    assert [deaths.delay_after(0.1) for _ in range(10)] == [0, 0, 0, 1, 2, 4, 8, 16, BACKOFF.longest_s, BACKOFF.longest_s]


def test_a_healthy_time_forgets_earlier_deaths():
    deaths = Deaths()
    for _ in range(6):
        deaths.delay_after(1)
    assert deaths.delay_after(60) == 0
    assert [deaths.delay_after(1) for _ in range(3)] == [0, 0, 1]


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal SIGKILL")])
def test_exits_in_words(code, words):
    assert describe_exit(code) == words


class Watched:
    """A keeper of a small Python program, and what it told."""

    def __init__(self, folder: Path, code: str, *, fatal: bool = False) -> None:
        self.pids: list[int] = []
        self.lost: list[str] = []
        self.changed = asyncio.Event()
        spec = ProcessSpec(
            name="etl", command=[sys.executable, "-c", code], environment=os.environ, folder=folder, log=folder / "etl.log",
            fatal=fatal, patience_s=1,
        )  # fmt: skip
        self.keeper = Keeper(spec, SystemClock(), self._note, self._note_loss)

    def _note(self) -> None:
        if self.keeper.pid:
            self.pids.append(self.keeper.pid)
        self.changed.set()

    def _note_loss(self, reason: str) -> None:
        self.lost.append(reason)
        self.changed.set()

    async def next_change(self) -> None:
        await until(self.changed.is_set)
        self.changed.clear()


async def test_a_killed_process_is_started_again_with_a_new_pid(tmp_path):
    watched = Watched(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    await watched.keeper.start()
    await watched.next_change()
    os.kill(watched.pids[0], signal.SIGKILL)
    await watched.next_change()
    await watched.keeper.stop()
    assert len(set(watched.pids)) == 2
    assert not any(psutil.pid_exists(pid) for pid in watched.pids)
    assert watched.keeper.restarts == 1


async def test_a_clean_exit_is_a_death_too(tmp_path):
    watched = Watched(tmp_path, "raise SystemExit(0)")
    await watched.keeper.start()
    for _ in range(4):
        await watched.next_change()
    await watched.keeper.stop()
    assert len(watched.pids) >= 4


async def test_a_fatal_death_is_told_and_not_mended(tmp_path):
    watched = Watched(tmp_path, "raise SystemExit(7)", fatal=True)
    await watched.keeper.start()
    await watched.next_change()
    if not watched.lost:
        await watched.next_change()
    await watched.keeper.stop()
    assert watched.lost == ["etl died (exit code 7)"]
    assert watched.keeper.restarts == 0


async def test_who_cannot_be_kept_any_more_is_told_and_never_runs_twice(tmp_path):
    """Whatever a restart's record meets: neither is the loss silent, nor does a second process run beside the first."""
    watched = Watched(tmp_path, "import time; time.sleep(60)")
    note = watched.keeper._changed

    def fail_at_restarts() -> None:
        note()
        if watched.keeper.restarts:
            raise OSError("no space left")

    watched.keeper._changed = fail_at_restarts
    await watched.keeper.start()
    await watched.next_change()
    os.kill(watched.pids[0], signal.SIGKILL)
    while not watched.lost:
        await watched.next_change()
    await watched.keeper.stop()
    assert watched.lost == ["etl is not kept any more: OSError('no space left')"]
    assert len(watched.pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in watched.pids)


async def said_in(log: Path, words: str = "\n") -> str:
    """The log's text once it holds `words`."""
    await until(lambda: words in _text(log), PAUSE_S)
    return _text(log)


def _text(log: Path) -> str:
    return log.read_text()


async def test_who_does_not_end_is_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    watched = Watched(tmp_path, code)
    await watched.keeper.start()
    await said_in(tmp_path / "etl.log", "deaf")
    await watched.keeper.stop()
    assert not psutil.pid_exists(watched.pids[0])


SHOW_DESCRIPTORS = """
import os, time
print(*(os.path.realpath(f"/dev/fd/{number}") for number in (0, 1, 2)), sep=" ", end=" | ")
print(*sorted(int(name) for name in os.listdir("/dev/fd")), flush=True)
time.sleep(60)
"""


async def test_a_kept_process_holds_no_descriptor_but_its_own(tmp_path):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    watched = Watched(tmp_path, SHOW_DESCRIPTORS)
    await watched.keeper.start()
    try:
        paths, _, numbers = (await said_in(tmp_path / "etl.log")).partition(" | ")
    finally:
        await watched.keeper.stop()
        os.close(reading)
        os.close(writing)
    assert paths.split() == ["/dev/null", str(tmp_path / "etl.log"), str(tmp_path / "etl.log")]
    assert str(writing) not in numbers.split()


def test_what_counts_as_recovered_can_be_set():
    deaths = Deaths(healthy_s=3)
    assert [deaths.delay_after(4.0) for _ in range(9)] == [0.0] * 9
    assert [deaths.delay_after(1.0) for _ in range(4)] == [0.0, 0.0, 1.0, 2.0]
