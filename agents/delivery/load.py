"""One load into the warehouse: every output of some transactions in one warehouse transaction (rule D1)."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import msgspec
import structlog

from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import Connect, WarehouseSession
from app.clock import Clock
from app.core.delivery.load_plan import (
    MISSING,
    Failure,
    FailureClass,
    LoadLimits,
    OutputLoad,
    classify,
    lacks,
    log_row,
    output_loads,
    plan_load,
)
from app.core.delivery.schema_found import lacking
from app.core.delivery.statements import LogRow
from app.core.formats.transaction_record import Ready
from app.errors import OutcomeUnknown, OutsideError, WarehouseError
from app.settings import Settings

log = structlog.get_logger(__name__)


def new_token() -> str:
    """The part of an id that differs between loads of one millisecond."""
    return secrets.token_hex(8)


class LoadOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a load."""

    load_id: str = ""
    planned: tuple[Ready, ...] = ()
    """The transactions of the load; empty if nothing was left to do."""
    set_aside: tuple[str, ...] = ()
    """The transactions that the load wrote down as quarantined."""
    positions: dict[int, int] | None = None
    """partition -> highest number in delivery_log, read under the lock before this load; None if not read."""
    failure: Failure | None = None
    """None if the load was committed."""


class Mending(NamedTuple):
    """The changes of a repair to the warehouse, behind its deletions."""

    copied: Sequence[Ready] = ()
    """Files to copy: a transaction with only the outputs that are wanted."""
    logged: Sequence[LogRow] = ()
    """Rows of delivery_log; one without a load_id gets that of this load."""


class LoadStopped(Exception):
    """A statement of a load failed; nothing of the load is committed unless the failure's kind is UNKNOWN."""

    def __init__(self, failure: Failure, sqlstate: str | None = None) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.sqlstate = sqlstate


