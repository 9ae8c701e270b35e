"""The whole path once on a running stack: traffic, the warehouse's ledger, every row compared, latencies."""

import time
from typing import Final

import msgspec

from agents.audit.coverage import Waited, await_coverage
from app.adapters.warehouse import connect
from app.local.stack.stack_file import Stack
from app.local.traffic.compare import Comparison, Latency, compare, latencies
from app.local.traffic.expect import Summary, summarise
from app.local.traffic.run import TrafficPlan, send_run
from app.progress import Bar, ProgressLines
from app.settings import read_settings

TELL_EVERY_S: Final = 10
WAIT_S: Final = 120
"""A run gives up if for so long not one more batch is covered, even on a busy machine."""


class WholePathResult(msgspec.Struct, kw_only=True):
    """The result of one run through the whole path."""

    equal: bool
    took_s: float
    sent: Summary
    waited: Waited
    compared: Comparison
    latency: dict[str, Latency]


async def load_and_compare(stack: Stack, events: int, rate: float, say: ProgressLines) -> WholePathResult:
    """Load a running stack, wait for the warehouse, compare every row.

    Raises:
        LocalStackError: the collector refused or lost something.
    """
    start = time.monotonic()
    plan = TrafficPlan(events=events, rate=rate, keep_bodies=True)
    run = await send_run(stack, plan, say)
    summary = summarise(run.sent, run.expected)
    say(f"{summary.lines:,} lines are acknowledged after {summary.took_s} s; waiting for the warehouse")
    with Bar(say, "batches are covered", TELL_EVERY_S) as bar:
        waited = await await_coverage(read_settings(), WAIT_S, bar, while_it_moves=True)
    say("comparing every row of six flows with what was sent")
    async with await connect(stack.warehouse_url) as connection:
        compared = await compare(connection, run.run, run.sent, run.expected)
        latency = await latencies(connection, run.sent)
    is_equal = compared.is_equal and waited.is_covered
    took_s = round(time.monotonic() - start, 1)
    return WholePathResult(equal=is_equal, took_s=took_s, sent=summary, waited=waited, compared=compared, latency=latency)
