"""`python -m tests.rig.outage`: broker, AWS and warehouse freeze in turn under load, and memory stays bounded."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import LONGEST_MINUTES, MOST_RATE, number
from app.cli.show import Exit, JsonOption, log_to_stderr, print_json, print_table
from app.local.stack.own_stack import own_stack
from app.progress import ProgressLines

if TYPE_CHECKING:
    from tests.rig.outage.run import OutageResult


def show(result: "OutageResult") -> None:
    """Print memory, lag and the verdict."""
    rows: list[tuple[object, ...]] = []
    for phase, roles in result.peaks_mib.items():
        for role, peak in roles.items():
            verdict = "OVER" if peak > result.bounds_mib[role] else ""
            rows.append((phase, role, peak, result.bounds_mib[role], verdict))
    print_table("highest resident memory of a process, MiB", ("outage", "role", "peak", "bound", ""), rows)
    lags = [
        (one.name, role, round(one.seconds), *(getattr(behind, role) for behind in (one.before, one.at_its_end, one.after)))
        for one in result.outages
        for role in ("etl", "sink")
    ]
    print_table("messages that wait in Kafka", ("outage", "role", "seconds", "before", "at its end", "after"), lags)
    started = ", ".join(f"{name} {count}" for name, count in result.restarts.items() if count)
    print(f"{result.lines:,} lines sent, {result.retries} requests sent again; started again: {started or 'nothing'}")
    for text in [*result.over, *result.violations]:
        print(text)
    verdict = "BOUNDED" if not result.over else "NOT BOUNDED"
    print(f"{verdict}, {'EVERYTHING DELIVERED' if not result.violations else f'{len(result.violations)} VIOLATIONS'}")


def outage(
    minutes: Annotated[float, number("Length of the load, over all outages.", 1, LONGEST_MINUTES)] = 10,
    rate: Annotated[float, number("Lines a second.", 1, MOST_RATE)] = 500,
    as_json: JsonOption = False,
) -> None:
    """Freeze the broker, AWS and the warehouse in turn under steady load, on a stack of its own.

    Samples each role's memory against its bound, and compares every row afterwards. Exit code 0 only when all memory was
    bounded and everything was delivered.
    """
    from app.local.stack.life import Home
    from tests.rig.outage.run import SETTINGS, run_outages

    say = ProgressLines()
    with own_stack(SETTINGS, say) as stack:
        result = asyncio.run(run_outages(Home(Path(stack.home)), minutes, rate, say))
        if as_json:
            print_json(result)
        else:
            show(result)
        if result.over or result.violations:
            raise typer.Exit(Exit.FAILURE)


if __name__ == "__main__":
    log_to_stderr()
    typer.run(outage)
