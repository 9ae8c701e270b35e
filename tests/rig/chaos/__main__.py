"""`python -m tests.rig.chaos --minutes 10 --seed 1`: chaos against a stack of its own; exit code 0 without a violation."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from app.cli.options import LONGEST_MINUTES, MOST_RATE, SEEDS, number, whole
from app.cli.show import Exit, JsonOption, log_to_stderr, print_json, print_table
from app.local.stack.life import replace_file
from app.local.stack.own_stack import own_stack
from app.local.stack.stack_file import home_of_environment
from app.progress import ProgressLines
from tests.rig.chaos.plan import plan
from tests.rig.chaos.report import Report
from tests.rig.chaos.run import SETTINGS, Options, run_chaos


def show(report: Report) -> None:
    """Print the table and the verdict."""
    rows: list[tuple[str, int, int | None]] = [
        (kind, count, report.missed.get(kind)) for kind, count in sorted(report.faults.items())
    ]
    title = f"seed {report.seed}, {report.minutes:g} minutes of faults"
    print_table(title, ("fault", "struck", "met nobody"), rows)
    restarts = ", ".join(f"{name} {count}" for name, count in report.restarts.items())
    typer.echo(
        f"{report.lines:,} lines acknowledged ({report.requests_retried} requests sent again), {report.batches:,} batches, "
        f"{report.transactions:,} transactions; restarts: {restarts}"
    )
    typer.echo(f"settled {report.settled_s} s after the last fault; {report.took_s} s in all")
    for violation in report.violations:
        typer.echo(str(violation))
    typer.echo(f"{len(report.violations)} violations")


def chaos(  # noqa: PLR0917 - a command's options
    minutes: Annotated[float, number("Minutes of faults.", 0.1, LONGEST_MINUTES)] = 10,
    seed: Annotated[int, whole("The same seed gives the same plan and fails the same calls.", *SEEDS)] = 1,
    rate: Annotated[float, number("Lines a second.", 1, MOST_RATE)] = 80,
    show_plan: Annotated[bool, typer.Option("--plan", help="Print the plan of faults, and do nothing.")] = False,
    logs_to: Annotated[Path | None, typer.Option(help="Copy the logs and the journal of faults into this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let faults of every kind strike a stack of its own under load; then everything must be exact.

    Exit codes: 0 without a violation, 1 with some; logs and journal are always kept after a violation.
    """
    log_to_stderr()
    options = Options(minutes=minutes, seed=seed, rate=rate)
    if show_plan:
        print_json(plan(seed, options.seconds))
        return
    say = ProgressLines()
    say(f"seed {seed}: {len(plan(seed, options.seconds))} faults are planned, and one call in some fails")
    with own_stack({name: os.environ.get(name, value) for name, value in SETTINGS.items()}, say) as stack:
        home = home_of_environment()
        report = asyncio.run(run_chaos(home, stack, options, say))
        if as_json:
            print_json(report)
        else:
            show(report)
        replace_file(home.logs / "chaos.json", msgspec.json.format(msgspec.json.encode(report)))
        if logs_to:
            shutil.copytree(home.logs, logs_to, dirs_exist_ok=True)
        if report.violations:
            raise typer.Exit(Exit.FAILURE)


if __name__ == "__main__":
    typer.run(chaos)
