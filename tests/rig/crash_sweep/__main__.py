"""`python -m tests.rig.crash_sweep`: every worker ends at every crash point, and every row is compared."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from app.cli.options import whole
from app.cli.show import Exit, JsonOption, log_to_stderr, print_json, print_table
from app.progress import ProgressLines
from tests.rig.crash_sweep.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.crash.catalogue import Point
    from app.crash.points import Armed
    from tests.rig.crash_sweep.sweep import Sweep


class SweepResult(msgspec.Struct, kw_only=True):
    """The answer of a sweep."""

    points: int
    took_s: float = 0.0
    left_out: int = 0
    """Points that were left out, because the sweep ended before."""
    outcomes: list[Outcome] = []
    at_the_end: list[str] = []
    """The findings of the check at the end of a life, in words."""

    @property
    def deaths(self) -> int:
        """Number of deaths of workers at points of the plan."""
        return sum(outcome.died for outcome in self.outcomes)

    @property
    def violations(self) -> int:
        """Violations of single rounds, and of the end of a life."""
        return sum(outcome.violations for outcome in self.outcomes) + len(self.at_the_end)

    @property
    def never_reached(self) -> int:
        """Points with too few deaths."""
        return sum(outcome.died < outcome.times for outcome in self.outcomes)

    @property
    def is_good(self) -> bool:
        """Whether every point was met often enough and nothing was violated."""
        return not (self.violations or self.left_out) and all(outcome.is_good for outcome in self.outcomes)


def crash_sweep(
    only: Annotated[str, typer.Option(help="Only points whose name contains this.")] = "",
    together: Annotated[int, whole("Most roles that die in one round.", 1, 6)] = 6,
    times: Annotated[list[int] | None, whole("Deaths in a row; repeat the option for several values.", 1, 10)] = None,
    as_json: JsonOption = False,
) -> None:
    """Kill every worker at every crash point on a stack of its own, once and twice in a row, and compare every row.

    Takes most of an hour. Exit code 0 only when every point was met, every worker came back and nothing was violated.
    """
    from app.crash.catalogue import POINTS
    from tests.rig.crash_sweep.rounds import lives_of

    points = [point for point in POINTS if only in str(point)]
    if not points:
        raise typer.BadParameter(f"no crash point's name contains {only!r}", param_hint="--only")
    say, started = ProgressLines(), time.monotonic()
    result, counts = SweepResult(points=len(points)), times or [1, 2]
    try:
        for count in counts:
            for life in lives_of(points):
                _life(life, count, together, say, result)
    finally:  # report the findings after every end
        result.left_out = len(points) * len(counts) - len(result.outcomes)
        result.took_s = round(time.monotonic() - started, 1)
        if as_json:
            print_json(result)
        else:
            _show(result)
    if not result.is_good:
        raise typer.Exit(Exit.FAILURE)


def _life(points: "Sequence[Point]", times: int, together: int, say: ProgressLines, result: SweepResult) -> None:
    """All points on one stack, into the result."""
    from app.crash.points import Armed, PlanFile
    from app.local.stack.own_stack import own_stack
    from app.local.stack.stack_file import home_of_environment
    from tests.rig.crash_sweep.histories import Event
    from tests.rig.crash_sweep.rounds import needs, rounds_of
    from tests.rig.crash_sweep.sweep import SHORT_MEMORY, SWEEP_SETTINGS, Sweep

    rounds = rounds_of(points, together)
    with tempfile.TemporaryDirectory(prefix="instream-crash-") as folder:
        plan = PlanFile(Path(folder) / "plan")
        armed = None
        if needs(Event.FIRST_START, rounds[0]):
            armed = {point: Armed(str(point), str(point), times) for point in rounds[0]}
            plan.arm(list(armed.values()))
        forgetful = SHORT_MEMORY if needs(Event.SHORT_MEMORY, points) else {}
        with own_stack(SWEEP_SETTINGS | forgetful | {"INSTREAM_CRASH_PLAN": str(plan.path)}, say):
            sweep = Sweep(home_of_environment(), plan, say, times)
            asyncio.run(_rounds(sweep, rounds, armed, result, say))


async def _rounds(
    sweep: "Sweep", rounds: "list[list[Point]]", armed: "dict[Point, Armed] | None", result: SweepResult, say: ProgressLines
) -> None:
    """Do round after round; put the outcome of each point, and the faults found at the end, into the result.

    Everything is checked before a store is made stale, because the log is cut for that, and with it the messages of earlier
    runs.
    """
    from tests.rig.crash_sweep.histories import Event
    from tests.rig.crash_sweep.rounds import needs

    started, is_checked = time.monotonic(), False

    async def check(*, replays: bool) -> None:
        say("checking everything that the stack promises")
        faults = await sweep.check(replays=replays)
        result.at_the_end += faults
        say("; ".join([f"{len(faults)} violations of {'I1 to I5' if replays else 'I1 to I4'}", *faults]))

    if armed is None:
        await sweep.warm_up()
    for number, points in enumerate(rounds, 1):
        if needs(Event.STALE_STORE, points) and not is_checked:
            await check(replays=True)
            is_checked = True
        found = await sweep.round(points, armed if number == 1 else None)
        result.outcomes += found
        say(f"{sweep.times} x, round {number} of {len(rounds)}, {time.monotonic() - started:.0f} s:")
        for outcome in found:
            say(f"  {outcome.point}: died {outcome.died}, ready after {outcome.recovery_s} s" + _words(outcome))
    if not is_checked:  # with a short dedup window the blocks are too old to be sent again
        await check(replays=not any(needs(Event.SHORT_MEMORY, points) for points in rounds))


def _words(outcome: "Outcome") -> str:
    return "" if outcome.is_good else f"; WRONG: {'; '.join(outcome.notes)}"


def _show(result: SweepResult) -> None:
    """Print the table and the verdict."""
    columns = ("point", "to die", "died", "seconds to recovery", "violations")
    rows = [
        (outcome.point, outcome.times, outcome.died, "" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f}",
         outcome.violations)
        for outcome in result.outcomes
    ]  # fmt: skip
    print_table(f"{result.points} points, {result.deaths} deaths, {result.took_s / 60:.0f} minutes", columns, rows)
    for outcome in result.outcomes:
        if not outcome.is_good:
            print(f"{outcome.point}: {'; '.join(outcome.notes)}")
    for fault in result.at_the_end:
        print(f"at the end: {fault}")
    verdict = "GOOD" if result.is_good else "NOT GOOD"
    print(f"{verdict}: {result.violations} violations, {result.never_reached} points not reached as often as they should be"
          + (f", {result.left_out} left out" if result.left_out else ""))  # fmt: skip


if __name__ == "__main__":
    log_to_stderr()
    typer.run(crash_sweep)
