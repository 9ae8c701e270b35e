"""Options and arguments of the commands: numbers between two bounds, texts that are not empty."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer

from app.variables import range_words, shown

MOST_LINES: Final = 100_000_000
"""Most events of one run: its generator keeps every line in memory until the comparison."""
MOST_RATE: Final = 1_000_000
LONGEST_WAIT_S: Final = 7 * 86_400
LONGEST_MINUTES: Final = 7 * 1440
OLDEST_S: Final = 365 * 86_400
LAST_PARTITION: Final = 1023
"""Of the most partitions that the settings allow; the settings themselves load more than a help text needs."""
_MOMENT: Final = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?:[T ](?P<clock>\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)(?:Z|\+00:00)?)?")
SEEDS: Final = (-(2**63), 2**63 - 1)


def whole(text: str, lower: int, upper: int) -> Any:
    """An option that is a whole number between `lower` and `upper`; `text` is its help."""

    def parse(value: str | int) -> int:
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not lower <= number <= upper:
            raise typer.BadParameter(f"{shown(value)}: {range_words(lower, upper, is_whole=True)}")
        return number

    return typer.Option(help=text, parser=parse, min=lower, max=upper)


def number(text: str, lower: float, upper: float) -> Any:
    """An option that is a finite number between `lower` and `upper`; `text` is its help."""

    def parse(value: str | float) -> float:
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not lower <= found <= upper:  # False for NaN, too
            raise typer.BadParameter(f"{shown(value)}: {range_words(lower, upper, is_whole=False)}")
        return found

    return typer.Option(help=text, parser=parse, min=lower, max=upper)


class MomentMs(int):
    """A moment, in ms since the epoch."""


def moment(text: str, *, ends: bool = False) -> Any:
    """An option that is a moment in UTC, of type `MomentMs`; `text` is its help.

    A day (2026-11-28), an hour (2026-11-28T03) or a minute stands for its first instant; with `ends`, for the first instant
    behind it, so that `--since 2026-11-28 --until 2026-11-28` is that day.
    """

    def parse(value: str) -> MomentMs:
        found = _MOMENT.fullmatch(value.strip())
        clock = (found and found["clock"]) or ""
        try:
            if found is None:
                raise ValueError
            begins = datetime.fromisoformat(f"{found['day']}T{clock or '00'}").replace(tzinfo=UTC)
        except ValueError:
            form = "give a moment in UTC as 2026-11-28, 2026-11-28T03 or 2026-11-28T03:15:00"
            raise typer.BadParameter(f"{shown(value)}: {form}") from None
        length = {0: timedelta(days=1), 2: timedelta(hours=1), 5: timedelta(minutes=1)}.get(len(clock), timedelta())
        return MomentMs(round((begins + (length if ends else timedelta())).timestamp() * 1000))

    return typer.Option(help=text, parser=parse, metavar="MOMENT")


def given(value: str) -> str:
    """Parse an argument that is a name, an id or a reason: it is not empty, and loses the spaces around it."""
    if not value.strip():
        raise typer.BadParameter(f"{shown(value)}: give a text that is not empty")
    return value.strip()


def folder(value: str | Path) -> Path:
    """Parse a folder's name."""
    return Path(given(str(value)))
