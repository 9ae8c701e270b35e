"""A session of the warehouse in memory: it sees and changes committed rows like a session of the real warehouse."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from app.adapters.warehouse_port import COPY_TIMEOUT_S, STATEMENT_TIMEOUT_S, LedgerRow, LoadError
from app.core.delivery import statements
from app.core.delivery.schema_found import FoundTables
from app.core.delivery.statements import LogRow
from app.core.formats.flows import LEDGER, Flow
from app.core.formats.tables import DELIVERY_LOG
from app.errors import OutcomeUnknown, OutsideError, ServiceUnavailable, WarehouseError
from app.testing.memory.committed import Committed, with_released, without_numbers
from app.testing.memory.copied_files import CopiedRow, FileRefused
from app.testing.memory.database import Database
from app.testing.memory.hooks import Hook, Hooked


class MemorySession(Hooked):
    """`WarehouseSession` on a database in memory; its own hooks replace the database's."""

    def __init__(self, database: Database, number: int) -> None:
        self._database = database
        self._number = number
        self._gone = False
        self._closed = False
        self._copied_last = 0
        self._known_error = -1
        """The newest COPY of this session whose load error has been told."""
        self._begin()

    def _begin(self) -> None:
        """Begin without a read or a change."""
        self._snapshot: Committed | None = None
        self._rows: dict[str, list[CopiedRow]] = {}
        self._logged: list[LogRow] = []
        self._released: dict[str, str] = {}
        self._deleted: set[tuple[str, str]] = set()
        """Table and transaction whose committed rows this transaction deletes."""
        self._unlogged: set[tuple[int, int, int]] = set()
        """Epoch, partition and number whose committed rows of delivery_log this transaction deletes."""
        self._failed = False

    @property
    def closed(self) -> bool:
        """Whether the client closed it or has noticed that it is gone."""
        return self._closed

    def drop(self) -> None:
        """End it as the warehouse does when the client's socket is dead: rolled back, the lock given to the next.

        A client that is alive notices with its next call, or the one in hand.
        """
        if not self._gone:
            self._gone = True
            self._discard()
            if self in self._database.sessions:
                self._database.sessions.remove(self)

    # --- calls

    async def lock(self) -> None:
        """Lock delivery_log; no snapshot begins here."""
        async with self._statement("lock"):
            self._check_table(DELIVERY_LOG.name)
            await self._database.log_lock.acquire(self, exclusive=True)

    async def columns(self) -> FoundTables:
        """The tables with their columns."""
        async with self._statement("columns"):
            self._seen()
        return dict(self._database.tables)

    async def positions(self, epoch: int) -> dict[int, int]:
        """Partition -> highest number in delivery_log."""
        async with self._statement("positions"):
            highest: dict[int, int] = {}
            for row in await self._log():
                if row.epoch == epoch:
                    highest[row.partition] = max(highest.get(row.partition, 0), row.number)
        return highest

    async def copy(self, flow: Flow, manifest_url: str) -> None:
        """Append the rows of the files that a manifest names."""
        statements.copy(flow, manifest_url, "default")  # refuses a text that literal SQL cannot hold
        async with self._statement("copy", flow.name, COPY_TIMEOUT_S):
            self._seen()
            self._check_table(flow.name, flow.names)
            self._database.copies_made += 1
            number = self._database.copies_made
            try:
                rows = await self._database.files.rows(flow.name, flow.version, manifest_url)
            except FileRefused as exc:
                self._database.load_errors.append((self._number, number, exc.error))
                raise
            loaded_at = self._database.clock.now_ms()
            self._rows.setdefault(flow.name, []).extend(row | {"loaded_at": loaded_at} for row in rows)
            self._copied_last = len(rows)

    async def copied(self) -> int:
        """The number of rows that the last `copy` appended."""
        async with self._statement("copied"):
            self._seen()
        return self._copied_last

    async def load_error(self) -> LoadError | None:
        """The load error of the COPY that failed just now."""
        async with self._statement("load_error"):
            self._seen()
            errors = self._database.load_errors
            found = [(copy, e) for session, copy, e in errors if session == self._number and copy > self._known_error]
        if not found:
            return None
        self._known_error, error = found[-1]
        return error

    async def insert_log(self, rows: Sequence[LogRow]) -> None:
        """Add transactions to delivery_log."""
        async with self._statement("insert_log", rows[0].load_id):
            await self._log()
            self._logged += rows

    async def log_status(self, txn_id: str) -> str | None:
        """The status of a transaction in delivery_log."""
        async with self._statement("log_status", txn_id):
            found = [row.status for row in await self._log() if row.txn_id == txn_id]
        return found[0] if found else None

    async def ledger_of(self, batch_ids: Sequence[str]) -> list[LedgerRow]:
        """The ledger's rows of these batches."""
        async with self._statement("ledger_of"):
            wanted, rows = set(batch_ids), self._rows_of(LEDGER.name)
            return [LedgerRow(r["batch_id"], r["txn_id"], r["line_set"]) for r in rows if r["batch_id"] in wanted]

    async def mark_released(self, txn_id: str, load_id: str) -> None:
        """Turn a quarantined transaction into a loaded one."""
        async with self._statement("mark_released", txn_id):
            await self._log()
            self._check_conflict([txn_id])
            self._released[txn_id] = load_id

    async def count_rows(self, output: str, txn_id: str) -> int:
        """The number of rows that an output's table has of a transaction."""
        async with self._statement("count_rows", output):
            self._check_table(output)
            return sum(row["txn_id"] == txn_id for row in self._rows_of(output))

    async def delete_rows(self, output: str, txn_id: str) -> None:
        """Delete the rows that an output's table has of a transaction."""
        async with self._statement("delete_rows", output):
            self._check_table(output)
            self._seen()
            self._deleted.add((output, txn_id))
            own = self._rows.get(output, [])
            self._rows[output] = [row for row in own if row["txn_id"] != txn_id]

    async def log_rows(self, epoch: int, partition: int, number: int) -> list[LogRow]:
        """The rows that delivery_log has under a number."""
        async with self._statement("log_rows"):
            place = (epoch, partition, number)
            return [row for row in await self._log() if (row.epoch, row.partition, row.number) == place]

    async def delete_log(self, epoch: int, partition: int, number: int) -> None:
        """Delete the rows that delivery_log has under a number."""
        async with self._statement("delete_log"):
            await self._log()
            self._unlogged.add((epoch, partition, number))
            place = (epoch, partition, number)
            self._logged = [row for row in self._logged if (row.epoch, row.partition, row.number) != place]

    async def commit(self) -> None:
        """Commit; if a hook breaks it, the outcome is unknown."""
        if self._gone:
            self._closed = True
            raise OutcomeUnknown("COMMIT was not answered: the connection is closed")
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await self._enter("commit")
                self._check_there()
                self._apply()
                await self._leave("commit")
                self._check_there()
        except (WarehouseError, TimeoutError, ServiceUnavailable, OutcomeUnknown) as exc:
            if isinstance(exc, WarehouseError) and exc.sqlstate is not None:
                self._abort()
                raise
            self._lose()
            raise OutcomeUnknown(f"COMMIT was not answered: {exc!r}") from exc

    async def rollback(self) -> None:
        """Undo everything that is not committed and give the lock back."""
        async with self._statement("rollback", behind_error=True):
            self._discard()

    async def close(self) -> None:
        """Close the session; an open transaction is rolled back."""
        self._closed = True
        self.drop()

    # --- inside

    async def _enter(self, call: str, subject: str = "") -> None:
        await _hook(self.before or self._database.before, call, subject)

    async def _leave(self, call: str, subject: str = "") -> None:
        await _hook(self.after or self._database.after, call, subject)

    @asynccontextmanager
    async def _statement(
        self, call: str, subject: str = "", timeout_s: float | None = None, *, behind_error: bool = False
    ) -> AsyncIterator[None]:
        """One call: between its hooks, in time, and in a transaction that takes it."""
        longest_s = STATEMENT_TIMEOUT_S if timeout_s is None else timeout_s
        try:
            self._check_there()
            async with asyncio.timeout(longest_s):
                await self._enter(call, subject)
                self._check_there()
                if self._failed and not behind_error:
                    raise WarehouseError("25P02", "current transaction is aborted, commands ignored until end of it")
                yield
                await self._leave(call, subject)
                self._check_there()
        except TimeoutError as exc:
            self._abort()
            raise ServiceUnavailable(f"the warehouse gave no answer in {longest_s} s to: {call}") from exc
        except (OutsideError, asyncio.CancelledError) as exc:
            self._abort()
            if isinstance(exc, WarehouseError) and exc.sqlstate is None:
                self._lose()
            raise

    def _check_there(self) -> None:
        if self._gone:
            raise WarehouseError(None, "the connection is closed" if self._closed else "the connection is lost")

    def _check_table(self, name: str, columns: Sequence[str] = ()) -> None:
        if (found := self._database.tables.get(name)) is None:
            raise WarehouseError("42P01", f'relation "analytics.{name}" does not exist')
        there = {column.name for column in found}
        if missing := [column for column in columns if column not in there]:
            raise WarehouseError("42703", f'column "{missing[0]}" of relation "{name}" does not exist')

    def _lose(self) -> None:
        self._closed = True
        self.drop()

    def _abort(self) -> None:
        """Drop the transaction's changes and its lock after a failed statement; no call works until it ends."""
        self._discard()
        self._failed = True

    def _discard(self) -> None:
        self._begin()
        self._database.log_lock.release(self)

    def _seen(self) -> Committed:
        """This transaction's view of the others: the rows that were committed before its first look."""
        if self._snapshot is None:
            self._snapshot = self._database.committed
        return self._snapshot

    async def _log(self) -> Sequence[LogRow]:
        """delivery_log as this transaction sees it; the snapshot is older than the wait for the lock."""
        self._check_table(DELIVERY_LOG.name)
        seen = self._seen()
        await self._database.log_lock.acquire(self, exclusive=False)
        return with_released((*without_numbers(seen.log, self._unlogged), *self._logged), self._released)

    def _rows_of(self, output: str) -> Sequence[CopiedRow]:
        """A table's rows as this transaction sees them."""
        return (*self._seen().without(self._deleted).tables[output], *self._rows.get(output, ()))

    def _check_conflict(self, txn_ids: Iterable[str]) -> None:
        """Check that no other session has changed the rows that this transaction will change."""
        for txn_id in txn_ids:
            before, now = ([row for row in c.log if row.txn_id == txn_id] for c in (self._seen(), self._database.committed))
            if before != now:
                raise WarehouseError("XX000", "1023 Serializable isolation violation on table - (delivery_log)")

    def _apply(self) -> None:
        """Publish this transaction's changes and give the lock back; a failed transaction publishes nothing."""
        if not self._failed:
            self._check_conflict(self._released)
            committed = self._database.committed.without(self._deleted)
            for table, rows in self._rows.items():
                committed = committed.with_rows(table, rows)
            kept = without_numbers(committed.log, self._unlogged)
            log = with_released((*kept, *self._logged), self._released)
            self._database.committed = msgspec.structs.replace(committed, log=log)
        self._discard()


async def _hook(hook: Hook | None, call: str, subject: str) -> None:
    if hook is not None:
        await hook(call, subject)
