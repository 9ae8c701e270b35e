"""Options and arguments of the commands: numbers between two bounds, texts that are not empty."""

import math
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
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100
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


def moment(text: str) -> Any:
    """An option that is a moment of this century in ISO 8601, UTC where it names no zone."""

    def parse(value: str) -> datetime:
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
        if found is None or not FIRST_YEAR <= found.year < LAST_YEAR:
            raise typer.BadParameter(f"{shown(value)}: give a moment as 2026-11-28T14:00")
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)

    return typer.Option(help=text, parser=parse, metavar="MOMENT")


def given(value: str) -> str:
    """Parse an argument that is a name, an id or a reason: it is not empty, and loses the spaces around it."""
    if not value.strip():
        raise typer.BadParameter(f"{shown(value)}: give a text that is not empty")
    return value.strip()


def folder(value: str | Path) -> Path:
    """Parse a folder's name."""
    return Path(given(str(value)))
