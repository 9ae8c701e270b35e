"""The step-committing table: ETL state whose changelog is the output topic `rows` itself (rules E1 to E5).

Faust's own table writes its store at once and its changelog later, one message a key. This table writes nothing by itself:
the owner sends a step to `rows`, waits for the broker, and then `commit`s the step. Recovery and standbys `follow` the same
messages by the same rule (E2). All of them gather steps and write many at once: the rest is in the log. Faust still assigns,
recovers and revokes the store of a partition.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, cast

import structlog
from faust.stores import rocksdb as faust_rocksdb
from faust.tables.table import Table
from faust.types import TP

from app.core.formats.step_message import StepLog, StepMessage
from app.core.repair.replacements import Replacements
from app.core.state.tables import Answers, Digests
from app.crash.proxies import around
from app.errors import FormatInvalid, StepGap
from app.shell.faust_app import InstreamApp
from app.shell.repairs import replacements_or_none
from app.topics import topics_of
from tables.store.engine import Engine
from tables.store.partition_store import PartitionStore
from tables.store.position import StorePosition
from tables.store.rocksdb import Memory, open_engine
from tables.store.store_check import StoreCheck
from tables.store.write_buffer import GATHERED_BYTES

log = structlog.get_logger(__name__)

RECOVERY_BUFFER: Final = 8
"""Messages of `rows`, MiB each, that recovery gathers before it applies them."""
GATHERED_BYTES_OF_ALL: Final = 64 * 1024 * 1024
"""Bytes of changes that the stores of a worker hold back together."""


class RowsStore(faust_rocksdb.Store):
    """One RocksDB a partition, kept by the messages of `rows`."""

    def __init__(self, app: InstreamApp, table: Any, memory: Memory) -> None:
        super().__init__(
            "rocksdb://", app, table, table_name=table.name, key_type=bytes, value_type=bytes, key_serializer="raw",
            value_serializer="raw", options={}, driver="rocksdict",
        )  # fmt: skip
        self._instream = app
        self._settings = app.settings
        self._rows = topics_of(app.settings).rows.name
        self._memory = memory
        self._owned: frozenset[int] = frozenset()
        self._replaced: Mapping[int, Replacements] = {}
        self._failed = False

    def db(self, partition: int) -> PartitionStore:
        """The open store of an assigned partition; not to be kept across an await.

        Raises:
            KeyError: this worker does not have the partition.
        """
        opened: PartitionStore = self._dbs[partition]
        return opened

    # --- recovery

    def persisted_offset(self, tp: TP) -> int | None:
        """The last offset of `rows` that the store has read, put on disk first; recovery goes on behind it.

        Faust asks at every assignment. It may ask another object for the same store later, and must not be told more than
        that one can know.
        """
        db: PartitionStore = self._db_for_partition(tp.partition)
        db.write()
        return None if db.empty else db.rows_offset

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Do nothing: offsets go to disk together with their steps."""

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Follow the log: recovery of an owner, and standbys (rule E2). An error ends the worker (rule E5).

        Faust swallows an exception of this method and never ends its recovery, so the app is crashed here. Faust also hands
        over messages of partitions that were revoked meanwhile; they are skipped.
        """
        for event in batch:
            message = event.message
            if self._failed or message.topic != self._rows or message.partition not in self._owned:
                continue
            try:
                self._follow(message.partition, message.value, message.offset)
            except Exception as exc:
                self._failed = True
                log.exception("a step cannot be applied", partition=message.partition, offset=message.offset)
                self._instream.add_future(self._instream.crash(exc))

    def _follow(self, partition: int, message: bytes | None, offset: int) -> None:
        db: PartitionStore = self._db_for_partition(partition)
        try:
            replaced = self._replaced.get(partition)
            db.follow(message if replaced is None else replaced.at(offset, message), offset)
        except StepGap:
            log.error("history has a gap, store is wiped", partition=partition, offset=offset)
            self.wipe(partition)
            raise

    # --- the life of a partition's store

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Close stores that are gone, open new ones, and compare each with the log before recovery trusts it (rule E5)."""
        self._owned = frozenset(tp.partition for tp in assigned if tp.topic == self._rows)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        self._close([partition for partition in self._dbs if partition not in self._owned])
        await self._verify()

    def revoke_partitions(self, table: Any, tps: set[TP]) -> None:
        """Close the stores of revoked partitions; Faust would leave them to the garbage collector."""
        self._close([tp.partition for tp in tps if tp.topic == self._rows])

    async def stop(self) -> None:
        """Close every store."""
        self._owned = frozenset()
        self._close(list(self._dbs))

    def wipe(self, partition: int) -> None:
        """Delete the store of a partition; it is rebuilt from the log."""
        db: PartitionStore = self._db_for_partition(partition)
        del self._dbs[partition]
        db.wipe()
        cast(Any, self._instream.tables).recovery.revoke(TP(self._rows, partition))  # or Faust goes on where the old one was

    def _open_for_partition(self, partition: int) -> Any:
        if partition not in self._owned:
            raise KeyError(f"{self._rows}[{partition}] is not assigned to this worker")
        try:
            store = self._open_store(partition)
        except FormatInvalid as exc:
            log.error("store is damaged, it is wiped and rebuilt", partition=partition, error=str(exc), alarm=True)
            self._open_engine(partition).wipe()
            store = self._open_store(partition)
        return around(self._instream.ports.points, "store", store)

    def _open_engine(self, partition: int) -> Engine:
        return open_engine(Path(self.partition_path(partition)), self._memory)

    def _open_store(self, partition: int) -> PartitionStore:
        engine = self._open_engine(partition)
        try:
            return PartitionStore(
                around(self._instream.ports.points, "rocksdb", engine), self._settings.dedup_window_ms,
                self._gathered_bytes, StepLog(self._rows, partition, self._settings.epoch),
            )  # fmt: skip
        except FormatInvalid:
            engine.close()
            raise

    def _gathered_bytes(self) -> int:
        """The bytes that each store may hold back."""
        return min(GATHERED_BYTES, GATHERED_BYTES_OF_ALL // max(1, len(self._owned)))

    def _close(self, partitions: Iterable[int]) -> None:
        """Close those of these stores that are open. If one cannot be closed, the others are closed all the same."""
        with ExitStack() as closing:
            for partition in partitions:
                if (db := self._dbs.pop(partition, None)) is not None:
                    closing.callback(db.close)

    # --- whether the store belongs to the log (rule E5)

    async def _verify(self) -> None:
        owned = sorted(self._owned)
        if not owned:
            return
        app, settings = self._instream, self._settings
        logs = await app.logs()
        check = StoreCheck(logs, app.ports.objects, topics_of(settings), settings.epoch, app.group)
        self._replaced = await replacements_or_none(app.ports.objects, settings.epoch, self._owned)
        firsts, ends = await logs.first_offsets(self._rows, owned), await logs.end_offsets(self._rows, owned)
        for partition in owned:
            replaced = self._replaced.get(partition)
            if await check.is_stale(self.db(partition), partition, firsts[partition], ends[partition], replaced):
                self.wipe(partition)
                self._db_for_partition(partition)


class PartitionReader:
    """A `StateReader` of one partition. It looks the store up at every call, so that it never outlives the assignment."""

    def __init__(self, store: RowsStore, partition: int) -> None:
        self._store = store
        self._partition = partition

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order."""
        return self._store.db(self._partition).get(table, keys)

    def maybe(self, table: str, digests: Digests) -> Answers:
        """Which digests, uint64[n, 2], may be keys of `seen` or `views`: bool[n]."""
        return self._store.db(self._partition).maybe(table, digests)

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) of a table in key order."""
        return self._store.db(self._partition).scan(table)


class PartitionState(Table[bytes, bytes]):
    """The ETL's table.

    Args:
        app: The app that owns it; the table is added to `app.tables`.
        rows: Topic `rows`, the changelog.
    """

    def __init__(self, app: InstreamApp, rows: Any) -> None:
        self._instream = app
        self._rows_name = topics_of(app.settings).rows.name
        self._memory = Memory(app.settings.state_cache_bytes)
        super().__init__(
            app, name=f"state-e{app.settings.epoch}", changelog_topic=rows, key_type=bytes, value_type=bytes,
            partitions=app.settings.partitions, recovery_buffer_size=RECOVERY_BUFFER, standby_buffer_size=RECOVERY_BUFFER,
        )  # fmt: skip
        app.tables.add(self)

    def _new_store(self) -> RowsStore:
        return RowsStore(self._instream, self, self._memory)

    def reader(self, partition: int) -> PartitionReader:
        """The tables that a step of `partition` may look up."""
        return PartitionReader(self._rows_store, partition)

    def position(self, partition: int) -> StorePosition:
        """The last step in the partition's store."""
        return self._db(partition).position

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Apply the owner's own step, stored by the broker at `offset` of `rows` (rule E3, 2).

        Raises:
            StepConflict: another process wrote in between; nothing changed.
        """
        self._db(step.partition).commit(step, message, offset)

    async def verify_recovered(self, partition: int) -> None:
        """See that recovery has read the log to its end. The work on a partition starts with this.

        Raises:
            NewerFormat: a newer version wrote what is next.
            StoreLost: the log is trimmed and too short to tell where its history begins.
            StepConflict: another process has written meanwhile: recover again.
        """
        logs = await self._instream.logs()
        _, end = await logs.bounds(self._rows_name, partition)
        self._db(partition).verify_read_to(end)

    def _db(self, partition: int) -> PartitionStore:
        return self._rows_store.db(partition)

    @property
    def _rows_store(self) -> RowsStore:
        store: Any = self.data
        return cast(RowsStore, store)
