"""Redshift (or its stand-in) through psycopg: connections, and the session that loads."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import AsyncClientCursor

from app.adapters.warehouse_login import Login, login_of
from app.adapters.warehouse_port import COPY_TIMEOUT_S, STATEMENT_TIMEOUT_S, LedgerRow, LoadError
from app.core.delivery import statements
from app.core.delivery.schema_found import FoundTables, tables_of
from app.core.delivery.statements import LogRow, Statement
from app.core.formats.flows import Flow
from app.errors import ConfigurationError, OutcomeUnknown, ServiceUnavailable, WarehouseError
from app.settings import Settings
from app.warehouse_url import REMEDY, is_warehouse_url, redacted_url

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_TIMEOUT_S: Final = 10
_KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""A COPY may be silent for minutes; these settings notice a lost peer within one minute."""
_NO_SUCH_TABLE: Final = frozenset({"42P01", "42501"})
"""Undefined table, insufficient privilege: the SQLSTATEs of a system table that this kind of warehouse does not offer."""


async def connect(url: str, login: Login | None = None) -> Connection:
    """A new connection, not in autocommit: the first statement opens a transaction.

    `client_encoding` is set because Redshift names it in a way that psycopg does not know; statements are never prepared,
    because Redshift's sessions do not keep them as psycopg expects; and every cursor writes its values into the text, so
    that the warehouse never has to guess the type of a parameter (rule D3).

    Args:
        url: the warehouse's.
        login: gives the user and the password; None where the URL has them.

    Raises:
        ConfigurationError: the URL is malformed.
        ServiceUnavailable: the warehouse does not answer; nothing happened.
    """
    if not is_warehouse_url(url):  # psycopg's error would show it
        raise ConfigurationError(f"INSTREAM_WAREHOUSE_URL: {REMEDY}")
    credentials = {} if login is None else (await login())._asdict()
    try:
        return await psycopg.AsyncConnection.connect(
            url, autocommit=False, prepare_threshold=None, client_encoding="utf8", connect_timeout=CONNECT_TIMEOUT_S,
            application_name="instream", cursor_factory=AsyncClientCursor, **_KEEPALIVE, **credentials,
        )  # fmt: skip
    except psycopg.OperationalError as exc:
        reason = " ".join(str(exc).split())
        raise ServiceUnavailable(f"the warehouse at {redacted_url(url)} does not answer: {reason}") from exc


