"""One life of a stack in which workers die at crash points, round by round, and everything is checked after each."""

import asyncio
import json
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from app.adapters.warehouse import connect
from app.crash.catalogue import Point, read_point
from app.crash.points import EXIT_CODE, Armed, Death, PlanFile
from app.errors import LocalStackError
from app.local.stack.life import Home
from app.local.stack.probe import answers_ok, await_true
from app.local.stack.stack_file import Stack, read_stack
from app.local.traffic.compare import Comparison, compare
from app.local.traffic.run import TrafficPlan, TrafficRun, run_traffic
from app.settings import Settings, read_settings
from tests.rig.crash_sweep.events import (
    copy_store,
    leave_in_old_hour,
    leave_orphan,
    lose_ready,
    make_stale,
    mend_file,
    put_foreign,
    replace_steps,
    replay_one,
    reshard,
    spoil_file,
)
from tests.rig.crash_sweep.histories import Event, history_of, restart_of
from tests.rig.crash_sweep.outcome import Outcome
from tests.rig.crash_sweep.rounds import needs
from tests.rig.invariants.check import Terms, check
from tests.worlds.waiting import HANGS_S

Say = Callable[[str], None]

SWEEP_SETTINGS: Final = {
    "INSTREAM_JOIN_WINDOW_S": "3",
    "INSTREAM_JOIN_GRACE_S": "2",
    "INSTREAM_JOIN_REORDER_S": "1",
    "INSTREAM_COMMIT_INTERVAL_S": "2",
    "INSTREAM_IDLE_COMMIT_INTERVAL_S": "5",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
    "INSTREAM_AUDIT_INTERVAL_S": "2",
    "INSTREAM_AUDIT_GRACE_S": "10",
    "INSTREAM_STALL_TIMEOUT_S": "60",
    "INSTREAM_PARTITIONS": "2",
}
"""Seconds where production has minutes, and few partitions: every transaction of a life is read again at its end."""
SHORT_MEMORY: Final = {"INSTREAM_DEDUP_WINDOW_S": "40"}
"""Longer than any recovery here; half of it is one rebalance."""
LAP_LINES: Final = 300
LAP_RATE: Final = 100.0
LAP_EVERY_S: Final = 8.0
"""The next lap begins so long after the last one began, while a point is still to be met."""
ACT_EVERY_S: Final = 4.0
"""After an orphan or a replay the next one follows so long after, while the point is not met."""
REACH_TIMEOUT_S: Final = HANGS_S
READY_TIMEOUT_S: Final = HANGS_S
SETTLE_TIMEOUT_S: Final = HANGS_S
POLL_S: Final = 0.1
FOREVER: Final = 1_000_000


async def _leave_one(settings: Settings, event: Event) -> None:
    """Leave an orphan whose events have ids of their own."""
    run = f"orphan{secrets.token_hex(4)}"
    if event is Event.OLD_HOUR:
        await leave_in_old_hour(settings, run)
    else:
        await leave_orphan(settings, run, cut_short=event is Event.UNREADABLE)


