"""Connections to Redshift (or its stand-in) through psycopg, and the schema."""

import asyncio
from typing import Any, Final

import psycopg

from app.core.statements import Statement
from app.errors import ServiceUnavailable
from app.sql import schema_statements

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECT_TIMEOUT_S: Final = 10
STATEMENT_TIMEOUT_S: Final = 120
"""A statement other than COPY that takes longer waits for a lock that somebody else holds, or for a server that hangs."""
COPY_TIMEOUT_S: Final = 1800
_KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
"""A COPY may be silent for minutes; a peer that is gone is noticed within one."""


async def connect(url: str) -> Connection:
    """A new connection, not in autocommit: the first statement opens a transaction.

    `client_encoding` is set because Redshift names it in a way that psycopg does not know; statements are never prepared,
    because Redshift's sessions do not keep them as psycopg expects (rule D3).

    Raises:
        ServiceUnavailable: the warehouse does not answer; nothing happened.
    """
    try:
        return await psycopg.AsyncConnection.connect(
            url, autocommit=False, prepare_threshold=None, client_encoding="utf8", connect_timeout=CONNECT_TIMEOUT_S,
            application_name="instream", **_KEEPALIVE,
        )  # fmt: skip
    except psycopg.OperationalError as exc:
        raise ServiceUnavailable(f"the warehouse does not answer: {exc}") from exc


async def run(connection: Connection, statement: Statement, timeout_s: float | None = None) -> list[tuple[Any, ...]]:
    """The rows of a statement; without parameters it goes out as one simple query, literally (rule D3).

    Args:
        connection: where it runs.
        statement: what runs.
        timeout_s: longest wait; STATEMENT_TIMEOUT_S unless told otherwise.

    Raises:
        ServiceUnavailable: no answer in time. The statement is cancelled; where not even that is answered within seconds,
            the connection is closed.
    """
    longest_s = STATEMENT_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        async with asyncio.timeout(longest_s):
            cursor = await connection.execute(statement.text.encode(), statement.parameters or None)
            return await cursor.fetchall() if cursor.description else []
    except TimeoutError as exc:
        raise ServiceUnavailable(f"the warehouse gave no answer in {longest_s} s to: {statement.text[:100]}") from exc


async def create_schema(url: str) -> None:
    """Make schema `analytics` with its tables and views where they are missing; runs again without effect.

    One transaction: it is there whole or not at all.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
    """
    async with await connect(url) as connection:
        for statement in schema_statements():
            await connection.execute(statement.encode())