class WarehouseLoad:
    """Runs loads one after the other in one session. It opens the session at need and drops it after a failure.

    Before the first load it compares the warehouse's columns with the catalogue, and again whenever a statement missed one:
    a missing column is a deferral with its remedy, and loads go on once the column is there (rule D5).
    """

    def __init__(  # `token` makes load ids unique; a simulation hands in its own
        self, store: ObjectStore, connect: Connect, settings: Settings, clock: Clock, token: Callable[[], str] = new_token
    ) -> None:
        self._store = store
        self._connect = connect
        self._epoch = settings.epoch
        self._clock = clock
        self._token = token
        self._session: WarehouseSession | None = None
        self._compared = False
        """Whether the warehouse had every table and column at the last look."""

    async def close(self) -> None:
        """Close the session; an open transaction is rolled back by the warehouse."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def positions(self) -> dict[int, int]:
        """Partition -> highest decided number, read without the lock. A walk starts there; it never decides what to load.

        Raises:
            LoadStopped: the warehouse does not answer, or lacks a table or column.
        """
        async with self._transaction() as session:
            await self._compare(session)
            return await session.positions(self._epoch)

    async def load(
        self, ready: Sequence[Ready], set_aside: Mapping[str, Failure], limits: LoadLimits = LoadLimits()  # noqa: B008
    ) -> LoadOutcome:  # fmt: skip
        """Load the next transactions of `ready`, write down `set_aside` (txn_id -> reason) as quarantined, and commit.

        Effects, in order, and what a crash right after each leaves:
          1 LOCK delivery_log            nothing; the lock ends with the connection
          2 read positions, plan         nothing: the transactions of another deliverer are seen here and not loaded again
          3 PUT loads/<load_id>/*        manifests that are never read
          4 COPY each output, count      rows that no transaction shows; the warehouse rolls them back
          5 INSERT delivery_log          the same
          6 COMMIT                       rows and log together; an unanswered COMMIT is looked up by the next load at 2
        """
        load_id = self._new_load_id()
        planned: tuple[Ready, ...] = ()
        positions: dict[int, int] | None = None
        try:
            async with self._transaction() as session:
                await session.lock()  # 1
                positions = await session.positions(self._epoch)  # 2
                planned = plan_load(positions, ready, limits)
                if not planned:
                    return LoadOutcome(positions=positions)
                await self._copy_all(session, [t for t in planned if t.txn_id not in set_aside], load_id)  # 3, 4
                rows = [log_row(txn, load_id, set_aside.get(txn.txn_id)) for txn in planned]
                await session.insert_log(rows)  # 5
                await _commit(session)  # 6
        except LoadStopped as stopped:
            return LoadOutcome(load_id=load_id, planned=planned, positions=positions, failure=stopped.failure)
        aside = tuple(txn.txn_id for txn in planned if txn.txn_id in set_aside)
        return LoadOutcome(load_id=load_id, planned=planned, set_aside=aside, positions=positions)

    async def probe(self, transactions: Sequence[Ready]) -> Failure | None:
        """Copy every output of `transactions` and roll back. Returns: the failure, or None if it would load."""
        try:
            async with self._transaction() as session:
                await self._copy_all(session, transactions, self._new_load_id())
        except LoadStopped as stopped:
            return stopped.failure
        return None

    async def load_again(self, txn: Ready, check: Callable[[WarehouseSession], Awaitable[bool]]) -> bool:
        """Load a quarantined transaction under the lock if `check` allows it there. Returns: whether it was loaded now.

        Raises:
            LoadStopped: a statement failed; after an UNKNOWN failure the next call's `check` finds the outcome.
        """
        load_id = self._new_load_id()
        async with self._transaction() as session:
            await self._compare(session)
        async with self._transaction() as session:
            await session.lock()
            if not await check(session):
                return False
            await self._copy_all(session, [txn], load_id)
            await session.mark_released(txn.txn_id, load_id)
            await _commit(session)
        return True

    async def mend(self, decide: Callable[[WarehouseSession], Awaitable["Mending | None"]]) -> bool:
        """Change what was loaded before, under the lock: `decide` looks, and deletes; its answer is loaded anew (rule R2).

        Effects: LOCK, what `decide` reads and deletes, COPY with counts, INSERT delivery_log, COMMIT, all in one
        transaction. A crash before the COMMIT leaves everything as it was.

        Returns: whether anything was changed.

        Raises:
            LoadStopped: a statement failed; after an UNKNOWN failure the next call's `decide` finds the outcome.
        """
        load_id = self._new_load_id()
        async with self._transaction() as session:
            await self._compare(session)
        async with self._transaction() as session:
            await session.lock()
            found = await decide(session)
            if found is None:
                return False
            await self._copy_all(session, found.copied, load_id)
            if found.logged:
                await session.insert_log([row._replace(load_id=row.load_id or load_id) for row in found.logged])
            await _commit(session)
        return True

    async def prune_log(self, loaded_before: datetime) -> None:
        """Delete the old rows of delivery_log, under the lock, in one transaction of their own (rule D6).

        Of each partition the row with the highest number stays, because the walk begins there (rule D1); quarantined rows
        stay, because an operator must release them (rule D2).

        Args:
            loaded_before: UTC without a zone, as the warehouse keeps times.

        Raises:
            LoadStopped: a statement failed; the rows that are left are deleted another time.
        """
        async with self._transaction() as session:
            await session.lock()
            await session.prune_log(self._epoch, await session.positions(self._epoch), loaded_before)
            await _commit(session)

    # --- inside

    def _new_load_id(self) -> str:
        """An id that sorts by time and that no other deliverer has."""
        return f"{self._clock.now_ms():013d}-{self._token()}"

    async def _compare(self, session: WarehouseSession) -> None:
        """Stop if the warehouse lacks a table or column; skip the look if the last one found them all."""
        if not self._compared and (what := lacking(await session.columns())) is not None:
            raise LoadStopped(lacks(what))
        self._compared = True

    async def _lack(self) -> Failure | None:
        """The missing tables and columns, after a statement failed on one; None if all are there."""
        self._compared = False
        try:
            async with self._rolled_back() as session:
                await self._compare(session)
        except LoadStopped as stopped:
            return stopped.failure
        return None

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[WarehouseSession]:
        """The session in a transaction that ends with the block: rolled back unless it was committed.

        Raises:
            LoadStopped: a failure outside, classed; a missing table or column is named.
        """
        try:
            async with self._rolled_back() as session:
                yield session
        except LoadStopped as stopped:
            if stopped.sqlstate not in MISSING:
                raise
            raise LoadStopped(await self._lack() or stopped.failure) from stopped

    @asynccontextmanager
    async def _rolled_back(self) -> AsyncIterator[WarehouseSession]:
        """As `_transaction`, but errors are classed by their own text alone."""
        try:
            if self._session is None or self._session.closed:
                self._session = await self._connect()
            session = self._session
            try:
                yield session
            finally:
                await self._leave(session)
        except WarehouseError as exc:
            raise LoadStopped(classify(exc.sqlstate, exc.message), exc.sqlstate) from exc
        except OutsideError as exc:
            raise LoadStopped(Failure(FailureClass.DEFER, "outside", str(exc))) from exc

    async def _leave(self, session: WarehouseSession) -> None:
        """Roll back; a session that does not even do that is dropped."""
        try:
            await session.rollback()
        except OutsideError as exc:
            log.info("session dropped", error=str(exc))
            self._session = None
            await session.close()

    async def _copy_all(self, session: WarehouseSession, transactions: Sequence[Ready], load_id: str) -> None:
        """Write the merged manifests, then one COPY an output, each counted."""
        loads = output_loads(transactions, load_id, self._store.bucket)
        for each in loads:
            await self._store.put(each.manifest_key, each.manifest)
        if not loads:
            return
        for each in loads:
            await self._copy(session, each)

    async def _copy(self, session: WarehouseSession, load: OutputLoad) -> None:
        try:
            await session.copy(load.flow, f"s3://{self._store.bucket}/{load.manifest_key}")
        except WarehouseError as exc:
            raise LoadStopped(await _copy_failure(session, exc, load), exc.sqlstate) from exc
        copied = await session.copied()
        if copied != load.rows:
            detail = f"COPY counted {copied} rows of {load.flow.name}, the transactions say {load.rows}"
            raise LoadStopped(Failure(FailureClass.DATA, "count", detail, load.flow.name))


async def _copy_failure(session: WarehouseSession, exc: WarehouseError, load: OutputLoad) -> Failure:
    """The meaning of a failed COPY, from the load-error table and not from the message (rule D2)."""
    output = load.flow.name
    failure = classify(exc.sqlstate, exc.message, output=output)
    if exc.sqlstate is None or session.closed:
        return failure
    await session.rollback()
    found = await session.load_error()
    if found is None:
        return failure
    place = f"{found.filename} line {found.line}, column {found.column or '?'}"
    text = f"{place}: {found.reason} (code {found.code})" + (f", value {found.value[:200]!r}" if found.value else "")
    return classify(exc.sqlstate, text, named_file=found.filename, output=output)


async def _commit(session: WarehouseSession) -> None:
    try:
        await session.commit()
    except OutcomeUnknown as exc:
        raise LoadStopped(Failure(FailureClass.UNKNOWN, "commit", str(exc))) from exc
