"""The schema that a warehouse has, and whether it has every column that a load writes (rule D5)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, assert_never

import msgspec

from app.core.formats.flows import Column, ColumnKind
from app.core.formats.tables import LOADED, SCHEMA, Table
from app.errors import FormatInvalid

CatalogRow = tuple[Any, ...]

_INTEGERS: Final = {2: "smallint", 4: "integer", 8: "bigint"}
_BASE_TABLE: Final = "BASE TABLE"
_CREATE_VIEW: Final = re.compile(rf"CREATE OR REPLACE VIEW {SCHEMA}\.(\w+)\s")
REMEDY: Final = "run `instream init`"


class FoundColumn(NamedTuple):
    """A column of the warehouse as information_schema describes it."""

    name: str
    type: str
    max_bytes: int | None = None
    """Of a VARCHAR; None where it has no bound, and for other types."""
    nullable: bool = True
    has_default: bool = False


FoundTables = Mapping[str, Sequence[FoundColumn]]
"""Table -> its columns."""


class View(NamedTuple):
    """A view of the schema, and the statement that makes it or replaces it."""

    name: str
    statement: str


class FoundWarehouse(msgspec.Struct, frozen=True, kw_only=True):
    """A warehouse as it is."""

    has_schema: bool = True
    tables: FoundTables = {}
    views: frozenset[str] = frozenset()
    readers: Mapping[tuple[str, str], tuple[str, ...]] = {}
    """(table, column) -> the views that read it, of any schema, quoted."""
    view_statements: Mapping[str, str] = {}
    """View -> the statement that made it, where the log of changes has one."""


def found_as(column: Column) -> FoundColumn:
    """A warehouse's description of a column that fits the catalogue."""
    length = None
    match column.kind:
        case ColumnKind.STRING:
            kind, length = "character varying", column.max_bytes
        case ColumnKind.INTEGER:
            kind = _INTEGERS[column.integer_bytes]
        case ColumnKind.TIMESTAMP:
            kind = "timestamp without time zone"
        case ColumnKind.BOOLEAN:
            kind = "boolean"
        case _:
            assert_never(column.kind)
    return FoundColumn(column.name, kind, length, not column.required, bool(column.default))


def tables_of(rows: Iterable[CatalogRow]) -> FoundTables:
    """The tables in the rows of `statements.COLUMNS`."""
    tables: dict[str, list[FoundColumn]] = {}
    for table, kind, name, data_type, length, nullable, has_default in rows:
        if kind == _BASE_TABLE:
            bound = None if length is None else int(length)
            column = FoundColumn(str(name), str(data_type), bound, nullable == "YES", bool(has_default))
            tables.setdefault(str(table), []).append(column)
    return tables


def views_in(rows: Iterable[CatalogRow]) -> frozenset[str]:
    """The views in the rows of `statements.COLUMNS`."""
    return frozenset(str(table) for table, kind, *_ in rows if kind != _BASE_TABLE)


def view_of(statement: str) -> View:
    """The view that a CREATE OR REPLACE VIEW makes.

    Raises:
        FormatInvalid: the statement is another.
    """
    if (match := _CREATE_VIEW.match(statement)) is None:
        raise FormatInvalid(f"no CREATE OR REPLACE VIEW {SCHEMA}.<name>: {statement[:100]}")
    return View(match[1], statement)


def lacking(found: FoundTables, tables: Sequence[Table] = LOADED) -> str | None:
    """The parts of `tables` that a warehouse lacks, with the remedy; None if it has every column."""
    missing: list[str] = []
    for table in tables:
        names = {column.name for column in found.get(table.name, ())}
        lost = [f"column {SCHEMA}.{table.name}.{name}" for name in table.names if name not in names]
        missing += lost if names else [f"table {SCHEMA}.{table.name}"]
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if missing[1:] else ""
    return f"the warehouse lacks {missing[0]}{more}: {REMEDY}"
