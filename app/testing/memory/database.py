"""The common part of the sessions of the warehouse in memory: committed rows, waiting sessions, refused files."""

from datetime import UTC, datetime
from typing import Protocol

from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import LoadError
from app.clock import Clock
from app.core.delivery.schema_found import FoundColumn, found_as
from app.core.formats.flows import OUTPUTS
from app.core.formats.tables import TABLES
from app.testing.memory.committed import Committed
from app.testing.memory.copied_files import CopiedFiles
from app.testing.memory.hooks import Hooked
from app.testing.memory.table_lock import TableLock


class Connected(Protocol):
    """A session that the database has open."""

    def drop(self) -> None:
        """End it, as the database does when the client's socket is dead."""


class Database(Hooked):
    """The state behind every session, with the tables of `analytics`."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self.clock = clock
        self.files = CopiedFiles(store)
        self.committed = Committed({flow.name: () for flow in OUTPUTS})
        self.tables: dict[str, tuple[FoundColumn, ...]] = {
            table.name: tuple(map(found_as, table.columns)) for table in TABLES
        }
        """The existing tables and columns: remove some to get an older warehouse."""
        self.log_lock = TableLock()
        """The lock of delivery_log: a read or change shares it, `lock` takes it alone."""
        self.load_errors: list[tuple[int, int, LoadError]] = []
        """Session, number of the COPY, and the fault."""
        self.sessions: list[Connected] = []
        """Open sessions, oldest first."""
        self.copies_made = 0
        self.logged_ms: dict[str, int] = {}
        """Transaction -> the column loaded_at of its row of delivery_log."""

    def logged_at(self, txn_id: str) -> datetime:
        """The column loaded_at of a row of delivery_log: UTC without a zone."""
        return datetime.fromtimestamp(self.logged_ms.get(txn_id, 0) / 1000, UTC).replace(tzinfo=None)
