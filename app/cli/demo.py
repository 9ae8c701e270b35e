"""`instream demo`: the whole path once, on a stack of its own, and the warehouse compared with the sent lines."""

import asyncio
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from app.cli.load import send
from app.cli.options import MOST_LINES, MOST_RATE, number, whole
from app.cli.show import Bar, Exit, JsonOption, ProgressLines, end_in_order_when_told, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.cli.wait import Waited
    from app.local.stack.life import Home
    from app.local.stack.stack_file import Stack
    from app.local.traffic.compare import Comparison, Latency
    from app.local.traffic.expect import Summary

COMPRESSED: Final = {
    "INSTREAM_JOIN_WINDOW_S": "6",
    "INSTREAM_JOIN_GRACE_S": "5",
    "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "3",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
}
"""A join window of seconds instead of 90, so that a demo takes a minute."""
RATE: Final = 2500
REAL_TIME_RATE: Final = 1000
WHOSE: Final = {"all": "all lines", "page views": "page views", "without join": "lines that wait for no join"}
"""The names of the latencies."""
WAIT_S: Final = 120
"""The demo gives up if for so long not one more batch is covered, even on a busy machine."""


class DemoResult(msgspec.Struct, kw_only=True):
    """The demo's answer."""

    equal: bool
    took_s: float
    sent: "Summary"
    waited: "Waited"
    compared: "Comparison"
    latency: "dict[str, Latency]"


async def load_and_compare(stack: "Stack", events: int, rate: float, say: ProgressLines) -> DemoResult:
    """Load a running stack, wait for the warehouse, compare every row.

    Raises:
        LocalStackError: the collector refused or lost something.
    """
    from app.adapters.warehouse import connect  # noqa: PLC0415 - commands load what they need
    from app.cli.wait import COVERED, TELL_EVERY_S, await_coverage  # noqa: PLC0415
    from app.local.traffic.compare import compare, latencies  # noqa: PLC0415
    from app.local.traffic.expect import summarise  # noqa: PLC0415
    from app.local.traffic.run import TrafficPlan  # noqa: PLC0415
    from app.settings import read_settings  # noqa: PLC0415

    start = time.monotonic()
    plan = TrafficPlan(events=events, rate=rate, keep_bodies=True)
    run = await send(stack, plan, say)
    summary = summarise(run.sent, run.expected)
    say(f"{summary.lines:,} lines are acknowledged after {summary.took_s} s; waiting for the warehouse")
    with Bar(say, COVERED, TELL_EVERY_S) as bar:
        waited = await await_coverage(read_settings(), WAIT_S, bar, while_it_moves=True)
    say("comparing every row of six flows with what was sent")
    async with await connect(stack.warehouse_url) as connection:
        compared = await compare(connection, run.run, run.sent, run.expected)
        latency = await latencies(connection, run.sent)
    is_equal = compared.is_equal and waited.exit_code is Exit.OK
    took_s = round(time.monotonic() - start, 1)
    return DemoResult(equal=is_equal, took_s=took_s, sent=summary, waited=waited, compared=compared, latency=latency)


@contextmanager
def own_stack(settings: dict[str, str], say: ProgressLines) -> "Iterator[Stack]":
    """A stack in a folder of its own, on free ports; it is removed after the block.

    If the block fails, its logs are kept and named.

    Within the block this process has the stack's environment.
    """
    from app.local.stack.control import down, up  # noqa: PLC0415
    from app.local.stack.life import Home  # noqa: PLC0415
    from app.local.stack.settings import PORT_VARIABLES  # noqa: PLC0415
    from app.local.stack.stack_file import enter, environment  # noqa: PLC0415

    end_in_order_when_told()
    home = Home(Path(tempfile.mkdtemp(prefix="instream-demo-")))
    has_failed = False
    with environment({"INSTREAM_HOME": str(home.path)} | dict.fromkeys(PORT_VARIABLES.values(), "0") | settings):
        try:
            stack = up(home, say)
            enter(home)
            yield stack
        except Exception:  # an interruption is no failure: its logs are not needed
            has_failed = True
            raise
        finally:
            if home.is_held():
                say("stopping the stack")
            down(home, lambda _: None)
            _clear(home, say, keep_logs=has_failed and home.logs.exists())


def _clear(home: "Home", say: ProgressLines, *, keep_logs: bool) -> None:
    if not keep_logs:
        shutil.rmtree(home.path)
        return
    shutil.rmtree(home.data, ignore_errors=True)
    say(f"logs are kept in {home.path}")


def show(result: DemoResult) -> None:
    """Print the table and the verdict."""
    compared = result.compared
    rows: list[tuple[str, int | str, int | None]] = [
        ("lines sent", result.sent.lines, None),
        ("bots", result.sent.bots, None),
        ("malformed", result.sent.malformed, None),
    ]
    bounds = {"duplicates": compared.duplicates, "joined": compared.joined, **compared.flows}
    for name, counts in bounds.items():
        expected = counts.least if counts.least == counts.most else f"{counts.least:,} to {counts.most:,}"
        rows.append((name if name in {"duplicates", "joined"} else f"rows in {name}", expected, counts.found))
    rows.append(("open batches", 0, result.waited.registered - result.waited.covered))
    print_table(f"{result.waited.registered} batches, {result.took_s} s", ("", "expected", "in the warehouse"), rows)
    for name, latency in result.latency.items():
        print(f"seconds from acknowledgement to warehouse, {WHOSE[name]}: p50 {latency.p50_s}  p95 {latency.p95_s}  "
              f"p99 {latency.p99_s}  max {latency.max_s}")  # fmt: skip
    if result.sent.unsure_events or result.sent.unsure_lines:
        print(f"a stall left {result.sent.unsure_events} events with more than one right end")
    for example in compared.examples:
        print(example)
    verdict = "EQUAL" if result.equal else "NOT EQUAL"
    print(f"{verdict}: {compared.missing} missing, {compared.extra} extra, {compared.different} different")


def demo(
    events: Annotated[int, whole("Lines to send.", 1, MOST_LINES)] = 60_000,
    rate: Annotated[float | None, number("Lines a second while new page views start.", 1, MOST_RATE)] = None,
    real_time: Annotated[bool, typer.Option("--real-time", help="The true join window of 90 s; takes minutes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a stack of its own, send realistic traffic, compare every row in the warehouse, stop.

    Another stack in this folder is left alone. The join window is compressed to 6 seconds, unless --real-time. Exit code 0
    only when every row is equal.
    """
    say = ProgressLines()
    if real_time:
        say("in real time: a page view waits 90 + 30 seconds for its second")
    else:
        window, grace = COMPRESSED["INSTREAM_JOIN_WINDOW_S"], COMPRESSED["INSTREAM_JOIN_GRACE_S"]
        say(f"the join window is compressed to {window} + {grace} seconds (90 + 30 with --real-time)")
    with own_stack({} if real_time else COMPRESSED, say) as stack:
        result = asyncio.run(load_and_compare(stack, events, rate or (REAL_TIME_RATE if real_time else RATE), say))
        if as_json:
            print_json(result)
        else:
            show(result)
        if not result.equal:
            raise typer.Exit(Exit.FAILURE)
