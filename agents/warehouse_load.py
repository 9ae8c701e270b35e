"""One load into the warehouse: every output of some transactions in one warehouse transaction (rule D1)."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import psycopg
import structlog

from app.adapters.ports import ObjectStore
from app.adapters.warehouse import COPY_TIMEOUT_S, STATEMENT_TIMEOUT_S, Connection, run
from app.clock import Clock
from app.core import statements
from app.core.load_plan import (
    Failure,
    FailureClass,
    Limits,
    OutputLoad,
    classify,
    log_row,
    output_loads,
    plan_load,
)
from app.core.transaction import Ready
from app.errors import OutsideError
from app.settings import Settings

log = structlog.get_logger(__name__)

Connect = Callable[[], Awaitable[Connection]]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load."""

    load_id: str = ""
    planned: tuple[Ready, ...] = ()
    """What it set out to decide about; empty where nothing was left to do."""
    set_aside: tuple[str, ...] = ()
    """Transactions that it wrote down as quarantined."""
    positions: dict[int, int] | None = None
    """partition -> highest number in delivery_log as read under the lock, this load not counted; None if not read."""
    failure: Failure | None = None
    """None where it was committed."""


class LoadStopped(Exception):
    """A statement of a load failed; nothing of it is committed unless the failure's kind is UNKNOWN."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class WarehouseLoad:
    """Runs loads one after the other on one connection, which it opens when it needs one and drops when it fails."""

    def __init__(self, store: ObjectStore, connect: Connect, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._connect = connect
        self._settings = settings
        self._clock = clock
        self._connection: Connection | None = None

    async def close(self) -> None:
        """Close the connection; an open transaction is rolled back by the warehouse."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def positions(self) -> dict[int, int]:
        """Partition -> highest number decided, without the lock: where to start looking, never what to load.

        Raises:
            LoadStopped: the warehouse does not answer.
        """
        async with self._transaction() as connection:
            return await self._positions(connection)

    async def load(
        self, ready: Sequence[Ready], set_aside: Mapping[str, Failure], limits: Limits = Limits()  # noqa: B008
    ) -> Attempt:  # fmt: skip
        """Load what of `ready` is next, write down `set_aside` (txn_id -> why) as quarantined, and commit.

        Effects, in order, and what a crash right after each leaves:
          1 LOCK delivery_log            nothing; the lock goes with the connection
          2 read positions, plan         nothing: whatever another deliverer committed is seen here and not loaded again
          3 PUT loads/<load_id>/*        manifests that nobody reads
          4 COPY each output, count      rows that no transaction shows; the warehouse rolls them back
          5 INSERT delivery_log          the same
          6 COMMIT                       rows and log together; an unanswered COMMIT is looked up by the next load at 2
        """
        load_id = self._new_load_id()
        planned: tuple[Ready, ...] = ()
        positions: dict[int, int] | None = None
        try:
            async with self._transaction() as connection:
                await run(connection, statements.LOCK)  # 1
                positions = await self._positions(connection)  # 2
                planned = plan_load(positions, ready, limits)
                if not planned:
                    return Attempt(positions=positions)
                await self._copy_all(connection, [t for t in planned if t.txn_id not in set_aside], load_id)  # 3, 4
                rows = [log_row(txn, load_id, set_aside.get(txn.txn_id)) for txn in planned]
                await run(connection, statements.insert_log(rows))  # 5
                await self._commit(connection)  # 6
        except LoadStopped as stopped:
            return Attempt(load_id=load_id, planned=planned, positions=positions, failure=stopped.failure)
        aside = tuple(txn.txn_id for txn in planned if txn.txn_id in set_aside)
        return Attempt(load_id=load_id, planned=planned, set_aside=aside, positions=positions)

    async def probe(self, transactions: Sequence[Ready]) -> Failure | None:
        """Copy every output of `transactions` and roll it back: why it fails, or None where it would load."""
        try:
            async with self._transaction() as connection:
                await self._copy_all(connection, transactions, self._new_load_id())
        except LoadStopped as stopped:
            return stopped.failure
        return None

    async def load_again(self, txn: Ready, check: Callable[[Connection], Awaitable[bool]]) -> bool:
        """Load a quarantined transaction under the lock where `check` then says so; whether it was loaded now.

        Raises:
            LoadStopped: a statement failed; after an UNKNOWN failure the next call's `check` tells.
        """
        load_id = self._new_load_id()
        async with self._transaction() as connection:
            await run(connection, statements.LOCK)
            if not await check(connection):
                return False
            await self._copy_all(connection, [txn], load_id)
            await run(connection, statements.mark_released(txn.txn_id, load_id))
            await self._commit(connection)
        return True

    # --- inside

    def _new_load_id(self) -> str:
        """An id that sorts by time and that no other deliverer has."""
        return f"{self._clock.now_ms():013d}-{secrets.token_hex(8)}"

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """The connection in a transaction that ends with the block: rolled back unless it was committed.

        Raises:
            LoadStopped: whatever went wrong outside, classed.
        """
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect()
            connection = self._connection
            try:
                yield connection
            finally:
                await self._leave(connection)
        except OutsideError as exc:
            raise LoadStopped(Failure(FailureClass.DEFER, "outside", str(exc))) from exc
        except psycopg.Error as exc:
            raise LoadStopped(classify(exc.sqlstate, _message(exc), named_file=False)) from exc

    async def _leave(self, connection: Connection) -> None:
        """Roll back what is open; a connection that does not take even that is dropped."""
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await connection.rollback()
        except (psycopg.Error, TimeoutError) as exc:
            log.info("connection dropped", error=str(exc))
            self._connection = None
            await connection.close()

    async def _positions(self, connection: Connection) -> dict[int, int]:
        rows = await run(connection, statements.positions(self._settings.epoch))
        return {int(partition): int(number) for partition, number in rows}

    async def _copy_all(self, connection: Connection, transactions: Sequence[Ready], load_id: str) -> None:
        """Write the merged manifests, then one COPY an output, each counted."""
        loads = output_loads(transactions, load_id, self._store.bucket)
        for each in loads:
            await self._store.put(each.manifest_key, each.manifest)
        if not loads:
            return
        seen = int((await run(connection, statements.LAST_LOAD_ERROR_ID))[0][0])
        for each in loads:
            await self._copy(connection, each, seen)

    async def _copy(self, connection: Connection, load: OutputLoad, seen: int) -> None:
        url = f"s3://{self._store.bucket}/{load.manifest_key}"
        try:
            await run(connection, statements.copy(load.flow, url, self._settings.copy_iam_role), COPY_TIMEOUT_S)
        except psycopg.Error as exc:
            raise LoadStopped(await self._copy_failure(connection, exc, load, seen)) from exc
        copied = int((await run(connection, statements.COPIED))[0][0])
        if copied != load.rows:
            detail = f"COPY counted {copied} rows of {load.flow.name}, the transactions say {load.rows}"
            raise LoadStopped(Failure(FailureClass.DATA, "count", detail, load.flow.name))

    async def _copy_failure(self, connection: Connection, exc: psycopg.Error, load: OutputLoad, seen: int) -> Failure:
        """What a failed COPY means: the load-error table is asked, not the message (rule D2)."""
        output = load.flow.name
        failure = classify(exc.sqlstate, _message(exc), named_file=False, output=output)
        if exc.sqlstate is None or connection.closed:
            return failure
        await connection.rollback()
        found = await run(connection, statements.load_errors_since(seen))
        if not found:
            return failure
        filename, line, column, code, reason, value = (str(part).strip() for part in found[0])
        text = f"{filename} line {line}, column {column or '?'}: {reason} (code {code}), value {value[:200]!r}"
        return classify(exc.sqlstate, text, named_file=True, output=output)

    async def _commit(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                await connection.commit()
        except (psycopg.Error, TimeoutError) as exc:
            if isinstance(exc, TimeoutError) or exc.sqlstate is None:
                raise LoadStopped(Failure(FailureClass.UNKNOWN, "commit", f"COMMIT was not answered: {exc!r}")) from exc
            raise


def _message(exc: psycopg.Error) -> str:
    """The error's primary message and detail; the connection's own words where the server sent none."""
    diag = exc.diag
    return " ".join(part for part in (diag.message_primary, diag.message_detail) if part) or str(exc)
