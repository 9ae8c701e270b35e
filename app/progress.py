"""Progress of a command on stderr: lines, or a bar on a terminal."""

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressLines:
    """Progress: plain lines on stderr, with the seconds since the start on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        """Show one line."""
        if sys.stderr.isatty():
            line = f"\x1b[2m{time.monotonic() - self._start:6.1f} s\x1b[0m  {line}"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def time_left(took_s: float, done: int, left: int) -> str:
    """The time that `left` more things take if `done` of them took `took_s`, in words."""
    seconds = round(took_s * left / done)
    if seconds < 90:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
        self._began: tuple[float, int] | None = None
        """The time of the first call, and what was done by then."""
        self._drawn: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._drawn[0].stop()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done, and how long the rest will take; `note` names an obstacle."""
        now_s = time.monotonic()
        since_s, before = self._began = self._began or (now_s, done)
        if sys.stderr.isatty():
            progress, task = self._drawn or self._draw()
            progress.update(task, completed=done, total=total, note=note)
        elif now_s - self._told >= self._every_s:
            self._told = now_s
            left = f", about {time_left(now_s - since_s, done - before, total - done)} left" if before < done < total else ""
            self._say(f"{done:,} of {total:,} {self._what}{left}" + (f"; {note}" if note else ""))

    def _draw(self) -> "tuple[Progress, TaskID]":
        from rich.console import Console  # noqa: PLC0415 - slow to import, and only a terminal needs it
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._what),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._drawn = (progress, progress.add_task("", note=""))
        progress.start()
        return self._drawn


class Bars:
    """Progress of a command with several stages: one bar after the other. A context manager."""

    def __init__(self, say: ProgressLines) -> None:
        self._say = say
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()

    def of(self, what: str) -> Bar:
        """The bar of the next stage; `what` is as in `Bar`."""
        self.__exit__()
        self._bar = Bar(self._say, what)
        return self._bar
