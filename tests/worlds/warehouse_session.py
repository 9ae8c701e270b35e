"""The subjects of a warehouse session's contract tests: the twin in memory, and the stand-in through the real adapter."""

import json
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from app.adapters.ports import ObjectStore
from app.adapters.warehouse import PsycopgSession, open_session
from app.adapters.warehouse_port import Connect, WarehouseSession
from app.core.delivery.statements import LOADED, LogRow
from app.core.formats.flow_files import encode_output
from app.errors import ServiceUnavailable, WarehouseError
from app.testing.memory import MemoryObjectStore, MemorySession, MemoryWarehouse
from tests.worlds.waiting import until
from tests.worlds.warehouse import Warehouse, rows_of, until_locked_out
from tests.worlds.warehouse_schema import execute

MOMENT = datetime(2026, 11, 18, 11, 6, 41)  # noqa: DTZ001 - the warehouse's timestamps have no zone
BATCH = "01900000-0000-7000-8000-000000000001"


class Case(NamedTuple):
    """A warehouse with its bucket, and events behind a session's back."""

    store: ObjectStore
    open: Connect
    count: Callable[[str], Awaitable[int]]
    """Committed rows of a table."""
    fail: Callable[[str], None]
    """The next call that a fault of this kind hits fails."""
    kill: Callable[[Any], None]
    """The session's socket is dead: its client was killed."""
    waiting: Callable[[int], Awaitable[None]]
    """Returns once so many sessions wait for a lock."""
    take_away: Callable[[str, str | None], Awaitable[None]]
    """A table, or a column of it, is gone."""

    async def put(self, key: str, *files: bytes, **more: Any) -> str:
        """A manifest of these files of one output; its URL."""
        entries = []
        for number, body in enumerate(files):
            await self.store.put(f"{key}/{number}", body)
            entries.append({"url": f"s3://{self.store.bucket}/{key}/{number}", "mandatory": True} | more)
        return await self.put_manifest(key, entries)

    async def put_manifest(self, key: str, entries: list[dict[str, Any]]) -> str:
        await self.store.put(f"{key}/manifest", json.dumps({"entries": entries}).encode())
        return f"s3://{self.store.bucket}/{key}/manifest"

    async def until_given(self, session: WarehouseSession) -> None:
        """Take the lock, even if it takes long to notice that its owner is gone, and give it back."""
        await session.lock()
        await session.rollback()


def row(number: int, partition: int = 0, epoch: int = 1, status: str = LOADED) -> LogRow:
    detail = None if status == LOADED else "not fit"
    return LogRow(f"{epoch}-{partition}-{number}-ab", epoch, partition, number, status, "load", 2, MOMENT, detail)


def views(count: int, txn: str = "t", **columns: Any) -> bytes:
    """A file of page views."""
    given = {"line": lambda n: n, "batch_id": BATCH, "txn_id": txn} | columns
    return encode_output("page_views", rows_of("page_views", count, **given))


def memory_case() -> Case:
    """The twin."""
    store = MemoryObjectStore()
    warehouse = MemoryWarehouse(store)

    async def count(table: str) -> int:
        return len(warehouse.log if table == "delivery_log" else warehouse.rows(table))

    def fail(kind: str) -> None:
        side, call, error = {
            "refuse": ("before", "connect", ServiceUnavailable("refused")),
            "disk_full": ("before", "copy", WarehouseError("53100", "Disk Full")),
            "drop_mid_copy": ("before", "copy", WarehouseError(None, "lost")),
            "drop_before_commit": ("before", "commit", WarehouseError(None, "lost")),
            "drop_after_commit": ("after", "commit", WarehouseError(None, "lost")),
        }[kind]

        async def hook(name: str, _: str) -> None:
            if name == call:
                setattr(warehouse, side, None)
                raise error

        setattr(warehouse, side, hook)

    async def waiting(sessions: int) -> None:
        await until(lambda: len(warehouse.log_lock.waiting) >= sessions)

    async def take_away(table: str, column: str | None) -> None:
        left = tuple(found for found in warehouse.tables.pop(table) if found.name != column)
        if column is not None:
            warehouse.tables[table] = left

    return Case(store, warehouse.connect, count, fail, MemorySession.drop, waiting, take_away)


def real_case(warehouse: Warehouse) -> Case:
    """The adapter, through the stand-in."""

    async def count(table: str) -> int:
        return int((await warehouse.query(f"SELECT count(*) FROM analytics.{table}"))[0][0])

    def kill(session: PsycopgSession) -> None:
        with socket.socket(fileno=os.dup(session._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    async def waiting(sessions: int) -> None:
        await until_locked_out(warehouse, sessions)

    async def take_away(table: str, column: str | None) -> None:
        what = f"TABLE analytics.{table}" if column is None else f"TABLE analytics.{table} DROP COLUMN {column}"
        await execute(warehouse.settings.warehouse_url, f"{'DROP' if column is None else 'ALTER'} {what} CASCADE")

    open_one = partial(open_session, warehouse.settings.warehouse_url)
    return Case(warehouse.store, open_one, count, warehouse.fail, kill, waiting, take_away)
