"""`python -m tests.rig.upgrade`: a stack of its own goes to another version under load, and back again."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
import typer

from app.cli.options import MOST_RATE, number
from app.cli.show import Exit, JsonOption, log_to_stderr, print_json
from app.errors import InstreamError
from app.local.stack.control import end_in_order_when_told
from app.local.stack.life import Home, replace_file
from app.local.stack.own_stack import own_stack
from app.local.stack.stack_file import home_of_environment
from app.local.stack.trees import Trees
from app.progress import ProgressLines
from tests.rig.chaos.run import SETTINGS
from tests.rig.upgrade.plan import Way, everyone
from tests.rig.upgrade.report import Report, show
from tests.rig.upgrade.run import Options, run_drill
from tests.rig.upgrade.versions import environment_of, prepare
from tests.worlds.recipes import ROOT

EXTRAS = ("etl-2", "sink-2")
"""A second worker of a role: the versions then share one consumer group."""


def drill_here(options: Options, say: ProgressLines, logs_to: Path | None, answer: Callable[[Report], None]) -> None:
    """Drill with the code of this process as the newer version, and give the answer; if it is bad the logs are kept."""

    def begin_with_older(home: Home) -> None:
        Trees(home.path).replace(dict.fromkeys(everyone(options.extras), options.trees[Way.BACK]))

    with own_stack({name: os.environ.get(name, value) for name, value in SETTINGS.items()}, say, begin_with_older) as stack:
        home = home_of_environment()
        try:
            report = asyncio.run(run_drill(home, stack, options, say))
            replace_file(home.logs / "upgrade.json", msgspec.json.format(msgspec.json.encode(report)))
            answer(report)
        finally:
            if logs_to:
                shutil.copytree(home.logs, logs_to, dirs_exist_ok=True)
                shutil.copy(home.path / "supervisor.log", logs_to)
        if report.violations:
            raise typer.Exit(Exit.FAILURE)


def drill_from_newer(newer: Path, arguments: list[str]) -> int:
    """Drill in a process that runs the newer version. Returns: its exit code."""
    command = [sys.executable, "-m", "tests.rig.upgrade", *arguments]
    process = subprocess.Popen(
        command, cwd=newer, env=environment_of(newer), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait()
    except BaseException:  # whatever ends this process: the other one is told once, so that its stack goes down in order
        process.terminate()
        raise
    finally:
        process.wait()


def upgrade(  # noqa: PLR0917 - a command's options
    revision: Annotated[
        str | None, typer.Option("--from", help="The older version, a git revision; the newer is this tree.")
    ] = None,
    identical: Annotated[
        bool, typer.Option("--identical", help="To a copy of this tree: the pauses of restarts alone.")
    ] = False,
    rate: Annotated[float, number("Lines a second.", 1, MOST_RATE)] = 100,
    extras: Annotated[bool, typer.Option(help="A second etl and a second sink, which go one after the other.")] = True,
    replays: Annotated[bool, typer.Option(help="At the end send every batch again, which must change nothing.")] = True,
    logs_to: Annotated[Path | None, typer.Option(help="Copy the logs into this folder.")] = None,
    older: Annotated[Path | None, typer.Option(hidden=True, help="The older tree; this process runs the newer one.")] = None,
    words: Annotated[str, typer.Option(hidden=True)] = "",
    as_json: JsonOption = False,
) -> None:
    """Take a stack of its own, under load, to another version role by role, and back; then every row is compared.

    Without options the other version is this tree with one more column, event type and flow.
    Exit codes: 0 every row is as it must be, 1 something differs, or a process did not become ready.
    """
    end_in_order_when_told()
    log_to_stderr()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # processes end on purpose here
    say = ProgressLines()
    if older is None:
        with tempfile.TemporaryDirectory(prefix="instream-upgrade-") as folder:
            try:
                versions = prepare(Path(folder), revision, is_identical=identical)
            except InstreamError as exc:
                say(str(exc))
                raise typer.Exit(Exit.FAILURE) from exc
            say(versions.words)
            arguments = ["--older", str(versions.older), "--words", versions.words, "--rate", str(rate)]
            arguments += ["--extras" if extras else "--no-extras", "--replays" if replays else "--no-replays"]
            arguments += ["--logs-to", str(logs_to.absolute())] if logs_to else []
            arguments += ["--json"] if as_json else []
            raise typer.Exit(drill_from_newer(versions.newer, arguments))
    trees = {Way.UP: ROOT, Way.BACK: older}
    options = Options(words=words, trees=trees, rate=rate, extras=EXTRAS if extras else (), replays=replays)
    try:
        drill_here(options, say, logs_to, print_json if as_json else show)
    except InstreamError as exc:
        say(f"DIFFERS: {exc}")
        raise typer.Exit(Exit.FAILURE) from exc


if __name__ == "__main__":
    typer.run(upgrade)
