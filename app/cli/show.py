"""The output of the commands: lines on stderr while they work, the answer on stdout, JSON with --json."""

import signal
import sys
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec
import typer

from app.errors import InstreamError, OutsideError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON document on stdout.")]


class Exit(IntEnum):
    """The meaning of a command's exit code."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INCOMPLETE = 3


class ProgressLines:
    """Progress: plain lines on stderr, with the seconds since the start on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        """Show one line."""
        if sys.stderr.isatty():
            line = f"\x1b[2m{time.monotonic() - self._start:6.1f} s\x1b[0m  {line}"
        print(line, file=sys.stderr, flush=True)


class Bar:
    """Progress on stderr: a bar on a terminal, a line now and then elsewhere. A context manager."""

    def __init__(self, say: ProgressLines, what: str, every_s: float = 5) -> None:
        """Draw nothing yet.

        Args:
            say: shows the lines if there is no terminal.
            what: words behind the numbers, as in "3 of 5 <what>".
            every_s: seconds between two lines.
        """
        self._say = say
        self._what = what
        self._every_s = every_s
        self._told = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._drawn[0].stop()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done; `note` names an obstacle."""
        if sys.stderr.isatty():
            progress, task = self._drawn or self._draw()
            progress.update(task, completed=done, total=total, note=note)
        elif time.monotonic() - self._told >= self._every_s:
            self._told = time.monotonic()
            self._say(f"{done:,} of {total:,} {self._what}" + (f"; {note}" if note else ""))

    def _draw(self) -> "tuple[Progress, TaskID]":
        from rich.console import Console  # noqa: PLC0415 - slow to import, and only a terminal needs it
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._what),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._drawn = (progress, progress.add_task("", note=""))
        progress.start()
        return self._drawn


def end_in_order_when_told() -> None:
    """Let SIGTERM and SIGHUP end this command like an error, so that a starting stack goes down with its command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(Exit.FAILURE))


def log_to_stderr() -> None:
    """Send log lines of the pipeline's own code to stderr, warnings and worse only: stdout is for the answer."""
    import logging  # noqa: PLC0415 - after the command line was read

    import structlog  # noqa: PLC0415

    from app.console_log import draw_without_locals  # noqa: PLC0415

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # we report a broker that does not answer, once
    draw_without_locals(colors=sys.stderr.isatty())
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def say_why(exc: InstreamError, what: str = "instream") -> None:
    """Show on stderr in one line why a command failed; if a service failed and no stack is up, show how to start one."""
    reason = str(exc)
    if isinstance(exc, OutsideError):  # a client library's own text, of several lines
        reason = " ".join(reason.split())
    if isinstance(exc, OutsideError) or "AWS_ENDPOINT_URL" in reason:
        from app.local.stack.stack_file import home_of_environment  # noqa: PLC0415 - commands load what they need

        home = home_of_environment()
        if not home.stack_file.exists():
            reason += f"; or is this for a local stack? None is up in {home.path}: run `instream up`"
    print(f"{what}: {reason}", file=sys.stderr)


def print_json(answer: Any) -> None:
    """Print a value that msgspec can encode as one indented JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn on a terminal, aligned plain text elsewhere. Columns of numbers are aligned to the right."""
    texts = [["" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [all(isinstance(row[n], int | None) for row in rows) for n in range(len(columns))]
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow to import, and only a terminal needs it
        from rich.table import Table  # noqa: PLC0415

        table = Table()  # a table's own title would break at the table's width
        for name, right in zip(columns, numeric, strict=True):
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in texts:
            table.add_row(*row)
        print(title, flush=True)
        Console().print(table)
        return
    widths = [max(len(name), *(len(row[n]) for row in texts), 0) for n, name in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        sides = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in sides).rstrip()

    print("\n".join([title, line(columns), *(line(row) for row in texts)]), flush=True)
