"""`make runbook-drill`: every runbook on a stack of its own (ONLY=Quarantine,RoleDown: these)."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.show import Exit, JsonOption, log_to_stderr, print_json, print_table
from app.errors import InstreamError
from app.local.boards.prometheus import RULES, prometheus
from app.local.stack.life import Home
from app.local.stack.own_stack import COMPRESSED, own_stack
from app.local.stack.stack_file import Stack, home_of_environment, read_stack
from app.progress import ProgressLines
from app.settings import read_settings
from tests.rig.chaos.services import Services
from tests.rig.runbooks.ground import EVERY_S, Ground
from tests.rig.runbooks.pace import write_quick_rules
from tests.rig.runbooks.plants import KEYS_FILE
from tests.rig.runbooks.play import NOT_PLANTED, PLANTS, Played, play
from tests.worlds.boards import RUNBOOKS, Runbook, read_runbook

SETTINGS: Final = COMPRESSED | {
    "INSTREAM_IDLE_COMMIT_INTERVAL_S": "3",
    "INSTREAM_AUDIT_INTERVAL_S": "2",
    "INSTREAM_AUDIT_GRACE_S": "15",
    "INSTREAM_RESTART_HEALTHY_S": "1",
    "INSTREAM_REQUEST_TIMEOUT_S": "5",
}


def drill(
    only: Annotated[str, typer.Option(help="Alerts, with commas between them; all if it is empty.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Plant the fault of each runbook, run its commands, and see the alert begin and end.

    Exit codes: 0 all runbooks are true, 1 not all.
    """
    log_to_stderr()
    say = ProgressLines()
    chosen = [read_runbook(file) for file in RUNBOOKS if file.stem in (only.split(",") if only else PLANTS)]
    if unknown := sorted(set(only.split(",")) - {""} - PLANTS.keys()):
        raise typer.BadParameter(f"no fault is planted for {', '.join(unknown)} ({NOT_PLANTED})")

    def with_keys(home: Home) -> None:
        file = home.path / KEYS_FILE
        file.write_text("drill-key:browser\n")
        os.environ["INSTREAM_WRITE_KEYS_FILE"] = str(file)  # gone again with the rest of the stack's environment

    with own_stack(SETTINGS, say, with_keys), tempfile.TemporaryDirectory(prefix="instream-drill-") as folder:
        played = asyncio.run(play_all(_stack, Path(folder), chosen, say))
    if as_json:
        print_json(played)
    else:
        print_table(
            "runbooks", ("alert", "fires after", "ends after", "commands", "faults"),
            [
                (p.alert, f"{p.fired_s:.1f} s", f"{p.ended_s:.1f} s", str(len(p.ran)), "; ".join(p.faults) or "none")
                for p in played
            ],
        )  # fmt: skip
    if any(one.faults for one in played):
        raise typer.Exit(Exit.FAILURE)


async def play_all(
    stack: Callable[[], Stack], folder: Path, books: list[Runbook], say: Callable[[str], None]
) -> list[Played]:
    """Play runbooks one after the other on a running stack whose environment this process has."""
    rules = folder / "rules"
    rules.mkdir()
    write_quick_rules(RULES, rules)
    services = Services(stack())
    played = []
    try:
        with prometheus(folder, stack().metrics, EVERY_S, rules) as running:
            ground = Ground(stack, read_settings(), running, services, folder)
            for book in books:
                say(f"{book.name}: the fault is planted")
                played.append(await _try(ground, book))
                faults = "; ".join(played[-1].faults) or "none"
                say(f"{book.name}: fired after {played[-1].fired_s} s, over after {played[-1].ended_s} s, faults: {faults}")
    finally:
        await services.close()
    return played


async def _try(ground: Ground, book: Runbook) -> Played:
    """Play a runbook; if it cannot be played to its end, that is its fault, and the others are still played."""
    try:
        return await play(ground, book)
    except (AssertionError, InstreamError, OSError) as exc:
        return Played(alert=book.name, faults=[f"{type(exc).__name__}: {exc}"])


def _stack() -> Stack:
    stack = read_stack(home_of_environment())
    assert stack is not None, "the stack has ended"
    return stack


if __name__ == "__main__":
    typer.run(drill)
