"""The calls of commands to the stack in a HOME: up and down. The supervisor does the work itself.

If a supervisor was killed, its processes may still run in HOME; `up` and `down` end exactly the processes that life.json
names and that are provably the same (pid and start time).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import psutil

from app.errors import LocalStackError
from app.local.services.java import java_binary, kafka_jars
from app.local.stack.life import Home, Life, Started, State, end_leftovers, find, private_file, started
from app.local.stack.stack_file import Stack, read_stack
from app.settings import read_settings
from app.variables import in_capitals

Say = Callable[[str], None]
"""Shows one line of progress."""
POLL_S: Final = 0.1
FIRST_SIGN_S: Final = 30
"""How long a supervisor may take to write its first record."""
DOWN_TIMEOUT_S: Final = 90
"""Longer than all patience times of an orderly end together."""


def end_in_order_when_told() -> None:
    """Let SIGTERM and SIGHUP end this command like an error, so that a starting stack goes down with its command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))


def up(home: Home, say: Say) -> Stack:
    """Start the stack in `home`, or find it running; return when every role is ready.

    Raises:
        ConfigurationError: a setting in the environment does not fit.
        LocalStackError: something is missing, a set port is taken, or the start failed; nothing stays running.
    """
    read_settings()
    java_binary()
    kafka_jars()
    home.prepare()
    lock = home.acquire()
    shown = 0
    while lock is None:  # a running stack, another `up` at work, or a stack that stops
        life = home.read_life()
        if life and find(life.supervisor):
            if life.state is State.READY:
                say("the stack is up")
                return _stack_of(home)
            shown = _show(life, shown, say)
        time.sleep(POLL_S)
        lock = home.acquire()
    with lock:
        supervisor = _spawn_supervisor(home, lock.fileno())
    try:
        return _await_ready(home, supervisor, say)
    except (KeyboardInterrupt, SystemExit):  # SystemExit: the command got SIGTERM
        say("interrupted: stopping what was started")
        down(home, say)
        raise


def down(home: Home, say: Say) -> bool:
    """Stop the stack in `home` and all its processes; none runs afterwards.

    Returns: whether something was stopped.

    Raises:
        LocalStackError: a process without a record holds the lock.
    """
    if not home.path.exists():
        return False
    found = False
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    sign_by = time.monotonic() + FIRST_SIGN_S
    shown = 0
    told: Started | None = None
    while home.is_held():
        found = True
        life = home.read_life()
        process = find(life.supervisor) if life else None
        if life and process:
            if told != life.supervisor:
                told, shown = life.supervisor, len(life.progress)
                _tell(process, kill=False)
            shown = _show(life, shown, say)
            if time.monotonic() > deadline:
                say("the supervisor does not end: killing it")
                _tell(process, kill=True)
        elif time.monotonic() > sign_by:
            raise LocalStackError(f"{home.lock_file} is held by a process that {home.life_file} does not name")
        time.sleep(POLL_S)
    lock = home.acquire()
    if lock is None:  # an `up` came in between: it wins
        return found
    with lock:
        life = home.read_life()
        if life is None or life.state is State.ENDED:
            return found
        ended = end_leftovers(life)
        home.stack_file.unlink(missing_ok=True)
        life.state, life.processes = State.ENDED, []
        home.write_life(life)
        if ended:
            say("ended what a killed supervisor had left: " + ", ".join(ended))
        return found or bool(ended)


def _spawn_supervisor(home: Home, lock_fd: int) -> Started:
    """Start the daemon: a session of its own, no open descriptor but the lock, its output in files of HOME.

    It and its processes make files for their user alone.
    """
    environment = in_capitals(os.environ) | {"INSTREAM_HOME": str(home.path)}
    environment.pop("INSTREAM_LOG_FORMAT", None)
    with private_file(home.path / "supervisor.log") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.local.stack.supervisor", str(lock_fd)], stdin=subprocess.DEVNULL, stdout=log_file,
            stderr=subprocess.STDOUT, cwd=home.path, env=environment, start_new_session=True, pass_fds=(lock_fd,),
            umask=0o077,
        )  # fmt: skip
    return started("supervisor", process.pid)


def _await_ready(home: Home, supervisor: Started, say: Say) -> Stack:
    shown = 0
    while True:
        alive = find(supervisor) is not None
        life = home.read_life()
        if life and life.supervisor.pid != supervisor.pid:
            life = None  # of an earlier life: this one has written nothing yet
        if life:
            shown = _show(life, shown, say)
        if life and life.state is State.READY:
            return _stack_of(home)
        if not alive:
            reason = life.failure if life else None
            raise LocalStackError(f"{reason or 'the supervisor ended'} (logs: {home.logs}, {home.path / 'supervisor.log'})")
        time.sleep(POLL_S)


def _show(life: Life, shown: int, say: Say) -> int:
    """Show a life's progress lines after the first `shown`. Returns: the number of lines now."""
    for line in life.progress[shown:]:
        say(line)
    return len(life.progress)


def _stack_of(home: Home) -> Stack:
    stack = read_stack(home)
    if stack is None:
        raise LocalStackError(f"{home.stack_file} is gone: the stack is on its way down")
    return stack


def _tell(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return  # ended by itself: done
