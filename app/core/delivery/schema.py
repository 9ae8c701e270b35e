"""The SQL that makes and changes the warehouse's tables, from the catalogue of `app.core.formats.tables`.

Amazon Redshift's dialect, to which each statement keeps. Source: Redshift Developer Guide, "CREATE TABLE" and "ALTER TABLE":
one column a statement; no IF NOT EXISTS for columns; NOT NULL needs a default; nothing but the size of a VARCHAR can be
altered, and not inside a transaction block, nor where the column has a default or belongs to a key.
"""

from typing import Final, assert_never

from app.core.delivery.statements import table as named
from app.core.formats.flows import Column, ColumnKind
from app.core.formats.tables import SCHEMA, SCHEMA_LOG, Table
from app.core.whole_table import whole_table

CREATE_SCHEMA: Final = f'CREATE SCHEMA "{SCHEMA}"'
LOG_CHANGE: Final = f"INSERT INTO {named(SCHEMA_LOG.name)} (version, statement, reason) VALUES (%s, %s, %s)"
_INTEGERS: Final = {2: "SMALLINT", 4: "INTEGER", 8: "BIGINT"}
_FILLERS: Final = whole_table(ColumnKind, {
    ColumnKind.STRING: "''", ColumnKind.INTEGER: "0", ColumnKind.BOOLEAN: "FALSE", ColumnKind.TIMESTAMP: "'1970-01-01'",
})  # fmt: skip
"""Values for a new column that takes no NULL, in rows that did not have it."""


def type_of(column: Column) -> str:
    """The column's type, as `VARCHAR(64)`."""
    match column.kind:
        case ColumnKind.STRING:
            return f"VARCHAR({column.max_bytes})"
        case ColumnKind.INTEGER:
            return _INTEGERS[column.integer_bytes]
        case ColumnKind.TIMESTAMP:
            return "TIMESTAMP"
        case ColumnKind.BOOLEAN:
            return "BOOLEAN"
        case _:
            assert_never(column.kind)


def create_table(table: Table, schema: str = SCHEMA) -> str:
    """The CREATE TABLE of a table that is not there, in schema `analytics` or in another one."""
    lines = [f"    {_definition(column)}" for column in table.columns]
    if table.primary_key:
        lines.append(f"    PRIMARY KEY ({_names(table.primary_key)})")
    columns = ",\n".join(lines)
    return f"CREATE TABLE {named(table.name, schema)} (\n{columns}\n)\n{_storage(table)}"


def add_column(table: Table, column: Column) -> str:
    """The ALTER TABLE that adds a column; where it takes no NULL, rows that are there get an empty value."""
    filled = column._replace(default=column.default or _FILLERS[column.kind]) if column.required else column
    return f"{_alter(table)} ADD COLUMN {_definition(filled)}"


def resize_column(table: Table, column: Column) -> str:
    """The ALTER TABLE that gives a VARCHAR the catalogue's length."""
    return f'{_alter(table)} ALTER COLUMN "{column.name}" TYPE {type_of(column)}'


def replace_column(table: Table, column: Column) -> tuple[str, ...]:
    """The statements that put a column of the catalogue's type, with the values of the old one, in its place."""
    made = column._replace(name=f"{column.name}_new")
    value = f'CAST("{column.name}" AS {type_of(column)})'
    return (
        add_column(table, made),
        f'UPDATE {named(table.name)} SET "{made.name}" = {value} WHERE "{column.name}" IS NOT NULL',
        f'{_alter(table)} DROP COLUMN "{column.name}"',
        f'{_alter(table)} RENAME COLUMN "{made.name}" TO "{column.name}"',
    )


def without_keys(table: Table, column: Column, statements: tuple[str, ...]) -> tuple[str, ...]:
    """`statements` between those that take the keys of the column away and those that give them back."""
    name, before, after = column.name, [], []
    if name in table.primary_key:
        before.append(f'{_alter(table)} DROP CONSTRAINT "{table.name}_pkey"')
        after.append(f"{_alter(table)} ADD PRIMARY KEY ({_names(table.primary_key)})")
    if name == table.sorted_by:
        before.append(f"{_alter(table)} ALTER SORTKEY NONE")
        after.append(f'{_alter(table)} ALTER SORTKEY ("{name}")')
    if name == table.distributed_by:
        before.append(f"{_alter(table)} ALTER DISTSTYLE EVEN")
        after.append(f'{_alter(table)} ALTER DISTKEY "{name}"')
    return (*before, *statements, *after)


def is_key(table: Table, column: Column) -> bool:
    """Whether a column belongs to the table's primary, sort or distribution key."""
    return column.name in {*table.primary_key, table.sorted_by, table.distributed_by}


def rename_view(table: Table) -> str:
    """The statement that gives a view another name, which stands where a table belongs."""
    return f'{_alter(table)} RENAME TO "{table.name}_view"'


def drop_view(name: str) -> str:
    """The DROP of a view; `name` is quoted, with its schema."""
    return f"DROP VIEW {name}"


def _alter(table: Table) -> str:
    return f"ALTER TABLE {named(table.name)}"


def _definition(column: Column) -> str:
    default = f" DEFAULT {column.default}" if column.default else ""
    return f'"{column.name}" {type_of(column)}{default}{" NOT NULL" if column.required else ""}'


def _storage(table: Table) -> str:
    distribution = "ALL" if table.on_every_node else "EVEN"
    if table.distributed_by:
        distribution = f'KEY DISTKEY ("{table.distributed_by}")'
    return f'DISTSTYLE {distribution}\nSORTKEY ("{table.sorted_by}")'


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
