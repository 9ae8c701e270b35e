"""The ledger files in S3 of transactions that are committed but not, or not yet, in the warehouse (rules A2, D2)."""

from collections.abc import Iterable
from typing import Final

import polars as pl
import structlog
from prometheus_client import Counter
from pyroaring import BitMap

from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import Delivery
from app.core.audit.reconcile import read_lines
from app.core.formats import object_keys
from app.core.formats.flows import LEDGER
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record, numbers_behind
from app.errors import FormatInvalid, ObjectMissing

log = structlog.get_logger(__name__)

UNREADABLE = Counter("instream_audit_unreadable_ledgers_total", "Ledger files of committed transactions missing or damaged")
BatchLines = dict[str, BitMap]
"""Batch id -> its lines that one transaction covers."""
KEPT: Final = 1024
"""Transactions whose lines are kept in memory; their files never change."""

COUNTED_MOST: Final = 10_000
"""Most transactions of a partition, committed and not loaded, that are counted: a day of a sink."""
BEHIND_MOST: Final = 30
"""Most transactions of a partition, committed and not loaded, that the audit reads: five minutes of a sink. With more,
delivery lags, and batches with missing lines there wait."""


class StoredLedger:
    """Reads ledger files of one epoch, each once."""

    def __init__(self, objects: ObjectStore, epoch: int) -> None:
        self._objects = objects
        self._epoch = epoch
        self._known: dict[tuple[int, int], tuple[str, BatchLines]] = {}

    async def behind(self, partition: int, number: int, most: int) -> dict[str, BatchLines] | None:
        """txn_id -> lines, for every transaction of a partition committed behind `number`.

        None if there are more than `most`.

        Raises:
            ChainBroken: the chain has a gap, or a record cannot be read.
            NewerFormat: a newer sink wrote a record.
            ServiceUnavailable: S3 does not answer.
        """
        numbers = await self.numbers_behind(partition, number, most + 1)
        return None if len(numbers) > most else await self._read(partition, numbers)

    async def of(self, partition: int, number: int) -> dict[str, BatchLines]:
        """txn_id -> lines, for one committed transaction."""
        return await self._read(partition, [number])

    async def some_behind(
        self, partition: int, number: int, most: int
    ) -> tuple[dict[str, BatchLines], int, TransactionRecord | None]:
        """txn_id -> lines, for the first `most` transactions committed behind `number`.

        Returns: the lines; how many more transactions there are; and the last record of the chain, None if it has none.

        Raises: as `behind`.
        """
        numbers = await self.numbers_behind(partition, number, COUNTED_MOST)
        last = numbers[-1] if numbers else number
        record = await self.record(partition, last) if last else None
        return await self._read(partition, numbers[:most]), len(numbers[most:]), record

    async def of_quarantined(self, delivery: Delivery) -> dict[str, BatchLines]:
        """txn_id -> lines, for every transaction that delivery has set aside."""
        found: dict[str, BatchLines] = {}
        for transaction in delivery.quarantined:
            found |= await self.of(transaction.partition, transaction.number)
        return found

    async def numbers_behind(self, partition: int, number: int, most: int) -> list[int]:
        """The numbers committed behind `number`, the first `most` of them."""
        place = ChainId(self._epoch, partition)
        after = object_keys.record_key(*place, number) if number else ""
        found = [info.key async for info in self._objects.list(object_keys.chain_prefix(*place), after, most)]
        return numbers_behind(place, number, found)

    async def _read(self, partition: int, numbers: Iterable[int]) -> dict[str, BatchLines]:
        found: dict[str, BatchLines] = {}
        for number in numbers:
            at = (partition, number)
            if at not in self._known:
                record = await self.record(partition, number)
                lines = await self._lines(record)
                if lines is None:  # not cached: an operator may repair it
                    continue
                self._known[at] = (record.txn_id, lines)
                while len(self._known) > KEPT:
                    self._known.pop(next(iter(self._known)))
            txn_id, lines = self._known[at]
            found[txn_id] = lines
        return found

    async def record(self, partition: int, number: int) -> TransactionRecord:
        """The record of a committed transaction.

        Raises:
            ObjectMissing: there is none.
            ChainBroken: it cannot be read.
            NewerFormat: a newer sink wrote it.
            ServiceUnavailable: S3 does not answer.
        """
        body = await self._objects.get(object_keys.record_key(self._epoch, partition, number))
        return decode_record(body, ChainId(self._epoch, partition), number)

    async def _lines(self, record: TransactionRecord) -> BatchLines | None:
        """The lines in a transaction's ledger file; None, with an alarm, if the file is gone or damaged."""
        output = record.output(LEDGER.name)
        if output.data_key is None or output.staged_key is None:
            return {}
        try:
            body = await self._first_of(output.data_key, output.staged_key)
            return _by_batch(decode_output(LEDGER.name, body, output.columns_version))
        except (ObjectMissing, FormatInvalid) as exc:
            UNREADABLE.inc()
            log.error("ledger file of a committed transaction is unreadable", txn_id=record.txn_id, error=str(exc))
            return None

    async def _first_of(self, data_key: str, staged_key: str) -> bytes:
        """Read the file at its final key, else at its staged key, else at its final key again.

        The sink may move the file meanwhile (rule S3).
        """
        for key in (data_key, staged_key):
            try:
                return await self._objects.get(key)
            except ObjectMissing:
                continue
        return await self._objects.get(data_key)


class Behind:
    """Transactions that are committed and not loaded, read once a partition and chunk: its batches need the same files."""

    def __init__(self, stored: StoredLedger, delivery: Delivery) -> None:
        """Read nothing yet; `delivery` is the progress of the warehouse."""
        self._stored = stored
        self._delivery = delivery
        self._known: dict[int, dict[str, BatchLines] | None] = {}

    async def of(self, partitions: set[int]) -> tuple[dict[str, BatchLines], frozenset[int]]:
        """txn_id -> lines, for these partitions; and the partitions with too many transactions to read."""
        found: dict[str, BatchLines] = {}
        far = set()
        for partition in sorted(partitions):
            if partition not in self._known:
                number = self._delivery.number(partition)
                self._known[partition] = await self._stored.behind(partition, number, BEHIND_MOST)
            if (lines := self._known[partition]) is None:
                far.add(partition)
            else:
                found |= lines
        return found, frozenset(far)


def _by_batch(ledger: pl.DataFrame) -> BatchLines:
    lines: BatchLines = {}
    for batch_id, line_set in ledger.select("batch_id", "line_set").iter_rows():
        members = read_lines(line_set)
        if members is None:
            raise FormatInvalid(f"line set of batch {batch_id} is no bitmap")
        lines[batch_id] = lines.get(batch_id, BitMap()) | members
    return lines
