"""`python -m tests.rig.fuzz`: plays damaged bytes on every target for some minutes, or one case again."""

import sys
from typing import Annotated

import typer

from app.cli.show import Exit, print_table
from tests.rig.fuzz.child import be_quiet
from tests.rig.fuzz.mutate import case
from tests.rig.fuzz.one_case import Finding, describe, play
from tests.rig.fuzz.run import Fuzzing, Result
from tests.rig.fuzz.targets import TARGETS

CATALOGUE = "tests.rig.fuzz.targets"


def fuzz(
    minutes: Annotated[float, typer.Option(help="How long to play.")] = 10.0,
    target: Annotated[str, typer.Option(help="Only this target, or those whose names begin so and a dot.")] = "",
    seed: Annotated[int | None, typer.Option(help="Play only the case of this seed of the target, and show it.")] = None,
    first: Annotated[int, typer.Option(help="The first seed of each target; another one gives other cases.")] = 0,
) -> None:
    """Feed damaged bytes to every reader, and show each error that it does not declare.

    Exit codes: 0 nothing undeclared came out, 1 something did.
    """
    chosen = {name: one for name, one in TARGETS.items() if not target or name == target or name.startswith(f"{target}.")}
    if not chosen:
        raise typer.BadParameter(f"{target} is none of {', '.join(TARGETS)}")
    if seed is not None:
        if target not in chosen:
            raise typer.BadParameter("a seed needs the name of one target")
        raise typer.Exit(_again(target, seed))
    result = Fuzzing(chosen, CATALOGUE, first, _say).run(minutes * 60)
    for finding in result.findings.values():
        _show(finding)
    _table(result)
    raise typer.Exit(Exit.FAILURE if result.findings else Exit.OK)


def _again(target: str, seed: int) -> Exit:
    be_quiet()
    print(f"{target}, seed {seed}: {describe(case(TARGETS[target], seed))}", flush=True)
    played = play(TARGETS[target], seed)
    if played.finding is None:
        print(f"nothing undeclared came out, after {played.cpu_s * 1000:.0f} ms of CPU")
        return Exit.OK
    _show(played.finding)
    return Exit.FAILURE


def _show(finding: Finding) -> None:
    print(f"\n{finding.target}: {finding.what}\n  make fuzz TARGET={finding.target} SEED={finding.seed}\n{finding.trace}")
    print(f"  {finding.data}", flush=True)


def _table(result: Result) -> None:
    rows: list[list[object]] = [
        [name, score.cases, score.uncaught, f"{score.slowest_s * 1000:.0f} ms"] for name, score in result.scores.items()
    ]
    rows.append(["all", result.cases, result.uncaught, ""])
    print_table("fuzz", ["target", "cases", "uncaught", "slowest, CPU"], rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(fuzz)
