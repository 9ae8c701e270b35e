"""The deadline of a worker's end: the earliest one stands, and it ends the process with a crash's exit code."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from app.shell.deadline import CRASH_GRACE_S, EXIT_CODE, STOP_GRACE_S, Deadline, Deadman


@dataclass
class Timer:
    """A timer that fires when its test says so."""

    seconds: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class World:
    """A clock, timers and a process that notes its end."""

    now_s: float = 50.0
    timers: list[Timer] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def deadline(self) -> Deadline:
        return Deadline(self, self.later, self.ended.append)

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    @property
    def running(self) -> list[float]:
        return [timer.seconds for timer in self.timers if not timer.cancelled]


def test_the_process_ends_with_a_crash_code_when_time_is_up() -> None:
    world = World()
    world.deadline().set(STOP_GRACE_S, "stop")
    assert (world.running, world.ended) == ([STOP_GRACE_S], [])
    world.timers[0].call()
    assert world.ended == [EXIT_CODE]


def test_an_earlier_deadline_replaces_a_later_one() -> None:
    world = World()
    deadline = world.deadline()
    deadline.set(STOP_GRACE_S, "stop")
    world.now_s += 1
    deadline.set(CRASH_GRACE_S, "crash")
    assert world.running == [CRASH_GRACE_S]
    deadline.set(STOP_GRACE_S, "stop")
    assert world.running == [CRASH_GRACE_S]


def test_a_crash_late_in_a_shutdown_does_not_prolong_it() -> None:
    world = World()
    deadline = world.deadline()
    deadline.set(STOP_GRACE_S, "stop")
    world.now_s += STOP_GRACE_S - 1
    deadline.set(CRASH_GRACE_S, "crash")
    assert world.running == [STOP_GRACE_S]


def test_the_same_deadline_again_starts_no_second_timer() -> None:
    world = World()
    deadline = world.deadline()
    deadline.set(CRASH_GRACE_S, "crash")
    world.now_s += 1
    deadline.set(CRASH_GRACE_S, "crash")
    assert len(world.timers) == 1


def test_a_real_process_whose_main_thread_hangs_is_ended() -> None:
    program = (
        "import threading\n"
        "from app.shell.deadline import Deadline\n"
        "Deadline().set(0.01, 'test')\n"
        "threading.Event().wait()\n"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == EXIT_CODE
    assert b"shutdown hangs, process ends" in done.stdout + done.stderr


def test_beats_postpone_the_end_and_silence_brings_it() -> None:
    world = World()
    deadman = Deadman(world.later, world.ended.append)
    for _ in range(3):
        deadman.beat(7)
    assert world.running == [7]
    world.timers[-1].call()
    assert world.ended == [EXIT_CODE]
    deadman.beat(7)
    deadman.stop()
    assert world.running == []


def test_a_real_process_whose_event_loop_stands_is_ended() -> None:
    program = (
        "import asyncio, threading\n"
        "from app.shell.deadline import Deadman\n"
        "async def main():\n"
        "    deadman = Deadman()\n"
        "    for _ in range(3):\n"
        "        deadman.beat(3600)\n"
        "        await asyncio.sleep(0)\n"
        "    print('turned', flush=True)\n"
        "    deadman.beat(0.01)\n"
        "    threading.Event().wait()\n"
        "asyncio.run(main())\n"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == EXIT_CODE
    assert b"turned" in done.stdout
    assert b"event loop stands, process ends" in done.stdout + done.stderr
