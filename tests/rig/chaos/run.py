"""One run: load, faults beside it, quiet, and then the invariants."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from app.clock import SystemClock
from app.errors import LocalStackError
from app.local.services.aws_faults import Rates
from app.local.stack.life import Home
from app.local.stack.stack_file import Stack, read_stack
from app.local.traffic.run import TrafficPlan, TrafficRun, run_traffic
from app.settings import read_settings
from tests.rig.chaos.items import Items
from tests.rig.chaos.messages import Messages
from tests.rig.chaos.objects import Objects
from tests.rig.chaos.plan import kinds_of, plan
from tests.rig.chaos.quarantine import judge_quarantine, release_all
from tests.rig.chaos.report import Journal, Report
from tests.rig.chaos.services import Services
from tests.rig.chaos.strike import KIND_OF_WAREHOUSE, Damages, Striker
from tests.rig.chaos.workers import Workers
from tests.rig.invariants.check import ALL, judge
from tests.rig.invariants.deep import judge_copies
from tests.rig.invariants.gather import Ports, ports_of, read_chains, read_registry
from tests.rig.invariants.replays import check_replays
from tests.rig.invariants.settle import settle
from tests.rig.invariants.violation import Violation
from tests.worlds.waiting import HANGS_S

Say = Callable[[str], None]
SETTINGS: Final = {
    "INSTREAM_JOIN_WINDOW_S": "5", "INSTREAM_JOIN_GRACE_S": "4", "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "3", "INSTREAM_IDLE_COMMIT_INTERVAL_S": "5", "INSTREAM_DELIVERY_INTERVAL_S": "1",
    "INSTREAM_AUDIT_INTERVAL_S": "5", "INSTREAM_AUDIT_GRACE_S": "30", "INSTREAM_STALL_TIMEOUT_S": "60",
    "INSTREAM_RESTART_HEALTHY_S": "3",
}  # fmt: skip
"""Seconds where production has minutes: a fault then meets every phase of everything."""
RATES: Final = Rates(s3=0.05, throttled=0.2, partial=0.1, twice=0.1, dynamodb=0.02)
SETTLE_S: Final = 600.0
"""I7: after so long after the last fault no work may be left."""
READY_S: Final = HANGS_S
"""Time for a worker to be ready after that: a backoff, a start, a rebalance."""
MORE_S: Final = 5.0
"""Length in seconds of the extra traffic that follows the planned traffic while faults still strike."""
TELL_EVERY_S: Final = 10.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run."""

    minutes: float = 10.0
    seed: int = 1
    rate: float = 80.0
    """Lines a second."""

    @property
    def seconds(self) -> float:
        """Seconds of faults."""
        return self.minutes * 60


async def run_chaos(home: Home, stack: Stack, options: Options, say: Say) -> Report:
    """Load a running stack, let faults strike for a while, wait until it has settled, and judge it.

    Raises:
        LocalStackError: the stack itself is gone.
    """
    start = time.monotonic()
    clock, journal = SystemClock(), Journal()
    workers, services = Workers(home, stack, clock), Services(stack)
    rates = msgspec.structs.replace(RATES, seed=options.seed)
    settings = read_settings()
    damages = Damages(
        Messages(settings, services, journal), Objects(settings, workers, journal), Items(settings, services, journal)
    )
    striker = Striker(workers, services, journal, rates, damages)
    faults = asyncio.create_task(striker.run(plan(options.seed, options.seconds), options.seconds))
    traffic = asyncio.create_task(_load(stack, options, faults, journal, say))
    try:
        await faults
        quiet = time.monotonic()
        say(f"the faults are over after {journal.elapsed_s:.0f} s")
        report = Report(seed=options.seed, minutes=options.minutes, faults=await _counts(journal, services, options.seconds))
        report.missed = _missed(journal)
        runs = await _loaded(traffic, report)
        report.violations += damages.objects.violations + await damages.items.judge()
        async with ports_of(settings) as ports:
            aside: set[str] = set()
            report.violations += await _settled(ports, aside, quiet, say)
            report.violations += judge_quarantine(aside, [*striker.unreadable, *damages.objects.blamed])
            report.settled_s = round(time.monotonic() - quiet, 1)
            report.violations += await _ready(workers)
            say(f"settled {report.settled_s} s after the faults; judging")
            await _describe(ports, runs, home, report)
            report.violations += await judge(ports, runs, ALL, say)
            say("asking the deep audit, and the query over the bucket")
            report.violations += await judge_copies(ports, runs)
            report.violations += await check_replays(ports, SETTLE_S, say)
    finally:
        for task in (traffic, faults):
            task.cancel()
        await asyncio.wait({traffic, faults})
        await damages.objects.close()
        await workers.close()
        await services.close()
    report.took_s = round(time.monotonic() - start, 1)
    report.journal = sorted([*journal.struck, *journal.missed], key=lambda one: one.at_s)
    return report


