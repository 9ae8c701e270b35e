"""The warehouse in memory: committed rows and connected sessions."""

from collections.abc import Iterable

import msgspec

from app.adapters.ports import ObjectStore
from app.clock import Clock, SystemClock
from app.core.delivery.statements import LogRow
from app.testing.memory.copied_files import CopiedRow
from app.testing.memory.database import Database
from app.testing.memory.warehouse_session import MemorySession


class MemoryWarehouse(Database):
    """A database with the tables of `analytics`.

    Its hooks see every call of every session that has none of its own: the method's name, and the output, transaction or
    load that it is about. A WarehouseError without sqlstate that a hook raises is the connection that breaks there.
    """

    def __init__(self, store: ObjectStore, clock: Clock | None = None) -> None:
        super().__init__(store, clock or SystemClock())
        self.sessions_made = 0

    @property
    def log(self) -> tuple[LogRow, ...]:
        """delivery_log, in the order of its commits."""
        return self.committed.log

    def rows(self, table: str) -> tuple[CopiedRow, ...]:
        """A table's rows, column -> value (timestamps as milliseconds) and `loaded_at` in milliseconds."""
        return self.committed.tables[table]

    def add(self, log: Iterable[LogRow] = (), **tables: Iterable[CopiedRow]) -> None:
        """Commit entries of delivery_log and rows of tables (by name) past all sessions."""
        committed = msgspec.structs.replace(self.committed, log=(*self.log, *log))
        for table, rows in tables.items():
            committed = committed.with_rows(table, rows)
        self.committed = committed

    async def connect(self) -> MemorySession:
        """A new session. A hook that raises ServiceUnavailable refuses it."""
        await self._enter("connect")
        self.sessions_made += 1
        session = MemorySession(self, self.sessions_made)
        await self._leave("connect")
        self.sessions.append(session)
        return session
