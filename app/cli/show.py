"""The output of the commands: the answer on stdout, JSON with --json; errors on stderr.

The progress lines on stderr are in `app.progress`.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from app.errors import InstreamError, OutsideError

Answer = TypeVar("Answer")
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON document on stdout.")]


class Exit(IntEnum):
    """The meaning of a command's exit code."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INCOMPLETE = 3


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


def print_answer(answer: Answer, lines_of: Callable[[Answer], Iterable[str]], *, as_json: bool) -> None:
    """Print a command's answer: as JSON, or in the lines that `lines_of` makes of it."""
    if as_json:
        print_json(answer)
    else:
        for line in lines_of(answer):
            print(line)


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
