"""`python -m tests.rig.hostile`: plays every attack against a real collector, and prints attack, bound and measure.

CPU time depends on the machine, so it is measured here; tests assert answers, counters and memory.
"""

import asyncio
from typing import Annotated

import typer

from app.cli.show import Exit, log_to_stderr, print_table
from tests.rig.hostile.attacks import ATTACKS, Outcome

NAMES = [attack.__name__ for attack in ATTACKS]


def hostile(only: Annotated[str, typer.Option(help=f"One attack: {', '.join(NAMES)}.")] = "") -> None:
    """Play the attacks of hostile and clumsy clients.

    Exit codes: 0 every bound held, 1 one did not.
    """
    log_to_stderr()
    if only and only not in NAMES:
        raise typer.BadParameter(f"{only} is none of {', '.join(NAMES)}")
    outcomes: list[Outcome] = []
    for attack in ATTACKS:
        if only in {"", attack.__name__}:
            outcomes += asyncio.run(attack())
    print_table(
        "hostile clients",
        ["attack", "bound", "measured", "holds"],
        [[one.attack, one.bound, one.measured, "yes" if one.holds else "NO"] for one in outcomes],
    )
    raise typer.Exit(Exit.OK if all(one.holds for one in outcomes) else Exit.FAILURE)


if __name__ == "__main__":
    typer.run(hostile)
