"""Steady load through one outage after the other; memory and lag meanwhile; every row compared afterwards."""

import asyncio
from contextlib import ExitStack
from typing import Final

import msgspec

from app.adapters.kafka import lag
from app.errors import LocalStackError, ServiceUnavailable
from app.local.stack.life import Home
from app.local.stack.stack_file import Stack, read_stack
from app.local.traffic.run import TrafficPlan, TrafficRun, run_traffic
from app.settings import Settings, read_settings
from app.topics import topics_of
from tests.rig.invariants.check import Terms, check
from tests.rig.invariants.settle import Say
from tests.rig.outage.faults import OUTAGES, Outage, frozen
from tests.rig.outage.memory import MemoryWatch, bounds_mib

SETTINGS: Final = {
    "INSTREAM_JOIN_WINDOW_S": "6",
    "INSTREAM_JOIN_GRACE_S": "5",
    "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "3",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
    "INSTREAM_AUDIT_INTERVAL_S": "10",
    "INSTREAM_AUDIT_GRACE_S": "30",
    "INSTREAM_IDLE_COMMIT_INTERVAL_S": "5",
    "INSTREAM_STALL_TIMEOUT_S": "60",
    "INSTREAM_MAX_BUFFERED_BYTES": str(8 * 1024 * 1024),
    "INSTREAM_COMMIT_BYTES": str(1024 * 1024),
    "INSTREAM_STATE_CACHE_BYTES": str(16 * 1024 * 1024),
}
"""Seconds where production has minutes, and buffers that a laptop's load can fill. Long outages outlast the watchdog: then
workers end, and start again, in them."""
WARM: Final = "before"
AFTER: Final = "after"
SETTLE_S: Final = 900.0
"""Longest time after the last outage until everything is in the warehouse."""
CATCH_UP_S: Final = 300.0
"""A client goes on trying for so much longer than an outage."""


class Behind(msgspec.Struct, frozen=True):
    """Messages that wait in Kafka for a role, over all partitions; None if the broker did not answer."""

    etl: int | None
    sink: int | None


class Passed(msgspec.Struct, frozen=True):
    """One outage."""

    name: str
    seconds: float
    before: Behind
    at_its_end: Behind
    after: Behind
    """The lag after half the time of the outage has passed, with the load going on."""


class OutageResult(msgspec.Struct, kw_only=True):
    """The result of an outage run."""

    outages: list[Passed]
    peaks_mib: dict[str, dict[str, int]]
    """Phase -> role -> highest resident memory of a process."""
    bounds_mib: dict[str, int]
    violations: list[str]
    lines: int
    retries: int
    """Requests that clients sent again."""
    restarts: dict[str, int]
    """Role or service -> number of restarts; a worker may end in an outage."""

    @property
    def over(self) -> list[str]:
        """Phases in which memory was over its bound, in words."""
        return [
            f"{role} had {peak} MiB in {phase}, its bound is {self.bounds_mib[role]}"
            for phase, roles in self.peaks_mib.items()
            for role, peak in roles.items()
            if peak > self.bounds_mib[role]
        ]


async def run_outages(home: Home, minutes: float, rate: float, say: Say) -> OutageResult:
    """Run every outage on the stack in `home` under a load of `rate` lines a second, over `minutes` in all.

    Of five equal parts three are outages; between them, before and after lies half a part each.

    Raises:
        LocalStackError: there is no stack, or a client gave up.
        ServiceUnavailable: a service does not answer afterwards.
    """
    settings, part_s = read_settings(), minutes * 60 / 5
    watch = MemoryWatch(home)
    watch.phase = WARM
    sampling = asyncio.create_task(watch.run())
    plan = TrafficPlan(
        events=int(rate * minutes * 60), rate=rate, keep_bodies=True, patience_s=2 * part_s + CATCH_UP_S
    )  # fmt: skip
    loading = asyncio.create_task(run_traffic(_stack(home), plan))
    try:
        await _while_loading(loading, part_s / 2)
        passed = []
        for outage in OUTAGES:
            say(f"{outage.name} is frozen for {part_s:.0f} s")
            passed.append(await _pass(home, settings, outage, part_s, (watch, loading)))
        watch.phase = AFTER
        say("the load ends")
        run = await loading
        say(f"{run.sent.lines:,} lines are acknowledged, {run.sent.retries} requests were sent again; waiting for the rest")
        violations = await check(settings, [run], Terms(settle_s=SETTLE_S, replays=False), lambda line: say(line[:100]))
    finally:
        loading.cancel()
        sampling.cancel()
        await asyncio.wait([loading, sampling])
    return OutageResult(
        outages=passed, peaks_mib={phase: dict(roles) for phase, roles in watch.peaks_mib.items()},
        bounds_mib=bounds_mib(settings, settings.partitions), violations=[str(violation) for violation in violations],
        lines=run.sent.lines, retries=run.sent.retries, restarts=_stack(home).restarts,
    )  # fmt: skip


async def _pass(
    home: Home, settings: Settings, outage: Outage, part_s: float, at_work: tuple[MemoryWatch, "asyncio.Task[TrafficRun]"]
) -> Passed:
    """One outage and half a part behind it."""
    watch, loading = at_work
    before = await _behind(settings)
    watch.phase = outage.name
    with ExitStack() as down:
        if outage.backlog:
            with frozen(_stack(home), outage.backlog):
                await _while_loading(loading, part_s / 4)
                down.enter_context(frozen(_stack(home), outage.frozen))
        else:
            down.enter_context(frozen(_stack(home), outage.frozen))
        await _while_loading(loading, part_s * 3 / 4 if outage.backlog else part_s)
    at_its_end = await _behind(settings)
    await _while_loading(loading, part_s / 2)
    return Passed(outage.name, part_s, before, at_its_end, await _behind(settings))


async def _while_loading(loading: "asyncio.Task[TrafficRun]", seconds: float) -> None:
    """Let the load go on for so long; raise the exception that ended it early."""
    await asyncio.wait([loading], timeout=seconds)
    if loading.done():
        loading.result()


async def _behind(settings: Settings) -> Behind:
    topics = topics_of(settings)
    found: list[int | None] = []
    for role, topic in (("etl", topics.blocks.name), ("sink", topics.rows.name)):
        try:
            found.append(sum((await lag(settings, f"instream-{role}-e{settings.epoch}", topic)).values()))
        except ServiceUnavailable:
            found.append(None)
    return Behind(*found)


def _stack(home: Home) -> Stack:
    stack = read_stack(home)
    if stack is None:
        raise LocalStackError(f"no stack is up in {home.path}")
    return stack