async def _load(
    stack: Stack, options: Options, faults: "asyncio.Task[None]", journal: Journal, say: Say
) -> list[TrafficRun]:  # fmt: skip
    """Steady traffic while faults are planned, and more of it while they still strike."""
    announced = 0.0

    def progress(lines: int) -> None:
        nonlocal announced
        now = time.monotonic()
        if now - announced >= TELL_EVERY_S:
            announced = now
            say(f"{journal.elapsed_s:5.0f} s  {lines:,} lines are acknowledged, {len(journal.struck)} faults struck")

    runs: list[TrafficRun] = []
    seconds = options.seconds
    while not runs or not faults.done():
        plan = TrafficPlan(
            events=round(options.rate * seconds), rate=options.rate, seed=options.seed + len(runs), keep_bodies=True,
            patience_s=HANGS_S,
        )  # fmt: skip
        runs.append(await run_traffic(stack, plan, progress))
        seconds = MORE_S
    return runs


async def _loaded(traffic: "asyncio.Task[list[TrafficRun]]", report: Report) -> list[TrafficRun]:
    """The runs; if the collector broke its contract with a client, a violation and no runs."""
    try:
        return await traffic
    except LocalStackError as exc:
        report.violations.append(Violation("I3", f"the load ended: {exc}"))
        return []


async def _counts(journal: Journal, services: Services, seconds: float) -> dict[str, int]:
    """Kind -> number of strikes: faults carried out here, and faults of the stand-ins themselves."""
    counts: dict[str, int] = {kind.value: 0 for kind in kinds_of(seconds)}
    counts |= journal.counts()
    for name, count in (await services.warehouse_struck()).items():
        counts[KIND_OF_WAREHOUSE[name].value] = count
    return counts | await services.aws_struck()


def _missed(journal: Journal) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in journal.missed:
        counts[one.kind] = counts.get(one.kind, 0) + 1
    return counts


async def _settled(ports: Ports, aside: set[str], quiet: float, say: Say) -> list[Violation]:
    """Wait for I7; meanwhile release the transactions that the warehouse could not read, as an operator does (rule D2).

    `aside` gets the transactions that were found quarantined.
    """
    left_s = SETTLE_S - (time.monotonic() - quiet)
    releasing = asyncio.create_task(release_all(ports.settings, aside, say))
    try:
        return await settle(ports, left_s, say)
    finally:
        releasing.cancel()


async def _ready(workers: Workers) -> list[Violation]:
    """Also part of I7: every worker works. If one cannot start any more while another does its work, only this check sees
    it."""
    deadline = time.monotonic() + READY_S
    while unready := await workers.unready():
        if time.monotonic() > deadline:
            return [Violation("I7", f"not ready {READY_S:g} s after everything was settled: {', '.join(unready)}")]
        await asyncio.sleep(1)
    return []


async def _describe(ports: Ports, runs: Sequence[TrafficRun], home: Home, report: Report) -> None:
    """The amounts of a run."""
    for one in runs:
        report.lines += one.sent.lines
        report.requests_retried += one.sent.retries
    report.batches = len(await read_registry(ports))
    report.transactions = len((await read_chains(ports))[0])
    stack = read_stack(home)
    report.restarts = {} if stack is None else {name: count for name, count in stack.restarts.items() if count}
