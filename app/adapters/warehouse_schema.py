"""The warehouse's schema: read, compared with the catalogue, and changed step by step until nothing is left (rule D5).

One step is one transaction. It locks the log of changes first and plans anew under the lock, as a load does with
delivery_log (rule D1): when two processes change a schema at once, only one of them does each step.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import psycopg

from app.adapters.warehouse import Connection, ask, connect
from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import COPY_TIMEOUT_S
from app.core.delivery import schema, statements
from app.core.delivery.load_plan import is_serialization
from app.core.delivery.schema_found import CatalogRow, FoundWarehouse, View, tables_of, view_of, views_in
from app.core.delivery.schema_plan import SchemaPlan, SchemaStep, plan_schema
from app.core.delivery.statements import Statement
from app.core.formats.tables import SCHEMA, SCHEMA_LOG
from app.errors import SchemaRefused, WarehouseError
from app.sql import views

_Open = Callable[[], Awaitable[Connection]]

CHANGE_TIMEOUT_S: Final = COPY_TIMEOUT_S
"""A change waits for queries that read the table; Redshift takes minutes to resize a column of a large one."""
_CONFLICTS: Final = 10
"""After so many conflicts in a row with another migration or a load, something is wrong."""
_RACED: Final = frozenset({"23505", "42P06", "42P07", "40P01", "40001"})
"""Another process has just made the same schema or table; deadlock; serialization."""


async def read_plan(url: str, login: Login | None = None) -> SchemaPlan:
    """The changes that the warehouse needs; this call changes nothing.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
        WarehouseError: it refused a question.
    """
    async with await connect(url, login) as connection:
        return plan_schema(await _read(connection), views())


async def migrate(
    url: str, told: Callable[[SchemaStep], None] = lambda _: None, login: Login | None = None
) -> list[SchemaStep]:
    """Change the schema into the catalogue's and return the steps that were done; `told` gets each step at once.

    Runs again without effect, and goes on where an earlier run was cut short. Effects of a step, in order, and what a crash
    right after each leaves:
      1 LOCK schema_log       nothing; the lock ends with the connection
      2 read, plan            nothing: a change that another process made meanwhile is seen here and not made again
      3 the statement         nothing, because it is rolled back; but a resized VARCHAR stays, because Redshift does it
                              outside of transactions: only the log does not have it
      4 INSERT schema_log     the same
      5 COMMIT                statement and log together
    The first step has no log to lock: it makes the log, and the schema where that is missing.

    Raises:
        SchemaRefused: something differs that only an operator may change; this is known before the first change.
        ServiceUnavailable: the warehouse does not answer.
        WarehouseError: the warehouse refused a statement, which the text names, or the connection is lost; the steps before
            it stay.
    """
    done: list[SchemaStep] = []
    conflicts = 0
    open_one = partial(connect, url, login)
    async with await open_one() as connection:
        while True:
            try:
                steps = await _go_on(connection, open_one)
            except WarehouseError as exc:
                conflicts += 1
                if not _is_conflict(exc) or conflicts == _CONFLICTS:
                    raise
                await _end(connection.rollback())
                continue
            conflicts = 0
            if not steps:
                return done
            for step in steps:
                told(step)
            done += steps


async def _go_on(connection: Connection, open_one: _Open) -> Sequence[SchemaStep]:
    """Do the next step, in a transaction of its own; do nothing if there is none."""
    if SCHEMA_LOG.name not in tables_of(await ask(connection, statements.COLUMNS)):
        steps = _first(await _plan(connection))
    else:
        await _end(connection.rollback())  # the first read is older than the lock
        await ask(connection, Statement(f"LOCK TABLE {statements.table(SCHEMA_LOG.name)}"))  # 1
        steps = (await _plan(connection)).steps[:1]  # 2
    for step in steps:
        if step.alone:
            await _run_alone(open_one, step)  # 3
        else:
            await _change(connection, step)  # 3
    for step in steps:
        await ask(connection, Statement(schema.LOG_CHANGE, (version("instream"), step.statement, step.reason)))  # 4
    await _end(connection.commit())  # 5
    return steps


def _first(plan: SchemaPlan) -> Sequence[SchemaStep]:
    """The steps up to the one that makes the log of changes."""
    makes_log = schema.create_table(SCHEMA_LOG)
    return plan.steps[: 1 + next(n for n, step in enumerate(plan.steps) if step.statement == makes_log)]


async def _plan(connection: Connection) -> SchemaPlan:
    """The changes of the plan, if it refuses nothing."""
    plan = plan_schema(await _read(connection), views())
    if plan.refused:
        reasons = "; ".join(f"{refusal.place} {refusal.reason}" for refusal in plan.refused)
        raise SchemaRefused(f"{reasons}: `instream init --plan` names the statements for it")
    return plan


async def _change(connection: Connection, step: SchemaStep) -> None:
    try:
        await ask(connection, Statement(step.statement), CHANGE_TIMEOUT_S)
    except WarehouseError as exc:
        raise WarehouseError(exc.sqlstate, f"{exc.message} (in: {step.statement})") from exc


async def _run_alone(open_one: _Open, step: SchemaStep) -> None:
    """Run a step outside of transactions, while the lock is held by another connection."""
    async with await open_one() as connection:
        await connection.set_autocommit(True)
        await _change(connection, step)


async def _end(ending: Awaitable[None]) -> None:
    """End a transaction. If COMMIT is not answered, the next run looks at the result."""
    try:
        await ending
    except psycopg.Error as exc:
        raise WarehouseError(exc.sqlstate, str(exc)) from exc


def _is_conflict(exc: WarehouseError) -> bool:
    """Whether the step is worth another try at once."""
    return exc.sqlstate is not None and (exc.sqlstate in _RACED or is_serialization(exc.sqlstate, exc.message))


# --- the warehouse as it is

_HAS_SCHEMA: Final = Statement(f"SELECT COUNT(*) FROM pg_namespace WHERE nspname = '{SCHEMA}'")
_CATALOG: Final = "(SELECT oid FROM pg_class WHERE relname = '{}' AND relnamespace = 11)"  # pg_catalog, everywhere
_READERS: Final = Statement(
    "SELECT DISTINCT t.relname, a.attname, s.nspname, v.relname FROM pg_depend d "
    "JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class "
    "JOIN pg_namespace s ON s.oid = v.relnamespace JOIN pg_class t ON t.oid = d.refobjid "
    "JOIN pg_namespace n ON n.oid = t.relnamespace "
    "JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid "
    f"WHERE d.classid = {_CATALOG.format('pg_rewrite')} AND d.refclassid = {_CATALOG.format('pg_class')} "
    f"AND n.nspname = '{SCHEMA}' AND t.relkind = 'r' ORDER BY 1, 2, 3, 4"
)
"""Rows (table, column, schema of a view, view) of the views that read a column of a table."""
_VIEWS_MADE: Final = Statement(
    f"SELECT statement FROM {statements.table(SCHEMA_LOG.name)} "
    "WHERE statement LIKE 'CREATE OR REPLACE VIEW %' ORDER BY applied_at"
)


async def _read(connection: Connection) -> FoundWarehouse:
    """The warehouse as this transaction sees it."""
    rows: list[CatalogRow] = await ask(connection, statements.COLUMNS)
    tables = tables_of(rows)
    readers: dict[tuple[str, str], tuple[str, ...]] = {}
    for table, column, place, view in await ask(connection, _READERS):
        readers[table, column] = (*readers.get((table, column), ()), f'"{place}"."{view}"')
    made: list[Any] = await ask(connection, _VIEWS_MADE) if SCHEMA_LOG.name in tables else []
    latest: list[View] = [view_of(str(statement)) for (statement,) in made]
    return FoundWarehouse(
        has_schema=bool((await ask(connection, _HAS_SCHEMA))[0][0]), tables=tables, views=views_in(rows), readers=readers,
        view_statements={view.name: view.statement for view in latest},
    )  # fmt: skip
