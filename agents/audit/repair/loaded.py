"""Mends in the warehouse: rows, delivery_log, quarantined transactions (rule R2).

Each mend is one transaction of the warehouse, under delivery's lock. It looks once more under the lock before it changes
anything: delivery, or another repair, may have been faster.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from agents.audit.repair.chains import Chains
from agents.delivery.load import Mending, WarehouseLoad
from app.adapters.ports import ObjectStore
from app.adapters.warehouse_port import WarehouseSession
from app.core.delivery.load_plan import log_row
from app.core.delivery.release import already_there
from app.core.delivery.statements import LOADED, QUARANTINED
from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS
from app.core.formats.transaction_record import Ready, TransactionRecord, ready_of
from app.errors import RepairRefused

_BATCHES_AT_ONCE: Final = 500


class LoadedMends:
    """Mends what delivery loaded."""

    def __init__(self, load: WarehouseLoad, chains: Chains, store: ObjectStore, epoch: int) -> None:
        self._load = load
        self._chains = chains
        self._store = store
        self._epoch = epoch

    async def write_log(self, partition: int | None, number: int | None) -> None:
        """Write a transaction's row of delivery_log again.

        Rows that are not in the warehouse as the record counts them are loaded in the same transaction. A quarantined
        transaction stays quarantined.

        Raises:
            RepairRefused: the record or a file is damaged.
            LoadStopped: a statement failed.
        """
        record = await self._chains.whole_record(partition, number)
        await self._load.mend(partial(self._log_again, record))

    async def _log_again(self, record: TransactionRecord, session: WarehouseSession) -> Mending | None:
        ready, place = ready_of(record), (record.epoch, record.partition, record.number)
        rows = await session.log_rows(*place)
        counts = await _counts(session, record.txn_id)
        aside = next((row for row in rows if row.status == QUARANTINED and row.txn_id == record.txn_id), None)
        load_id = rows[0].load_id if rows else ""
        if not any(counts.values()) and aside is not None:
            right = log_row(ready, load_id)._replace(status=QUARANTINED, detail=aside.detail)
        elif not rows and not any(counts.values()) and not await self._is_passed(record, session):
            return None  # delivery loads it by itself
        else:
            right = log_row(ready, load_id)
        if rows == [right]:
            return None
        wrong = _wrong_counts(ready, counts) if right.status == LOADED else []
        if wrong:
            ready = ready_of(await self._whole_files(record, wrong))
        for output in wrong:
            await session.delete_rows(output, record.txn_id)
        await session.delete_log(*place)
        return Mending(_only(ready, wrong), [right])

    async def _is_passed(self, record: TransactionRecord, session: WarehouseSession) -> bool:
        return record.number < (await session.positions(record.epoch)).get(record.partition, 0)

    async def reload(self, txn_id: str, flows: Collection[str]) -> None:
        """Delete a transaction's rows of some outputs and load its files of them again.

        Rows of a transaction that no chain has, or that delivery has not loaded, are only deleted.

        Raises:
            RepairRefused: a file is damaged, or the number of the transaction has no record that can be read.
            LoadStopped: a statement failed.
        """
        record = await self._record_of(txn_id)
        if record is not None:
            record = await self._whole_files(record, flows)
        await self._load.mend(partial(self._rows_again, txn_id, record, sorted(flows)))

    async def _rows_again(
        self, txn_id: str, record: TransactionRecord | None, flows: Sequence[str], session: WarehouseSession
    ) -> Mending | None:
        for flow in flows:
            await session.delete_rows(flow, txn_id)
        if record is None:
            return Mending()
        rows = await session.log_rows(record.epoch, record.partition, record.number)
        is_loaded = any(row.status == LOADED and row.txn_id == txn_id for row in rows)
        return Mending(_only(ready_of(record), flows) if is_loaded else ())

    async def release(self, partition: int | None, number: int | None) -> None:
        """Load a quarantined transaction whole; lines that other transactions have are not loaded twice (rule D2).

        If its rows are in the warehouse already, only the log says otherwise, and is mended.

        Raises:
            RepairRefused: the record or a file is damaged, or the ledger has lines of it from another transaction.
            LoadStopped: the warehouse refuses a file, or a statement failed.
        """
        record = await self._whole_files(await self._chains.whole_record(partition, number), ())
        own = await self._chains.ledger_lines(record)
        await self._load.mend(partial(self._load_aside, record, own))

    async def _load_aside(
        self, record: TransactionRecord, own: Mapping[str, Any], session: WarehouseSession
    ) -> Mending | None:
        ready, place = ready_of(record), (record.epoch, record.partition, record.number)
        rows = await session.log_rows(*place)
        if not any(row.status == QUARANTINED for row in rows):
            return None
        wrong = _wrong_counts(ready, await _counts(session, record.txn_id))
        for output in wrong:
            await session.delete_rows(output, record.txn_id)
        await session.delete_log(*place)
        if wrong:
            await _refuse_lines_of_others(session, record.txn_id, own)
        return Mending(_only(ready, wrong), [log_row(ready, "")])

    # --- inside

    async def _record_of(self, txn_id: str) -> TransactionRecord | None:
        """The record of a transaction; None if no chain has it.

        Raises:
            RepairRefused: the record under its number cannot be read: the rows may be its own.
        """
        if not object_keys.is_txn_id(txn_id):
            return None
        epoch, partition, number = (int(part) for part in txn_id.split("-")[:3])
        if epoch != self._epoch or await self._store.head(object_keys.record_key(epoch, partition, number)) is None:
            return None
        record = await self._chains.whole_record(partition, number)
        return record if record.txn_id == txn_id else None

    async def _whole_files(self, record: TransactionRecord, flows: Collection[str]) -> TransactionRecord:
        """The record as its files are, of these outputs or of all: some were perhaps made again with other bytes."""
        found = await self._chains.files(record, flows)
        if found.damaged:
            raise RepairRefused(f"data files of {', '.join(found.damaged)} are missing or damaged, too")
        return found.record


async def _counts(session: WarehouseSession, txn_id: str) -> dict[str, int]:
    return {flow.name: await session.count_rows(flow.name, txn_id) for flow in OUTPUTS}


def _wrong_counts(ready: Ready, counts: Mapping[str, int]) -> list[str]:
    """The outputs of which the warehouse has another number of rows than the transaction."""
    expected = {out.output: out.rows for out in ready.outputs}
    return [name for name, count in counts.items() if count != expected.get(name, 0)]


def _only(ready: Ready, outputs: Collection[str]) -> list[Ready]:
    """The transaction with only these outputs; nothing if none of them has rows."""
    chosen = [out for out in ready.outputs if out.output in outputs and out.rows]
    return [msgspec.structs.replace(ready, outputs=chosen)] if chosen else []


async def _refuse_lines_of_others(session: WarehouseSession, txn_id: str, own: Mapping[str, Any]) -> None:
    batches = sorted(own)
    for at in range(0, len(batches), _BATCHES_AT_ONCE):
        rows = await session.ledger_of(batches[at : at + _BATCHES_AT_ONCE])
        others = [(row.batch_id, row.line_set) for row in rows if row.txn_id != txn_id]
        if present := already_there(dict(own), others):
            batch_id, count = next(iter(present.items()))
            raise RepairRefused(f"the ledger has lines of it already, {count} of batch {batch_id}")
