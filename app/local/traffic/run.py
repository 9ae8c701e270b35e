"""One run: schedule, send, expect."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from app.local.stack.stack_file import Stack
from app.local.traffic.expect import Expectations, expect
from app.local.traffic.schedule import requests, schedule
from app.local.traffic.send import GIVE_UP_S, Sender, SentRequest
from app.local.traffic.stories import Author, Timing
from app.progress import Bar, ProgressLines

LEAD_MS: Final = 200
"""Time between the decision to start and offset 0."""


LATEST_S: Final = 3
"""The last second comes about so much later than every bound of the join."""


class TrafficPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic of a run."""

    events: int
    """Lines, resent ones included."""
    rate: float
    """Lines a second while stories begin."""
    seed: int = 1
    keep_bodies: bool = False
    patience_s: float = GIVE_UP_S
    """If a request is refused or unanswered for so long, the run is given up."""


class TrafficRun(msgspec.Struct, frozen=True):
    """The sent lines and the expected result."""

    run: str
    """Start of every id of the run."""
    sent: SentRequest
    expected: Expectations


def timing_of(stack: Stack) -> Timing:
    """The join's rules on a stack."""
    rules = stack.settings
    return Timing(rules.join_window_s, rules.join_grace_s, rules.join_reorder_s, rules.slack_s)


def expected_s(stack: Stack, plan: TrafficPlan) -> float:
    """About how many seconds the run takes on an idle stack."""
    rules = stack.settings
    return plan.events / plan.rate + rules.join_window_s + rules.join_grace_s + rules.slack_s + LATEST_S


async def run_traffic(
    stack: Stack, plan: TrafficPlan, progress: Callable[[int], None] | None = None,
    has_ended: Callable[[], bool] = lambda: False,
) -> TrafficRun:  # fmt: skip
    """Send a run to a stack, in real time: the last second comes a window, a grace and some seconds after its first.

    Args:
        stack: where to.
        plan: how much, how fast.
        progress: called with the number of lines acknowledged so far.
        has_ended: ends the run before all events of the plan are sent, once it says yes.

    Raises:
        LocalStackError: the collector refused or lost something.
    """
    run = f"r{secrets.token_hex(4)}"
    started_at_ms = time.time_ns() // 1_000_000 + LEAD_MS
    author = Author(plan.seed, run, started_at_ms, timing_of(stack))
    sender = Sender(stack.collector_url, started_at_ms, keep_bodies=plan.keep_bodies, patience_s=plan.patience_s)
    await asyncio.sleep(LEAD_MS / 1000)
    sent = await sender.run(requests(schedule(author, plan.events, plan.rate, has_ended), plan.seed), progress)
    return TrafficRun(run, sent, expect(sent, timing_of(stack)))


async def send_run(stack: Stack, plan: TrafficPlan, say: ProgressLines) -> TrafficRun:
    """Send a run, and show its progress.

    Raises:
        LocalStackError: the collector refused or lost something.
    """
    last_s = stack.settings.join_window_s + stack.settings.join_grace_s
    say(
        f"sending {plan.events:,} lines in about {expected_s(stack, plan):.0f} s: second events come up to {last_s:g} s "
        "after their page views"
    )
    with Bar(say, "lines are acknowledged") as bar:
        bar(0, plan.events)
        return await run_traffic(stack, plan, lambda lines: bar(lines, plan.events))
