"""Questions to the warehouse: plain queries with their values in the text, each a transaction of its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg

from app.adapters.warehouse import Connection, connect
from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import QUERY_TIMEOUT_S
from app.errors import ServiceUnavailable


class Questions:
    """One connection for one question after the other. A question connects at need."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._url = url
        self._login = login
        self._connection: Connection | None = None

    async def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; `%s` stands for each value.

        Raises:
            ServiceUnavailable: no answer in time, or a refusal; the next question makes a new connection.
        """
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                connection = await self._connected()
                cursor = await connection.execute(query.encode(), values or None)
                return await cursor.fetchall()
        except (psycopg.Error, TimeoutError) as exc:
            await self.close()
            state = getattr(exc, "sqlstate", None) or ""
            raise ServiceUnavailable(f"warehouse: {type(exc).__name__} {state} {exc}".strip()) from exc

    async def close(self) -> None:
        """Let go of the connection; the next question makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._url, self._login)
            await self._connection.set_autocommit(True)
        return self._connection
