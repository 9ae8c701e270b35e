"""Signals to real processes by the roles that stack.json gives them, and damage while one is down."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from app.clock import SystemClock
from app.errors import LocalStackError
from app.local.stack.life import Home
from app.local.stack.stack_file import Stack, StackProcess, StackSettings
from app.settings import Settings
from tests.rig.chaos.workers import Workers
from tests.worlds.waiting import until


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


class World:
    """A stack.json whose supervisor, etl and sink are processes that sleep."""

    def __init__(self, path: Path) -> None:
        self.home = Home(path)
        self.home.data.mkdir(parents=True)
        self.supervisor, self.etl, self.sink = (sleeper() for _ in range(3))
        self.stack = self._write()
        self.workers = Workers(self.home, self.stack, SystemClock())

    def _write(self) -> Stack:
        url = "http://127.0.0.1:1"
        roles = [StackProcess(role, process.pid, "") for role, process in (("etl", self.etl), ("sink", self.sink))]
        stack = Stack(
            home=str(self.home.path), supervisor_pid=self.supervisor.pid, collector_url=url, warehouse_url=url, kafka="",
            aws_endpoint=url, bucket="b", stream="s", registry_table="r", metrics={}, processes=roles, infrastructure=[],
            restarts={}, settings=StackSettings.of(Settings()), environment={},
        )  # fmt: skip
        stack.write(self.home)
        return stack

    def end(self) -> None:
        for process in (self.supervisor, self.etl, self.sink):
            process.kill()
            process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.end()


def status(process: subprocess.Popen[bytes]) -> str:
    return psutil.Process(process.pid).status()


async def test_a_signal_goes_to_who_runs_the_role(world: World) -> None:
    assert world.workers.send("etl", signal.SIGTERM) == world.etl.pid
    assert world.etl.wait() == -signal.SIGTERM
    assert world.workers.send("etl", signal.SIGTERM) is None
    assert world.workers.pid("nobody") is None
    assert world.workers.pid("sink") == world.sink.pid


async def test_who_does_not_run_has_no_pid_and_is_sent_nothing(world: World) -> None:
    """stack.json says 0 between a worker and its successor; a signal to 0 would end everybody in the sender's group."""
    stopped = StackProcess("etl", 0, "")
    stack = msgspec.structs.replace(world.stack, processes=[stopped, *world.stack.processes[1:]])
    stack.write(world.home)
    assert (stack.pid_of("etl"), stack.pid_of("sink"), stack.pid_of("nobody")) == (None, world.sink.pid, None)
    assert stack.running_pid("sink") == world.sink.pid
    with pytest.raises(LocalStackError, match="etl does not run"):
        stack.running_pid("etl")
    assert world.workers.send("etl", signal.SIGKILL) is None


async def test_a_fault_meets_another_where_the_one_that_was_meant_is_down(world: World) -> None:
    assert await world.workers.eligible("etl", ["etl", "sink"]) == "etl"
    world.etl.kill()
    world.etl.wait()
    assert await world.workers.eligible("etl", ["etl", "sink"]) == "sink"
    world.sink.kill()
    world.sink.wait()
    assert await world.workers.eligible("etl", ["etl", "sink"], patience_s=0.1) is None


async def test_a_stopped_worker_is_left_alone_and_woken(world: World) -> None:
    stopping = asyncio.create_task(world.workers.stop_for("etl", 3600))
    await until(lambda: status(world.etl) == psutil.STATUS_STOPPED)
    assert await world.workers.eligible("etl", ["etl", "sink"]) == "sink"
    world.workers.wake_all()
    await until(lambda: status(world.etl) != psutil.STATUS_STOPPED)
    stopping.cancel()
    assert await world.workers.eligible("etl", ["etl", "sink"]) == "etl"


async def test_damage_is_done_while_the_worker_is_dead_and_its_supervisor_sleeps(world: World) -> None:
    seen: list[object] = []

    def damage(folder: Path) -> str:
        seen.extend([folder, status(world.supervisor), status(world.etl)])
        return "done"

    assert await world.workers.while_down("etl", damage) == "done"
    assert seen == [world.home.data / "etl", psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE]
    await until(lambda: status(world.supervisor) != psutil.STATUS_STOPPED)
    with pytest.raises(LocalStackError):
        await world.workers.while_down("etl", damage)


async def test_the_supervisor_wakes_though_the_damage_fails(world: World) -> None:
    def fails(_: Path) -> str:
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        await world.workers.while_down("etl", fails)
    await until(lambda: status(world.supervisor) != psutil.STATUS_STOPPED)


async def test_a_worker_is_stopped_for_the_time_of_a_block_and_no_other_fault_meets_it(world: World) -> None:
    async with world.workers.stopped("etl"):
        await until(lambda: status(world.etl) == psutil.STATUS_STOPPED)
        assert await world.workers.eligible("etl", ["etl", "sink"]) == "sink"
    await until(lambda: status(world.etl) == psutil.STATUS_SLEEPING)
    assert await world.workers.eligible("etl", ["etl", "sink"]) == "etl"
    with pytest.raises(ZeroDivisionError):
        async with world.workers.stopped("etl"):
            raise ZeroDivisionError
    await until(lambda: status(world.etl) == psutil.STATUS_SLEEPING)
    world.workers.send("etl", signal.SIGKILL)
    world.etl.wait()
    with pytest.raises(LocalStackError, match="etl does not run"):
        async with world.workers.stopped("etl", patience_s=0):
            pass
