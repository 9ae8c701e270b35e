"""The warehouse's SQL as files: tables, then views; what their names' numbers order runs in that order."""

from importlib.resources import files
from typing import Final

SCHEMA_FILES: Final = ("01_tables.sql", "02_views.sql")


def read(name: str) -> str:
    """The text of one SQL file of this package."""
    return (files(__name__) / name).read_text(encoding="utf-8")


def statements_of(name: str) -> list[str]:
    """The statements of one of our SQL files, without comments.

    Our files keep to what this reads: a statement ends in `;` at the end of a line, a comment is a line of its own.
    """
    lines = [line for line in read(name).splitlines() if line.strip() and not line.lstrip().startswith("--")]
    return [text.strip() for text in "\n".join(lines).split(";\n") if text.strip(" \n;")]


def schema_statements() -> list[str]:
    """Every statement that makes the schema, in order; each may run again."""
    return [statement.rstrip(";") for name in SCHEMA_FILES for statement in statements_of(name)]
