"""The changes that make a warehouse's schema the catalogue's, and the differences that only an operator may change (D5).

A table or column that is missing is added. A VARCHAR that is too short is widened where Redshift allows it: the column has
no default, belongs to no key, and no view reads it. Whatever would lose data, or cannot be done safely, is refused with the
statements for it. Columns that the catalogue does not know are left alone.

Source: Redshift Developer Guide, "ALTER TABLE". That a sort or distribution key cannot be resized is not written there;
Redshift answers "found unexpected dependency for column".
"""

from collections.abc import Iterable, Sequence

import msgspec

from app.core.delivery import schema
from app.core.delivery.schema_found import FoundColumn, FoundWarehouse, View, found_as
from app.core.formats.flows import Column
from app.core.formats.tables import SCHEMA, SCHEMA_LOG, TABLES, Table


class SchemaStep(msgspec.Struct, frozen=True):
    """One statement, and why it runs."""

    statement: str
    reason: str
    alone: bool = False
    """Whether it must run outside a transaction block."""


class Refusal(msgspec.Struct, frozen=True):
    """A difference that stays, with the statements that an operator may run at his own risk."""

    place: str
    """The table, or its column, as `analytics.page_views.url`."""
    reason: str
    statements: tuple[str, ...]


class SchemaPlan(msgspec.Struct, frozen=True):
    """The steps, in this order; if anything is refused, none of them is done."""

    steps: tuple[SchemaStep, ...] = ()
    refused: tuple[Refusal, ...] = ()
    left_alone: tuple[str, ...] = ()
    """Columns that the catalogue does not know, as `analytics.page_views.note`."""


def plan_schema(found: FoundWarehouse, views: Iterable[View], tables: Sequence[Table] = TABLES) -> SchemaPlan:
    """The way from a warehouse as it is to the catalogue.

    Args:
        found: the warehouse.
        views: the views that it must have, each behind those that it reads.
        tables: the catalogue.

    Returns: the log of changes comes first among the steps, so that every other can be written down; views come last.

    Guarantees: a warehouse that is as the catalogue says has no steps; neither has one on which all steps have run.
    """
    steps: list[SchemaStep] = []
    refused: list[Refusal] = []
    if not found.has_schema:
        steps.append(SchemaStep(schema.CREATE_SCHEMA, f"schema {SCHEMA} is missing"))
    for table in sorted(tables, key=lambda table: table.name != SCHEMA_LOG.name):
        if table.name in found.tables:
            differences = [_difference(found, table, column) for column in table.columns]
            steps += [difference for difference in differences if isinstance(difference, SchemaStep)]
            refused += [difference for difference in differences if isinstance(difference, Refusal)]
        elif table.name in found.views:
            refused.append(Refusal(_place(table), "is a view where a table belongs", (schema.rename_view(table),)))
        else:
            steps.append(SchemaStep(schema.create_table(table), f"{_place(table)} is missing: {table.about}"))
    steps += [step for view in views if (step := _view(found, view)) is not None]
    left_alone = [
        f"{_place(table)}.{column.name}"
        for table in tables
        for column in found.tables.get(table.name, ())
        if column.name not in table.names
    ]
    return SchemaPlan(tuple(steps), tuple(refused), tuple(left_alone))


def _place(table: Table) -> str:
    return f"{SCHEMA}.{table.name}"


def _view(found: FoundWarehouse, view: View) -> SchemaStep | None:
    if view.name not in found.views:
        return SchemaStep(view.statement, f"view {SCHEMA}.{view.name} is missing")
    logged = found.view_statements.get(view.name)
    if logged == view.statement:
        return None
    if logged is None:
        unknown = f"{SCHEMA}.{SCHEMA_LOG.name} does not say which text view {SCHEMA}.{view.name} has"
        return SchemaStep(view.statement, unknown)
    return SchemaStep(view.statement, f"view {SCHEMA}.{view.name} has another text")


def _difference(found: FoundWarehouse, table: Table, column: Column) -> SchemaStep | Refusal | None:
    """The change that a column of an existing table needs."""
    is_there = next((other for other in found.tables[table.name] if other.name == column.name), None)
    place = f"{_place(table)}.{column.name}"
    if is_there is None:
        statement = schema.add_column(table, column)
        if not column.required:
            return SchemaStep(statement, f"column {place} is missing")
        return Refusal(place, "is missing and takes no NULL: rows that are there would get an empty value", (statement,))
    wanted = found_as(column)
    readers = found.readers.get((table.name, column.name), ())
    if is_there.type != wanted.type:
        reason = f"is {is_there.type.upper()}, the catalogue says {schema.type_of(column)}: a type cannot be altered"
        return _refusal(table, column, readers, reason, schema.replace_column(table, column))
    if is_there.nullable != wanted.nullable:
        has, wants = ("takes", "takes no") if is_there.nullable else ("takes no", "takes")
        reason = f"{has} NULL, in the catalogue it {wants} NULL: that cannot be altered"
        return _refusal(table, column, readers, reason, schema.replace_column(table, column))
    if is_there.max_bytes == wanted.max_bytes:
        return None
    return _resize(table, column, is_there, readers)


def _resize(table: Table, column: Column, is_there: FoundColumn, readers: tuple[str, ...]) -> SchemaStep | Refusal:
    """The change that a VARCHAR of another length needs."""
    has = "VARCHAR" if is_there.max_bytes is None else f"VARCHAR({is_there.max_bytes})"
    difference = f"is {has}, the catalogue says {schema.type_of(column)}"
    resize = (schema.resize_column(table, column),)
    if is_there.max_bytes is None or is_there.max_bytes > column.max_bytes:
        return _refusal(table, column, readers, f"{difference}: longer values would not fit", resize)
    if is_there.has_default:
        why, remedy = "Redshift does not resize a column with a default", schema.replace_column(table, column)
        return _refusal(table, column, readers, f"{difference}: {why}", remedy)
    if schema.is_key(table, column):
        return _refusal(table, column, readers, f"{difference}: Redshift does not resize a column of a key", resize)
    if table.name == SCHEMA_LOG.name:
        return _refusal(table, column, readers, f"{difference}: the log is locked while a change is made", resize)
    if readers:
        why = f"Redshift does not resize a column that a view reads: {', '.join(readers)}"
        return _refusal(table, column, readers, f"{difference}: {why}", resize)
    return SchemaStep(*resize, f"{_place(table)}.{column.name} {difference}", alone=True)


def _refusal(
    table: Table, column: Column, readers: tuple[str, ...], reason: str, statements: tuple[str, ...]
) -> Refusal:  # fmt: skip
    """A refusal whose statements first take away what keeps the column as it is.

    Views that are dropped are not made again here: `instream init` makes those of the catalogue.
    """
    around = schema.without_keys(table, column, statements)
    return Refusal(f"{_place(table)}.{column.name}", reason, (*map(schema.drop_view, readers), *around))
