"""`instream demo`: the whole path once, on a stack of its own, and the warehouse compared with the sent lines."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.options import MOST_LINES, MOST_RATE, number, whole
from app.cli.show import Exit, JsonOption, print_json, print_table
from app.progress import ProgressLines

if TYPE_CHECKING:
    from app.bench.whole_path import WholePathResult

RATE: Final = 2500
REAL_TIME_RATE: Final = 1000
WHOSE: Final = {"all": "all lines", "page views": "page views", "without join": "lines that wait for no join"}
"""The names of the latencies."""


def show(result: "WholePathResult") -> None:
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
    from app.bench.whole_path import load_and_compare  # noqa: PLC0415 - commands load what they need
    from app.local.stack.own_stack import COMPRESSED, own_stack  # noqa: PLC0415

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
