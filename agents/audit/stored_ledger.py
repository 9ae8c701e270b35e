"""The ledger files of committed transactions in S3: what the warehouse does not have, or not yet (rules A2, D2)."""

from collections.abc import Iterable
from typing import Final

import polars as pl
import structlog
from prometheus_client import Counter
from pyroaring import BitMap

from app.adapters.ports import ObjectStore
from app.core.audit.reconcile import read_lines
from app.core.formats import object_keys
from app.core.formats.flow_files import decode_output
from app.core.formats.flows import LEDGER
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record, numbers_behind
from app.errors import FormatInvalid, ObjectMissing

log = structlog.get_logger(__name__)

UNREADABLE = Counter("instream_audit_unreadable_ledgers_total", "Ledger files of committed transactions missing or damaged")
BatchLines = dict[str, BitMap]
"""Batch id -> its lines that one transaction answers for."""
KEPT: Final = 1024
"""Transactions whose lines are kept in memory; their files never change."""


class StoredLedger:
    """Reads ledger files of one epoch, each once."""

    def __init__(self, objects: ObjectStore, epoch: int) -> None:
        self._objects = objects
        self._epoch = epoch
        self._known: dict[tuple[int, int], tuple[str, BatchLines]] = {}

    async def behind(self, partition: int, number: int, most: int) -> dict[str, BatchLines] | None:
        """txn_id -> lines, of every transaction of a partition that is committed behind `number`; None if more than `most`.

        Raises:
            ChainBroken: the chain has a gap, or a record cannot be read.
            ServiceUnavailable: S3 does not answer.
        """
        numbers = await self.numbers_behind(partition, number, most + 1)
        return None if len(numbers) > most else await self._read(partition, numbers)

    async def of(self, partition: int, number: int) -> dict[str, BatchLines]:
        """txn_id -> lines, of one committed transaction."""
        return await self._read(partition, [number])

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
                body = await self._objects.get(object_keys.record_key(self._epoch, partition, number))
                record = decode_record(body, ChainId(self._epoch, partition), number)
                lines = await self._lines(record)
                if lines is None:  # not kept: an operator may mend it
                    continue
                self._known[at] = (record.txn_id, lines)
                while len(self._known) > KEPT:
                    self._known.pop(next(iter(self._known)))
            txn_id, lines = self._known[at]
            found[txn_id] = lines
        return found

    async def _lines(self, record: TransactionRecord) -> BatchLines | None:
        """The lines in a transaction's ledger file; a file that is gone or damaged has none (None) and is alarmed."""
        output = next(output for output in record.outputs if output.output == LEDGER.name)
        if output.data_key is None or output.staged_key is None:
            return {}
        try:
            return _by_batch(decode_output(LEDGER.name, await self._first_of(output.data_key, output.staged_key)))
        except (ObjectMissing, FormatInvalid) as exc:
            UNREADABLE.inc()
            log.error("ledger file of a committed transaction is unreadable", txn_id=record.txn_id, error=str(exc))
            return None

    async def _first_of(self, data_key: str, staged_key: str) -> bytes:
        """The file where it lies: at its final key, else staged, else moved in between (rule S3)."""
        for key in (data_key, staged_key):
            try:
                return await self._objects.get(key)
            except ObjectMissing:
                continue
        return await self._objects.get(data_key)


def _by_batch(ledger: pl.DataFrame) -> BatchLines:
    lines: BatchLines = {}
    for batch_id, line_set in ledger.select("batch_id", "line_set").iter_rows():
        members = read_lines(line_set)
        if members is None:
            raise FormatInvalid(f"line set of batch {batch_id} is no bitmap")
        lines[batch_id] = lines.get(batch_id, BitMap()) | members
    return lines