class Sweep:
    """Rounds on one running stack, whose environment this process has."""

    def __init__(self, home: Home, plan: PlanFile, say: Say, times: int = 1) -> None:
        """Sweep the stack in `home`, whose settings name `plan`; at each point a worker dies `times` times in a row."""
        self._home = home
        self._plan = plan
        self._say = say
        self.times = times
        self._seed = 1000 * times
        self._companions: dict[Point, list[Armed]] = {}
        self.runs: list[TrafficRun] = []
        """Everything that was sent."""

    @property
    def stack(self) -> Stack:
        """The content of stack.json now."""
        stack = read_stack(self._home)
        if stack is None:
            raise LocalStackError("the stack is gone")
        return stack

    def arm(self, points: Sequence[Point]) -> dict[Point, Armed]:
        """Arm these points, and before them the points at which other workers must die for them."""
        armed = {point: Armed(secrets.token_hex(4), str(point), self.times) for point in points}
        self._companions = {point: _companions(point) for point in points}
        self._arm_open(armed)
        return armed

    def _arm_open(self, armed: dict[Point, Armed]) -> list[Point]:
        """Arm the points that are still to be met, and only their companions. Returns: the points.

        Other companions would make a role die for a point that is met already.
        """
        still = [point for point, each in armed.items() if not self._has_died(each)]
        others = {each.point: each for point in still for each in self._companions.get(point, ())}
        wanted = [*(armed[point] for point in still), *others.values()]
        if self._plan.armed() != wanted:
            self._plan.arm(wanted)
        return still

    async def round(self, points: Sequence[Point], armed: dict[Point, Armed] | None = None) -> list[Outcome]:
        """Make the roles of these points die there, and check the stack's promises.

        Args:
            points: a round of `rounds_of`.
            armed: their entries in the plan, if they were armed before the stack started.
        """
        older = await self._older_store() if needs(Event.STALE_STORE, points) else None
        armed = armed or self.arm(points)
        laps: list[asyncio.Task[TrafficRun]] = []
        notes: list[str] = []
        watching = {point: asyncio.create_task(self._recovery(armed[point])) for point in points}
        events = [asyncio.create_task(self._bring_about(armed[point], older)) for point in points]
        try:
            await self._traffic_until(lambda: not self._arm_open(armed), laps)
            self._plan.arm([])
            if dead := [task for point, task in watching.items() if self._has_died(armed[point])]:
                await asyncio.wait(dead, timeout=READY_TIMEOUT_S)
            done, _ = await asyncio.wait(events, timeout=READY_TIMEOUT_S)
            notes += [f"what leads to a point failed: {task.exception()!r}" for task in done if task.exception()]
            recovered = {point: task.result() if task.done() else None for point, task in watching.items()}
            notes += await self._settled(laps)
        finally:
            self._plan.arm([])
            for task in (*laps, *watching.values(), *events):
                task.cancel()
        notes += self._strange_exits()
        return [self._outcome(armed[point], recovered[point], notes) for point in points]

    async def warm_up(self) -> None:
        """A lap of traffic without any death.

        Raises:
            LocalStackError: the warehouse does not have the right rows.
        """
        laps: list[asyncio.Task[TrafficRun]] = []
        await self._traffic_until(lambda: True, laps)
        if faults := await self._settled(laps):
            raise LocalStackError("; ".join(faults))

    async def check(self, *, replays: bool) -> list[str]:
        """Check all promises of the stack for everything that was sent (I1 to I4, and I5 if `replays`)."""
        terms = Terms(alone=False, settle_s=SETTLE_TIMEOUT_S, replays=replays)  # orphans belong to no run
        found = await check(read_settings(), self.runs, terms, self._say)
        return [str(violation) for violation in found]

    # --- before and while

    async def _older_store(self) -> Path:
        """Copy the ETL's store, then send a lap and wait until it is loaded.

        The worker is stopped before, which flushes the store: a copy of a new store would be empty.
        """
        older = self._home.path / "older-store"
        pid = self.stack.running_pid("etl")
        os.kill(pid, signal.SIGTERM)
        await self._ready_behind("etl", pid)
        copy_store(self.stack.running_pid("etl"), self._home.data / "etl", older)
        await self.warm_up()
        return older

    async def _bring_about(self, armed: Armed, older: Path | None) -> None:
        """Do the acts that bring the role to the point."""
        settings, point = read_settings(), read_point(armed.point)
        for event in history_of(point).events:
            match event:
                case Event.STOPPED:
                    os.kill(self.stack.running_pid(point.role), signal.SIGTERM)
                case Event.REPAIRED:
                    await replace_steps(settings)
                    os.kill(self.stack.running_pid(point.role), signal.SIGTERM)
                case Event.ORPHAN | Event.UNREADABLE | Event.OLD_HOUR:
                    await self._until_died(armed, partial(_leave_one, settings, event))
                case Event.REPLAY:
                    await self._until_died(armed, lambda: replay_one(settings))
                case Event.BAD_FILE:
                    spoilt = await spoil_file(settings, self.stack.running_pid(point.role))
                    try:
                        await self._until_died(armed, None)
                    finally:
                        await mend_file(settings, spoilt)
                case Event.LOST_READY | Event.LOST_READY_STAGED:
                    is_staged, control = event is Event.LOST_READY_STAGED, self.stack.controls["warehouse"]
                    await self._until_died(armed, partial(lose_ready, settings, control, is_staged=is_staged))
                case Event.FOREIGN:
                    await self._until_died(armed, lambda: put_foreign(settings))
                case Event.RESHARD:
                    self._say(await asyncio.to_thread(reshard, settings))
                case Event.STALE_STORE if older is not None:
                    await make_stale(settings, self.stack.running_pid("etl"), self._home.data / "etl", older)
                case _:
                    pass

    async def _until_died(self, armed: Armed, act: Callable[[], Awaitable[object]] | None) -> None:
        """Wait for the deaths, with an act every few seconds; give up in time."""
        clock = asyncio.get_running_loop().time
        until_s, next_s = clock() + REACH_TIMEOUT_S, clock()
        while not self._has_died(armed) and clock() < until_s:
            if act is not None and clock() >= next_s:
                next_s = clock() + ACT_EVERY_S
                await act()
            await asyncio.sleep(POLL_S)

    async def _traffic_until(
        self, is_done: Callable[[], bool], laps: list[asyncio.Task[TrafficRun]], timeout_s: float = REACH_TIMEOUT_S
    ) -> None:
        """Send laps of traffic, at least one, until the condition holds or the time is up."""
        deadline, next_lap = time.monotonic() + timeout_s, time.monotonic()
        while not is_done() or not laps:
            now = time.monotonic()
            if now > deadline:
                return
            if now >= next_lap:
                self._seed += 1
                plan = TrafficPlan(events=LAP_LINES, rate=LAP_RATE, seed=self._seed, keep_bodies=True)
                laps.append(asyncio.create_task(run_traffic(self.stack, plan)))
                next_lap = now + LAP_EVERY_S
            await asyncio.sleep(POLL_S)

    def _deaths(self, armed: Armed) -> list[Death]:
        return [death for death in self._plan.deaths() if death.armed_id == armed.id]

    def _has_died(self, armed: Armed) -> bool:
        return len(self._deaths(armed)) >= armed.times

    async def _is_dead(self, armed: Armed) -> bool:
        return self._has_died(armed)

    # --- afterwards

    async def _recovery(self, armed: Armed) -> float:
        """Seconds from the last death to a ready worker of that role."""
        role = read_point(armed.point).role
        await await_true(lambda: self._is_dead(armed), POLL_S)
        last = self._deaths(armed)[-1]
        await self._ready_behind(role, last.pid)
        return round(time.time() - last.at_ms / 1000, 1)

    async def _ready_behind(self, role: str, pid: int) -> None:
        """Return when a worker of that role with another pid than `pid` is ready."""
        while True:
            stack = self.stack
            base = stack.collector_url if role == "collector" else stack.metrics[role].removesuffix("/metrics")
            if stack.pid_of(role) not in {None, pid} and await answers_ok(f"{base}/ready"):
                return
            await asyncio.sleep(POLL_S)

    async def _settled(self, laps: list[asyncio.Task[TrafficRun]]) -> list[str]:
        """Wait until everything that was sent is in the warehouse, and compare it. Returns: the faults, in words."""
        from agents.audit.coverage import await_coverage

        results = await asyncio.gather(*laps, return_exceptions=True)
        runs = [result for result in results if isinstance(result, TrafficRun)]
        found = [f"traffic: {result}" for result in results if isinstance(result, BaseException)]
        self.runs += runs
        waited = await await_coverage(read_settings(), SETTLE_TIMEOUT_S, lambda *_: None, while_it_moves=True)
        if not waited.is_covered:
            found.append(f"ledger: {waited.missing} missing, {waited.held} held, {waited.excess} excess: {waited.named}")
        async with await connect(self.stack.warehouse_url) as connection:
            for run in runs:
                compared = await compare(connection, run.run, run.sent, run.expected)
                if not _is_equal(compared):
                    counts = f"{compared.missing} missing, {compared.extra} extra, {compared.different} different"
                    found.append(f"rows of {run.run}: {counts}: {'; '.join(compared.examples[:3])}")
        return found

    def _strange_exits(self) -> list[str]:
        """Faults: fewer processes ended with the points' exit code than the notes say, or a call has no point."""
        ended: Counter[str] = Counter(exits_of(self._home))
        said = Counter(read_point(death.point).role for death in self._plan.deaths())
        found = [
            f"{role}: {said[role]} deaths at points, {ended[role]} exits with code {EXIT_CODE}"
            for role in said
            if said[role] != ended[role]
        ]
        if unlisted := self._plan.unlisted():
            found.append(f"calls without a crash point: {', '.join(sorted(unlisted))}")
        return found

    def _outcome(self, armed: Armed, recovery_s: float | None, violations: Iterable[str]) -> Outcome:
        notes = list(violations)
        died = len(self._deaths(armed))
        count = len(notes)
        if died < armed.times:
            notes.append(f"reached {died} of {armed.times} times")
        elif recovery_s is None:
            notes.append(f"no worker was ready within {READY_TIMEOUT_S:.0f} s")
        return Outcome(armed.point, armed.times, died, recovery_s, count, tuple(notes))


def _companions(point: Point) -> list[Armed]:
    """The points at which workers die so that `point` is reached."""
    found = [Armed(secrets.token_hex(4), name, FOREVER) for name in history_of(point).companions]
    if needs(Event.RESTART, [point]):
        found.append(Armed(secrets.token_hex(4), restart_of(point), 1))
    return found


def _is_equal(compared: Comparison) -> bool:
    """Whether every row is right. Duplicates are not counted per run, because runs at one time share batches."""
    counts = (*compared.flows.values(), compared.joined)
    return not (compared.missing or compared.extra or compared.different) and all(bounds.holds for bounds in counts)


def exits_of(home: Home) -> list[str]:
    """The roles whose processes ended at a crash point, by the supervisor's record."""
    lines = (home.path / "supervisor.log").read_text().splitlines()
    died = [json.loads(line) for line in lines if line.startswith("{") and '"process died"' in line]
    return [entry["process"] for entry in died if entry["code"] == EXIT_CODE]
