"""Options and arguments of the commands: numbers between two bounds, texts that are not empty."""

import math
import re
from datetime import UTC, datetime
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


def given(value: str) -> str:
    """Parse an argument that is a name, an id or a reason: it is not empty, and loses the spaces around it."""
    if not value.strip():
        raise typer.BadParameter(f"{shown(value)}: give a text that is not empty")
    return value.strip()


def folder(value: str | Path) -> Path:
    """Parse a folder's name."""
    return Path(given(str(value)))


_MOMENT: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2})(:\d{2}(:\d{2}(\.\d{1,6})?)?)?)?Z?")
_HOUR: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}(:00)?Z?")


def moment(value: str | datetime) -> datetime:
    """Parse a moment in UTC: `2026-11-28`, `2026-11-28T03` or `2026-11-28T03:15:20`."""
    text = str(value).strip()
    if found := _MOMENT.fullmatch(text):
        try:
            return datetime.fromisoformat(f"{found[1]}T{found[2] or '00'}{found[3] or ':00'}").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise typer.BadParameter(f"{shown(str(value))}: give a time in UTC like 2026-11-28T03 or 2026-11-28T03:15:20")


def hour(value: str | datetime) -> datetime:
    """Parse an hour in UTC, `2026-11-28T03`: its beginning."""
    if not _HOUR.fullmatch(str(value).strip()):
        raise typer.BadParameter(f"{shown(str(value))}: give an hour in UTC like 2026-11-28T03")
    return moment(value)


def as_ms(moment: datetime) -> int:
    """A moment in ms since the epoch."""
    return round(moment.timestamp() * 1000)
