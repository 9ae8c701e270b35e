"""The audit's view of the warehouse, in memory."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from app.adapters.warehouse_port import QUERY_TIMEOUT_S, Delivered, Delivery, Quarantined, moment_ms
from app.core.audit.reconcile import LedgerLines
from app.core.delivery.statements import LOADED, QUARANTINED, LogRow
from app.core.formats.flows import DEAD_LETTERS, LEDGER, REPLAYS
from app.errors import ServiceUnavailable
from app.testing.memory.copied_files import CopiedRow
from app.testing.memory.hooks import Hooked
from app.testing.memory.s3 import MemoryObjectStore
from app.testing.memory.warehouse import MemoryWarehouse


class MemoryLoadedLedger(Hooked):
    """`LoadedLedger` over the committed rows of a MemoryWarehouse.

    Delivery's warehouse, or one of its own that a test fills.
    """

    def __init__(self, warehouse: MemoryWarehouse | None = None) -> None:
        self.warehouse = warehouse or MemoryWarehouse(MemoryObjectStore())
        self._indexes: dict[str, tuple[Sequence[CopiedRow], dict[str, list[CopiedRow]]]] = {}
        """For each table, the number of indexed rows, and the rows of each batch."""

    def load(self, epoch: int, partition: int, number: int, stream_time_ms: int) -> None:
        """Make a transaction loaded."""
        txn_id = f"{epoch}-{partition}-{number}-loaded"
        self.warehouse.add(log=[LogRow(txn_id, epoch, partition, number, LOADED, "", 0, _moment(stream_time_ms))])

    def quarantine(self, epoch: int, txn_id: str, partition: int, number: int, stream_time_ms: int) -> None:
        """Make a transaction quarantined."""
        self.warehouse.add(log=[LogRow(txn_id, epoch, partition, number, QUARANTINED, "", 0, _moment(stream_time_ms))])

    def add_entry(self, batch_id: str, entry: LedgerLines) -> None:
        """Add a ledger row."""
        self.add_entries([(batch_id, entry)])

    def add_entries(self, entries: Iterable[tuple[str, LedgerLines]]) -> None:
        """Add ledger rows, each of a batch."""
        self.warehouse.add(ledger=[entry._asdict() | {"txn_id": "t", "batch_id": batch_id} for batch_id, entry in entries])

    def add_replay(self, batch_id: str, block: int, attempt: int) -> None:
        """Add a report that a block was known."""
        self.warehouse.add(replays=[{"txn_id": "t", "batch_id": batch_id, "block": block, "attempt": attempt}])

    def add_dead_letter(self, batch_id: str, block: int, reason: str) -> None:
        """Add a report that a copy of a block could not be read."""
        self.warehouse.add(dead_letters=[{"txn_id": "t", "batch_id": batch_id, "block": block, "reason": reason}])

    async def delivery(self, epoch: int) -> Delivery:
        """The progress of delivery on each partition of an epoch.

        Waits while a load has the lock, and sees the state before it.
        """
        await self._enter("delivery")
        log = [row for row in self.warehouse.log if row.epoch == epoch]
        await self._wait_for_lock()
        reached: dict[int, Delivered] = {}
        for row in log:
            number, time_ms = reached.get(row.partition, Delivered(0, -1))
            reached[row.partition] = Delivered(max(number, row.number), max(time_ms, moment_ms(row.stream_time)))
        quarantined = [Quarantined(row.txn_id, row.partition, row.number) for row in log if row.status == QUARANTINED]
        await self._leave("delivery")
        return Delivery(reached, quarantined)

    async def entries(self, batch_ids: Sequence[str]) -> dict[str, list[LedgerLines]]:
        """The ledger rows of each batch."""
        await self._enter("entries")
        found: dict[str, list[LedgerLines]] = {}
        for row in self._of_batches(LEDGER.name, batch_ids):
            found.setdefault(row["batch_id"], []).append(LedgerLines(row["outcome"], row["lines"], row["line_set"]))
        await self._leave("entries")
        return found

    async def batches_between(self, first_id: str, end_id: str) -> list[str]:
        """The batches with ledger rows and first_id <= batch id < end_id, in the order of their ids."""
        await self._enter("batches_between")
        found = {row["batch_id"] for row in self.warehouse.rows(LEDGER.name) if first_id <= row["batch_id"] < end_id}
        await self._leave("batches_between")
        return sorted(found)

    async def replayed_blocks(self, batch_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Blocks of each batch with a report of a replay."""
        await self._enter("replayed_blocks")
        found: dict[str, set[int]] = {}
        for row in self._of_batches(REPLAYS.name, batch_ids):
            if row["attempt"] >= 1:
                found.setdefault(row["batch_id"], set()).add(row["block"])
        await self._leave("replayed_blocks")
        return {batch_id: frozenset(blocks) for batch_id, blocks in found.items()}

    async def dead_letters(self, batch_ids: Sequence[str]) -> dict[str, dict[int, str]]:
        """For each batch, the blocks of which a copy could not be read."""
        await self._enter("dead_letters")
        found: dict[str, dict[int, str]] = {}
        for row in self._of_batches(DEAD_LETTERS.name, batch_ids):
            found.setdefault(row["batch_id"], {})[row["block"]] = row["reason"]
        await self._leave("dead_letters")
        return found

    def _of_batches(self, table: str, batch_ids: Iterable[str]) -> list[CopiedRow]:
        """A table's rows of some batches, found as by an index on batch_id."""
        rows = self.warehouse.rows(table)
        indexed, by_batch = self._indexes.get(table, ((), {}))
        if indexed is not rows:
            by_batch = {}
            for row in rows:
                by_batch.setdefault(row["batch_id"], []).append(row)
            self._indexes[table] = rows, by_batch
        return [row for batch_id in dict.fromkeys(batch_ids) for row in by_batch.get(batch_id, ())]

    async def _wait_for_lock(self) -> None:
        """A query on delivery_log waits for a session that has it alone."""
        reader = object()
        try:
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                await self.warehouse.log_lock.acquire(reader, exclusive=False)
        except TimeoutError as exc:
            raise ServiceUnavailable("warehouse: delivery_log is locked") from exc
        self.warehouse.log_lock.release(reader)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC).replace(tzinfo=None)
