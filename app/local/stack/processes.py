"""The processes of the local stack: which run, which are frozen, how often they died, and their last error."""

import json
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from app.core.status.seen import ROLES, Installation, ProcessSeen, Worker
from app.local.stack.life import Home, State, find
from app.local.stack.stack_file import Stack, StackProcess, read_stack

TAIL_BYTES: Final = 64 * 1024
"""The end of a log in which the last error is looked for."""
ERROR_LENGTH: Final = 300
_ERRORS: Final = frozenset({"error", "critical"})


class LocalStack(NamedTuple):
    """The stack in a HOME."""

    installation: Installation
    stack: Stack | None
    """None if it is not up."""


def look_at(home: Home, now_ms: int) -> LocalStack:
    """What HOME says about its stack."""
    life, stack = home.read_life(), read_stack(home)
    if life is None:
        return LocalStack(Installation([], is_local=True, state="absent"), None)
    state = life.state.value if home.is_held() or life.state is State.ENDED else "abandoned"
    found = Installation([], is_local=True, state=state, failure=life.failure)
    if stack is None:
        return LocalStack(found, None)
    living = {record.name: running for record in life.processes if (running := find(record)) is not None}
    workers = []
    for process in sorted(stack.processes, key=lambda one: ROLES.index(one.role)):
        url = stack.metrics[process.role].removesuffix("/metrics")
        workers.append(Worker(process.role, url, _seen(stack, process, living.get(process.role), now_ms)))
    services = {process.role: _seen(stack, process, living.get(process.role), now_ms) for process in stack.infrastructure}
    return LocalStack(found._replace(workers=workers, services=services, postgres=stack.postgres), stack)


def _seen(stack: Stack, process: StackProcess, living: psutil.Process | None, now_ms: int) -> ProcessSeen:
    pid, is_frozen, age_s = None, False, 0.0
    if living is not None:
        try:
            pid, age_s = living.pid, max(0.0, now_ms / 1000 - living.create_time())
            is_frozen = living.status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            pid = None
    return ProcessSeen(
        pid=pid, is_frozen=is_frozen, age_s=age_s, restarts=stack.restarts.get(process.role, 0),
        deaths=tuple(stack.deaths.get(process.role, ())), log=process.log, last_error=last_error(Path(process.log)),
    )  # fmt: skip


def last_error(path: Path) -> str:
    """The last error in a log, in one line; empty if its end has none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if words := _error_in(line):
            return words[:ERROR_LENGTH]
    return ""


def _error_in(line: str) -> str:
    """The error that a log line tells; empty if it tells none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(entry, dict) or entry.get("level") not in _ERRORS:
        return ""
    words = [str(entry[name]) for name in ("event", "error", "reason") if entry.get(name)]
    if exception := str(entry.get("exception") or "").strip():
        words.append(exception.splitlines()[-1])
    return " ".join(": ".join(dict.fromkeys(words)).split())
