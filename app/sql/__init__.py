"""The warehouse's views and Athena's query as SQL text; tables are made from the catalogue (`app.core.formats`)."""

import re
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final

from app.core.delivery.schema_found import View, view_of

_EXPORT: Final = re.compile(r"[A-Za-z0-9_/-]+")


def views() -> tuple[View, ...]:
    """Every view, behind those that it reads.

    The file keeps to what this reads: a statement ends in `;` at the end of a line, a comment is a line of its own.
    """
    text = (files(__name__) / "views.sql").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    statements = "\n".join([*lines, ""]).split(";\n")
    return tuple(view_of(statement.strip()) for statement in statements if statement.strip())


def missing_batches(database: str, export: str, epoch: int, since_ms: int, until_ms: int) -> str:
    """Athena's query for the batches of a time range that are missing or not completed.

    Args:
        database: of the tables (`app.core.formats.athena`).
        export: the export of the registry to read; letters, digits, `-`, `_` and `/`.
        epoch: of the batches.
        since_ms: first received_at of the range.
        until_ms: first received_at behind it.

    Raises:
        ValueError: `export` has other characters.
    """
    if not _EXPORT.fullmatch(export):
        raise ValueError(f"{export!r} is no export of the registry")
    text = (files(__name__) / "missing_batches.sql").read_text(encoding="utf-8")
    first_day = f"{datetime.fromtimestamp(max(0, since_ms) / 1000, UTC):%Y-%m-%d}"
    return text.format(
        database=database, export=export, epoch=epoch, first_day=first_day, since_ms=since_ms, until_ms=until_ms
    )
