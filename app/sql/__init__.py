"""The warehouse's views as SQL text; tables are made from the catalogue (`app.core.delivery.schema`)."""

from importlib.resources import files

from app.core.delivery.schema_found import View, view_of


def views() -> tuple[View, ...]:
    """Every view, behind those that it reads.

    The file keeps to what this reads: a statement ends in `;` at the end of a line, a comment is a line of its own.
    """
    text = (files(__name__) / "views.sql").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    statements = "\n".join([*lines, ""]).split(";\n")
    return tuple(view_of(statement.strip()) for statement in statements if statement.strip())
