"""One drill: load, every process up, every process back, quiet, judgement."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec

from app.adapters.warehouse import connect
from app.clock import SystemClock
from app.core.formats.flows import OUTPUTS
from app.errors import LocalStackError
from app.local.stack.environment import ROLES
from app.local.stack.life import Home
from app.local.stack.stack_file import Stack
from app.settings import Settings, read_settings
from tests.rig.chaos.workers import Workers
from tests.rig.invariants.check import SETTLE_S, Terms, judge
from tests.rig.invariants.gather import Ports, ports_of, read_registry
from tests.rig.invariants.replays import check_replays
from tests.rig.invariants.settle import settle
from tests.rig.invariants.violation import Violation, listed
from tests.rig.upgrade import newer_rows
from tests.rig.upgrade.load import Load
from tests.rig.upgrade.newer_events import NEWER_FLOW, NEWER_TYPE, NewerRun
from tests.rig.upgrade.newer_rows import Reign
from tests.rig.upgrade.pauses import (
    Arrivals,
    absent_since,
    longest,
    longest_by_partition,
    read_arrivals,
)
from tests.rig.upgrade.plan import Step, Way, plan
from tests.rig.upgrade.report import Done, PartitionPause, Report
from tests.rig.upgrade.switch import Switch, outputs_of

Say = Callable[[str], None]
LOOK_S: Final = 0.5
ARRIVALS_NEWER: Final = 6
"""So often every partition shows something new before the first step back."""
WAITS_S: Final = 300.0
"""A partition that shows nothing new for so long is stuck."""
ARRIVALS_BEFORE: Final = 6
"""So often every partition shows something new before the first step: the pauses of a stack that nobody disturbs."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a drill."""

    words: str
    """The versions, in words."""
    trees: dict[Way, Path]
    rate: float
    """Lines a second."""
    extras: tuple[str, ...] = ()
    """Workers beside the supervised ones."""
    replays: bool = True
    """Send every batch again at the end (I5)."""


async def run_drill(home: Home, stack: Stack, options: Options, say: Say) -> Report:
    """Take a running stack up to the newer version and back under load, and judge it.

    Raises:
        LocalStackError: a process did not become ready, or a partition stands still: the upgrade failed.
    """
    start_s = time.monotonic()
    settings = read_settings()
    report = Report(versions=options.words)
    workers = Workers(home, stack, SystemClock())
    older_outputs = await outputs_of(options.trees[Way.BACK])
    may_lack = frozenset(flow.name for flow in OUTPUTS) - older_outputs
    load = Load(stack, options.rate, sends_newer=NEWER_FLOW in may_lack)
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(workers.close)
        cleanup.push_async_callback(load.cancel)
        await _start_extras(workers, options.extras)
        switch = Switch(home, workers, settings, options.trees)
        await _all_run(switch, options)
        load.start()
        report.load_began_s = load.began_s
        say("the load begins; every partition shows its first rows before the first step")
        await _until_seen(settings, load, load.began_s, ARRIVALS_BEFORE, "the start")
        for step in plan(options.extras):
            if report.steps and report.steps[-1].step.way is not step.way:
                say("everything runs the newer version")
                await _until_seen(settings, load, report.steps[-1].ready_s, ARRIVALS_NEWER, "the way up")
            report.steps.append(await _step(switch, settings, load, step, say))
        say("everything is back; the load ends")
        traffic, newer = await load.end()
        report.load_s = load.ended_s - load.began_s
        quiet_s = time.monotonic()
        async with ports_of(settings) as ports:
            report.violations += await settle(ports, SETTLE_S, say)
            report.settled_s = time.monotonic() - quiet_s
            found = await read_arrivals(ports.warehouse, settings.epoch)
            describe_pauses(report, found, load.ended_s)
            report.violations += judge_pauses(found, settings.partitions)
            others = await _judge_newer(report, newer, ports)
            say("judging rows, ledger, raw files and transactions")
            report.violations += await judge(ports, [traffic], Terms(others=others, may_lack=may_lack), say)
            if options.replays:
                report.violations += await check_replays(ports, SETTLE_S, say)
        report.violations += await _all_ready(workers)
        report.lines = traffic.sent.lines + (newer.sent.lines if newer else 0)
        report.requests_retried = traffic.sent.retries + (newer.sent.retries if newer else 0)
        report.slowest_answer_s = max(traffic.sent.slowest_answer_s, newer.sent.slowest_answer_s if newer else 0.0)
    report.took_s = time.monotonic() - start_s
    return report


