"""Another schema of the warehouse with the tables of schema `analytics`: a rebuild puts its rows there."""

from collections.abc import Sequence
from typing import Final

from app.adapters.warehouse import Connection, ask
from app.adapters.warehouse_port import COPY_TIMEOUT_S
from app.core.delivery import schema as ddl
from app.core.delivery import statements
from app.core.delivery.load_plan import OutputLoad
from app.core.delivery.schema_found import tables_of
from app.core.delivery.statements import Statement
from app.core.formats.flows import OUTPUTS
from app.core.formats.tables import DELIVERY_LOG, LOADED, SCHEMA
from app.errors import ConfigurationError, LoadRejected

_TAKEN: Final = frozenset({SCHEMA, "public", "information_schema"})


def check_schema(name: str) -> None:
    """See that a rebuild may write into a schema.

    Raises:
        ConfigurationError: the name is that of a schema with a use of its own, or does not belong in literal SQL.
    """
    if name in _TAKEN or name.startswith("pg_"):
        raise ConfigurationError(f"a rebuild never writes into schema {name}: name another one")
    statements.columns_of(name)


async def make_tables(connection: Connection, name: str) -> None:
    """Make the schema and its tables where they are missing, and commit.

    Raises:
        ConfigurationError: a table is there with other columns.
        WarehouseError, ServiceUnavailable: the warehouse refuses a statement, or gives no answer.
    """
    check_schema(name)
    found = tables_of(await ask(connection, statements.columns_of(name)))
    if not found and not await ask(connection, Statement("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,))):
        await ask(connection, Statement(f'CREATE SCHEMA "{name}"'))
    for table in LOADED:
        if table.name not in found:
            await ask(connection, Statement(ddl.create_table(table, name)))
        elif missing := set(table.names) - {column.name for column in found[table.name]}:
            raise ConfigurationError(
                f"table {table.name} of schema {name} lacks {', '.join(sorted(missing))}: an older version made it; "
                f"DROP SCHEMA {name} CASCADE, and rebuild again"
            )
    await connection.commit()


async def replace_rows(
    connection: Connection, name: str, ids: tuple[str, str], loads: Sequence[tuple[OutputLoad, Statement]]
) -> int:
    """Replace the rows of a range of batches in one transaction. Returns: the number of rows that are there now.

    Args:
        connection: where it runs; no transaction is open.
        name: the schema.
        ids: the batches: the first id, and the id behind the last.
        loads: what is copied, and each one's COPY.

    Raises:
        LoadRejected: COPY counted other rows than the files have; nothing changed.
        WarehouseError, ServiceUnavailable: the warehouse refuses a statement, or gives no answer; nothing changed.
    """
    # As for a load (rule D1): two rebuilds of one range come one after the other, and the later one sees the earlier.
    await ask(connection, Statement(f"LOCK TABLE {statements.table(DELIVERY_LOG.name, name)}"))
    for flow in OUTPUTS:
        await ask(connection, statements.delete_batches(flow.name, name, *ids), COPY_TIMEOUT_S)
    rows = 0
    for load, copy in loads:
        await ask(connection, copy, COPY_TIMEOUT_S)
        ((copied,),) = await ask(connection, statements.COPIED)
        if int(copied) != load.rows:
            raise LoadRejected(f"COPY counted {copied} rows of {load.flow.name}, the rebuild made {load.rows}")
        rows += load.rows
    await connection.commit()
    return rows
