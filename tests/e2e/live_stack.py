"""A stack as end-to-end tests see it: the command line, stack.json, signals, and exact comparison."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

from agents.audit.coverage import Waited, await_coverage
from app.adapters.warehouse import connect
from app.clock import SystemClock
from app.local.stack.life import Home
from app.local.stack.probe import answers_ok
from app.local.stack.settings import PORT_VARIABLES
from app.local.stack.stack_file import Stack, read_stack
from app.local.traffic.compare import Comparison, compare
from app.local.traffic.run import TrafficPlan, TrafficRun, run_traffic
from app.settings import read_settings
from tests.rig.restarts.clients import post
from tests.worlds.waiting import HANGS_S, PAUSE_S, eventually, until

TROUBLE = re.compile(r'"level": "(warning|error|critical)"|"event": "process started again"|^\w*(Error|Exception)\b|FATAL')
TOLD_LINES = 25
INSTREAM = Path(sys.executable).with_name("instream")
ANY_PORTS = dict.fromkeys(PORT_VARIABLES.values(), "0")
COMPRESSED = ANY_PORTS | {
    "INSTREAM_JOIN_WINDOW_S": "5",
    "INSTREAM_JOIN_GRACE_S": "4",
    "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "2",
    "INSTREAM_IDLE_COMMIT_INTERVAL_S": "5",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
    "INSTREAM_AUDIT_INTERVAL_S": "5",
    "INSTREAM_AUDIT_GRACE_S": "20",
}
"""Seconds where production has minutes, so that a test of the whole path takes half a minute."""
PATIENT: dict[str, Any] = {"keep_bodies": True, "patience_s": HANGS_S}
"""How tests send: what is sent is compared, and a client waits for as long as the machine takes."""


class SettledLoad(NamedTuple):
    """A load of which every row is in the warehouse, and was compared."""

    run: TrafficRun
    lines: int
    since: str
    """Every batch of it, and no other, was received between these two moments."""
    until: str
    complete: str
    """Every transaction of it was loaded before."""


class LiveStack:
    """The stack in one HOME."""

    def __init__(self, home: Path, settings: dict[str, str]) -> None:
        self.home = Home(home)
        self.crash_plan = home.with_name(f"{home.name}-crash-plan")
        """Names the calls at which workers end, where the stack's settings turn that on."""
        self.caller = {name: value for name, value in os.environ.items() if not name.startswith(("INSTREAM_", "AWS_"))}
        self.caller |= settings | {"INSTREAM_HOME": str(home)}
        self._settled: SettledLoad | None = None

    @property
    def stack(self) -> Stack:
        """stack.json as it is now."""
        stack = read_stack(self.home)
        assert stack is not None, "no stack is up"
        return stack

    def instream(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with everything that it prints."""
        return subprocess.run([INSTREAM, *words], env=self.caller | settings, capture_output=True, text=True, check=False)

    def up(self, **settings: str) -> None:
        """Start it, or fail with what `up` said."""
        done = self.instream("up", **settings)
        assert done.returncode == 0, done.stderr

    def down(self) -> None:
        """Stop it."""
        done = self.instream("down")
        assert done.returncode == 0, done.stderr

    def story(self) -> str:
        """What its logs say of trouble: who ended and was started again, and every role's last warnings."""
        told = []
        for log in (self.home.path / "supervisor.log", *sorted(self.home.logs.glob("*.log"))):
            lines = log.read_text(errors="replace").splitlines()
            trouble = [line for line in lines if TROUBLE.search(line)]
            told += [f"--- {log.name}, {len(lines)} lines, {len(trouble)} of trouble", *trouble[-TOLD_LINES:]]
        return "\n".join(told)

    def supervisor_said(self, **values: object) -> list[dict[str, Any]]:
        """The supervisor's log lines that have these values."""
        lines = (self.home.path / "supervisor.log").read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [entry for entry in entries if all(entry.get(name) == value for name, value in values.items())]

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a role or service. Returns: the pid that it had."""
        pid = self.stack.running_pid(role)
        os.kill(pid, number)
        return pid

    def await_restart(self, role: str, old_pid: int) -> None:
        """Return when stack.json names another pid for `role`; fails where the stack has ended."""
        eventually(lambda: self.stack.pid_of(role) not in {None, old_pid}, self.story)

    async def await_ready(self, role: str) -> None:
        """Return when /ready of a role answers."""
        url = self.stack.metrics[role].replace("/metrics", "/ready")
        await until(lambda: answers_ok(url), PAUSE_S, self.story)

    async def post(self, event_id: str) -> int:
        """Post an event. Returns: the status of its answer."""
        return await post(self.stack.collector_url, event_id)

    @contextmanager
    def nothing_loaded(self) -> Iterator[None]:
        """Within the block the warehouse's disk is full: what is not loaded yet is not."""
        url = self.stack.controls["warehouse"]
        order = json.dumps({"kind": "disk_full", "times": 1_000_000}).encode()
        urlopen(Request(url, order, method="POST"), timeout=HANGS_S).close()
        try:
            yield
        finally:
            urlopen(Request(url, method="DELETE"), timeout=HANGS_S).close()

    async def load(self, events: int, rate: float, seed: int = 1) -> TrafficRun:
        """Send realistic traffic and return when everything is acknowledged."""
        return await run_traffic(self.stack, TrafficPlan(events=events, rate=rate, seed=seed, **PATIENT))

    async def settled_load(self) -> SettledLoad:
        """A load that tests share which only look at it, or leave it as it was: its rows take half a minute to come."""
        if self._settled is None:
            since, lines = _now(), 2000
            run = await self.load(events=lines, rate=500, seed=61)
            until = _now()
            await self.compare_exact(run)
            self._settled = SettledLoad(run, lines, since, until, _now())
        return self._settled

    async def wait(self) -> Waited:
        """`instream wait` in this process, for as long as more comes to be covered."""
        return await await_coverage(read_settings(), HANGS_S, lambda *_: None, while_it_moves=True)

    async def compare_exact(self, run: TrafficRun) -> Comparison:
        """Wait until everything is covered, compare every row of a run with what was sent, and fail on any difference."""
        waited = await self.wait()
        assert waited.is_covered, waited
        async with await connect(self.stack.warehouse_url) as connection:
            compared = await compare(connection, run.run, run.sent, run.expected)
        assert compared.is_equal, compared
        return compared


def _now() -> str:
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC).isoformat()
