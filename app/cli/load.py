"""`instream load`: realistic traffic, and its expected result."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from app.cli.options import MOST_LINES, MOST_RATE, SEEDS, number, whole
from app.cli.show import JsonOption, print_json, print_table
from app.errors import LocalStackError
from app.progress import ProgressLines

if TYPE_CHECKING:
    from app.local.traffic.expect import Summary


def show_summary(summary: "Summary") -> None:
    """Print the sent lines of a run and the expected result."""

    def words(value: "int | tuple[int, int]") -> int | str:
        return value if isinstance(value, int) else f"{value[0]:,} to {value[1]:,}"

    sent = [
        ("lines sent", summary.lines), ("requests", summary.requests), ("duplicates", summary.duplicates),
        ("bots", summary.bots), ("malformed", summary.malformed), ("joined", words(summary.joined)),
        *((f"rows in {flow}", words(rows)) for flow, rows in summary.rows.items()),
    ]  # fmt: skip
    print_table(f"sent in {summary.took_s} s, slowest answer {summary.slowest_answer_s} s; expected", ("", "lines"), sent)
    if summary.retries:
        print(f"{summary.retries} requests were sent again; {summary.unsure_lines} lines may have been kept twice")
    if summary.unsure_events:
        print(f"{summary.unsure_events} events may end in more than one way: a stall brought them near a bound of the join")


def load(
    events: Annotated[int, whole("Lines to send, resent ones included.", 1, MOST_LINES)] = 10_000,
    rate: Annotated[float, number("Lines a second while new page views start.", 1, MOST_RATE)] = 500,
    seed: Annotated[int, whole("The same seed gives the same traffic, under new ids.", *SEEDS)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Send realistic traffic to the running stack: duplicates, bots, malformed lines, late and missing seconds, nasty texts.

    Seconds are sent the stack's join window after their firsts, in real time, so a run takes longer than events / rate.
    Prints the rows that must be in the warehouse afterwards.
    """
    from app.local.stack.stack_file import home_of_environment, read_stack  # noqa: PLC0415 - commands load what they need
    from app.local.traffic.expect import summarise  # noqa: PLC0415
    from app.local.traffic.run import TrafficPlan, send_run  # noqa: PLC0415

    stack = read_stack(home_of_environment())
    if stack is None:
        raise LocalStackError("no stack is up here: run `instream up` (or set INSTREAM_HOME)")
    run = asyncio.run(send_run(stack, TrafficPlan(events=events, rate=rate, seed=seed), ProgressLines()))
    summary = summarise(run.sent, run.expected)
    if as_json:
        print_json(summary)
    else:
        show_summary(summary)