def describe_pauses(report: Report, found: Arrivals, load_ended_s: float) -> None:
    """Put the longest pause of every step and of every partition into the report, of those that end while the load runs."""
    found = {partition: [moment for moment in moments if moment <= load_ended_s] for partition, moments in found.items()}
    report.step_pauses_s = []
    for done in report.steps:
        pause = longest(found, done.began_s, done.ready_s)
        report.step_pauses_s.append(pause.seconds if pause else 0.0)
    first_s = report.steps[0].began_s
    before = longest_by_partition(found, report.load_began_s, first_s)
    for partition, pause in longest_by_partition(found, first_s, load_ended_s).items():
        during = [done.step for done in report.steps if pause.from_s < done.ready_s and pause.until_s > done.began_s]
        untouched = before.get(partition)
        report.partitions.append(
            PartitionPause(
                partition,
                untouched.seconds if untouched else 0.0,
                pause.seconds,
                pause.from_s - report.load_began_s,
                ", ".join(f"{step.process} {step.way}" for step in during),
            )
        )


def judge_pauses(found: Arrivals, partitions: int) -> list[Violation]:
    """Each partition was measured: one that never showed a row has no pause, and must not look good for it."""
    absent = [number for number in range(partitions) if len(found.get(number, ())) < 2]
    return [Violation("I7", f"partitions that showed less than two loads of rows: {absent}")] if absent else []


def reign_of(steps: Sequence[Done], role: str) -> Reign:
    """When a role was which version."""
    moments = {way: [done for done in steps if done.step.role == role and done.step.way is way] for way in Way}
    up, back = moments[Way.UP], moments[Way.BACK]
    return Reign(
        round(min(done.began_s for done in up) * 1000), round(max(done.ready_s for done in up) * 1000),
        round(min(done.began_s for done in back) * 1000), round(max(done.ready_s for done in back) * 1000),
    )  # fmt: skip


async def _step(switch: Switch, settings: Settings, load: Load, step: Step, say: Say) -> Done:
    if step.drains:
        say(f"      before {step.role} goes back: waiting until it needs nothing newer any more")
        await switch.drain(step.role)
    began_s = time.time()
    await switch.make(step)
    ready_s = time.time()
    await _until_seen(settings, load, ready_s, 1, f"{step.process} went {step.way}")
    done = Done(step, began_s, ready_s, time.time())
    say(
        f"{began_s - load.began_s:4.0f} s  {step.process} goes {step.way}: ready after {ready_s - began_s:.1f} s, "
        f"new rows of every partition after {done.visible_s - began_s:.1f} s"
    )
    return done


async def _until_seen(settings: Settings, load: Load, since_s: float, times: int, after: str) -> None:
    """Return once every partition has shown something new so often since a moment; `after` names the moment.

    Raises:
        LocalStackError: one does not.
    """
    deadline_s = time.monotonic() + WAITS_S
    async with await connect(settings.warehouse_url) as connection:
        await connection.set_autocommit(True)
        while True:
            found = await read_arrivals(connection, settings.epoch)
            if not (absent := absent_since(found, since_s, settings.partitions, times)):
                return
            load.check()
            if time.monotonic() > deadline_s:
                raise LocalStackError(f"partitions {absent} show no new rows for {WAITS_S:g} s after {after}")
            await asyncio.sleep(LOOK_S)


async def _start_extras(workers: Workers, extras: Sequence[str]) -> None:
    for name in extras:
        await workers.add(name)
    if not await _become_ready(workers):
        raise LocalStackError(f"not ready {WAITS_S:g} s after the start: {', '.join(await workers.unready())}")


async def _all_run(switch: Switch, options: Options) -> None:
    """Raise where a process does not begin with the older version."""
    for process in (*ROLES, *options.extras):
        if (found := await switch.code_of(process)) != options.trees[Way.BACK]:
            raise LocalStackError(f"{process} begins with the code of {found}, not of {options.trees[Way.BACK]}")


async def _become_ready(workers: Workers) -> bool:
    deadline_s = time.monotonic() + WAITS_S
    while await workers.unready():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True


async def _all_ready(workers: Workers) -> list[Violation]:
    if await _become_ready(workers):
        return []
    return [Violation("I7", f"not ready at the end: {', '.join(await workers.unready())}")]


async def _judge_newer(report: Report, newer: NewerRun | None, ports: Ports) -> dict[str, int]:
    """Judge the newer events and the newer column. Returns: flow -> rows of the newer events."""
    if newer is None:
        return {}
    rows = await newer_rows.read_newer_rows(ports.warehouse, newer.run)
    depths = await newer_rows.read_depths(ports.warehouse)
    report.newer_events = sum(one.facts.event_type == NEWER_TYPE for one in newer.sent.events.values())
    report.newer_loaded, report.newer_fields = len(rows.loaded), rows.filled_fields()
    report.newer_columns = newer_rows.share_filled(depths)
    report.violations += newer_rows.judge_newer_rows(newer, rows, reign_of(report.steps, "collector"))
    report.violations += newer_rows.judge_depths(depths, reign_of(report.steps, "etl"))
    if unknown := sorted(newer.sent.acknowledged_at_ms.keys() - (await read_registry(ports)).keys()):
        report.violations.append(
            Violation("I3", f"batches of newer events that the registry does not have: {listed(unknown)}")
        )
    if not (rows.loaded and report.newer_fields and report.newer_columns):
        report.violations.append(Violation("I1", "nothing of the newer version came through: nothing was upgraded"))
    return rows.totals()
