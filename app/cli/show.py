"""How the commands speak: lines on stderr while they work, the answer on stdout, JSON where asked for."""

import sys
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any

import msgspec
import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as one JSON document on stdout.")]


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INCOMPLETE = 3


class Lines:
    """Progress: plain lines on stderr, with the seconds since the start on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        """Show one line."""
        if sys.stderr.isatty():
            line = f"\x1b[2m{time.monotonic() - self._start:6.1f} s\x1b[0m  {line}"
        print(line, file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Send what the pipeline's own code logs inside a command to stderr, warnings and worse only: stdout is the answer's."""
    import logging  # noqa: PLC0415 - after the command line was read

    import structlog  # noqa: PLC0415

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def print_json(answer: Any) -> None:
    """Print what msgspec can encode as one indented JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: drawn on a terminal, aligned plain text elsewhere. Columns of numbers are aligned to the right."""
    texts = [["" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [all(isinstance(row[n], int | None) for row in rows) for n in range(len(columns))]
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow to import, and only a terminal needs it
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left")
        for name, right in zip(columns, numeric, strict=True):
            table.add_column(name, justify="right" if right else "left")
        for row in texts:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(name), *(len(row[n]) for row in texts), 0) for n, name in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        sides = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in sides).rstrip()

    print("\n".join([title, line(columns), *(line(row) for row in texts)]), flush=True)