async def run(connection: Connection, statement: Statement, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
    """The rows of a statement; without parameters it goes out as one simple query, literally (rule D3).

    Args:
        connection: where it runs.
        statement: what runs.
        timeout_s: longest wait; None means STATEMENT_TIMEOUT_S.

    Raises:
        ServiceUnavailable: no answer in time. The statement is cancelled; if the cancel gets no answer within seconds
        either, the connection is closed.
    """
    longest_s = STATEMENT_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        async with asyncio.timeout(longest_s):
            cursor = await connection.execute(statement.text.encode(), statement.parameters or None)
            return await cursor.fetchall() if cursor.description else []
    except TimeoutError as exc:
        raise ServiceUnavailable(f"the warehouse gave no answer in {longest_s} s to: {statement.text[:100]}") from exc


async def ask(connection: Connection, statement: Statement, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
    """As `run`, but an error of the warehouse becomes one of `app.errors`.

    Raises:
        WarehouseError: the warehouse refused the statement, or the connection is lost.
        ServiceUnavailable: no answer in time.
    """
    try:
        return await run(connection, statement, timeout_s)
    except psycopg.Error as exc:
        raise WarehouseError(exc.sqlstate, _message(exc)) from exc


class PsycopgSession:
    """`WarehouseSession` on one connection: each call is one statement of `app.core.delivery.statements`, as it is."""

    def __init__(self, connection: Connection, copy_iam_role: str, copy_region: str | None = None) -> None:
        self._connection = connection
        self._copy_iam_role = copy_iam_role
        self._copy_region = copy_region
        self._began: tuple[int, datetime] | None = None
        """The session's process id, and a time before its first COPY."""
        self._known_error = -1
        """The newest query of this session whose load error has been told."""

    @property
    def closed(self) -> bool:
        """Whether the connection is known to be closed."""
        return self._connection.closed

    async def lock(self) -> None:
        """Lock delivery_log."""
        await self._run(statements.LOCK)

    async def columns(self) -> FoundTables:
        """The tables of the schema with their columns."""
        return tables_of(await self._run(statements.COLUMNS))

    async def positions(self, epoch: int) -> dict[int, int]:
        """Partition -> highest number in delivery_log."""
        return {int(partition): int(number) for partition, number in await self._run(statements.positions(epoch))}

    async def copy(self, flow: Flow, manifest_url: str) -> None:
        """Append the files that a manifest names."""
        statement = statements.copy(flow, manifest_url, self._copy_iam_role, self._copy_region)
        if self._began is None:
            ((pid, now),) = await self._run(statements.SESSION)
            self._began = int(pid), now
        await self._run(statement, COPY_TIMEOUT_S)

    async def copied(self) -> int:
        """The number of rows that the last `copy` appended."""
        return int((await self._run(statements.COPIED))[0][0])

    async def load_error(self) -> LoadError | None:
        """The load error of the COPY that failed just now.

        Without an answer the session is closed: in the next session no old error can be taken for a new one (rule D3).
        """
        if self._began is None:
            return None
        try:
            found = await self._newest_error(*self._began)
        except (WarehouseError, ServiceUnavailable):
            await self.close()
            raise
        if not found:
            return None
        query, filename, line, column, code, reason, value = (str(part).strip() for part in found[0])
        self._known_error = int(query)
        return LoadError(filename, int(line), column, int(code), reason, value)

    async def _newest_error(self, pid: int, since: datetime) -> list[tuple[Any, ...]]:
        """The answer of the first system table that this warehouse has."""
        *better, last = statements.LOAD_ERROR_TABLES
        for table in better:
            try:
                return await self._run(statements.load_error(table, pid, since, self._known_error))
            except WarehouseError as exc:
                if exc.sqlstate not in _NO_SUCH_TABLE:
                    raise
                await self.rollback()
        return await self._run(statements.load_error(last, pid, since, self._known_error))

    async def insert_log(self, rows: Sequence[LogRow]) -> None:
        """Add transactions to delivery_log."""
        await self._run(statements.insert_log(rows))

    async def log_status(self, txn_id: str) -> str | None:
        """The status of a transaction in delivery_log."""
        found = await self._run(statements.log_of(txn_id))
        return str(found[0][0]) if found else None

    async def ledger_of(self, batch_ids: Sequence[str]) -> list[LedgerRow]:
        """The ledger's rows of these batches."""
        rows = await self._run(statements.ledger_of(batch_ids))
        return [LedgerRow(str(batch_id), str(txn_id), str(line_set)) for batch_id, txn_id, line_set in rows]

    async def mark_released(self, txn_id: str, load_id: str) -> None:
        """Turn a quarantined transaction into a loaded one."""
        await self._run(statements.mark_released(txn_id, load_id))

    async def count_rows(self, output: str, txn_id: str) -> int:
        """The number of rows that an output's table has of a transaction."""
        return int((await self._run(statements.count_rows(output, txn_id), COPY_TIMEOUT_S))[0][0])

    async def delete_rows(self, output: str, txn_id: str) -> None:
        """Delete the rows that an output's table has of a transaction."""
        await self._run(statements.delete_rows(output, txn_id), COPY_TIMEOUT_S)

    async def log_rows(self, epoch: int, partition: int, number: int) -> list[LogRow]:
        """The rows that delivery_log has under a number."""
        return [LogRow(*row) for row in await self._run(statements.log_rows(epoch, partition, number))]

    async def delete_log(self, epoch: int, partition: int, number: int) -> None:
        """Delete the rows that delivery_log has under a number."""
        await self._run(statements.delete_log(epoch, partition, number))

    async def commit(self) -> None:
        """Commit. Without an answer the outcome is unknown."""
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._connection.commit()
        except TimeoutError as exc:
            raise OutcomeUnknown(f"COMMIT was not answered in {STATEMENT_TIMEOUT_S} s") from exc
        except psycopg.Error as exc:
            if exc.sqlstate is None:
                raise OutcomeUnknown(f"COMMIT was not answered: {exc!r}") from exc
            raise WarehouseError(exc.sqlstate, _message(exc)) from exc

    async def rollback(self) -> None:
        """Undo everything that is not committed."""
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._connection.rollback()
        except TimeoutError as exc:
            raise ServiceUnavailable(f"the warehouse gave no answer in {STATEMENT_TIMEOUT_S} s to: ROLLBACK") from exc
        except psycopg.Error as exc:
            raise WarehouseError(exc.sqlstate, _message(exc)) from exc

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _run(self, statement: Statement, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
        return await ask(self._connection, statement, timeout_s)


async def open_session(
    url: str, copy_iam_role: str = "default", copy_region: str | None = None, login: Login | None = None
) -> PsycopgSession:
    """A new session; COPY reads S3 by `copy_iam_role`, in `copy_region` where that is not the warehouse's.

    Raises:
        ServiceUnavailable: the warehouse does not answer, or AWS gives no credentials; nothing happened.
    """
    return PsycopgSession(await connect(url, login), copy_iam_role, copy_region)


def to_warehouse(settings: Settings) -> Callable[[], Awaitable[PsycopgSession]]:
    """How a process with these settings opens its sessions."""
    return partial(
        open_session, settings.warehouse_url, settings.copy_iam_role, settings.copy_region, login_of(settings)
    )  # fmt: skip


def _message(exc: psycopg.Error) -> str:
    """The error's primary message and detail; the connection's own words where the server sent none."""
    diag = exc.diag
    return " ".join(part for part in (diag.message_primary, diag.message_detail) if part) or str(exc)
