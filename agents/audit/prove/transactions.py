"""What S3 and delivery_log have of the transactions that batches are in; each is read once while its files are whole."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import polars as pl

from agents.audit.deep.ports import DeepPorts
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.audit.deep.objects import about, judge_log
from app.core.audit.deep.rows import normalised
from app.core.audit.differences import Difference, DifferenceKind
from app.core.formats import object_keys
from app.core.formats.flows import FLOWS, LEDGER
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.sink.chain import ChainId, decode_record
from app.errors import ChainBroken, ObjectMissing
from app.settings import Settings
from app.shell.file_repairs import repaired_record

OUTPUTS: Final = (*(flow.name for flow in FLOWS), LEDGER.name)
"""What a proof looks at: the rows of lines, and the ledger."""
KEPT_BYTES: Final = 48 * 1024 * 1024
"""Data files that are kept for the next batches, by their size in S3; in memory their rows take some five times as much."""


class ProvenTransaction(NamedTuple):
    """One transaction."""

    txn_id: str
    record: TransactionRecord | None
    frames: Mapping[str, Mapping[str, pl.DataFrame]]
    """Output -> batch -> the normalised rows of its data file, where that is the recorded one."""
    differences: list[Difference]
    """Damage of its record, files and row of delivery_log; the lines are not filled in."""
    log: list[DeliveryLogRow]
    made_again: Collection[str] = ()
    """The outputs whose file has other bytes than recorded, as a file repair says (rule R6)."""


class Transactions:
    """Reads transactions, and keeps those without damage."""

    def __init__(self, ports: DeepPorts, settings: Settings) -> None:
        self._ports = ports
        self._retention = settings.retention
        self._kept: dict[str, ProvenTransaction] = {}
        self._bytes = 0

    async def of(self, txn_ids: Collection[str]) -> dict[str, ProvenTransaction]:
        """Each of these transactions.

        Raises:
            NewerFormat: a newer version wrote one.
        """
        new = sorted(set(txn_ids) - self._kept.keys())
        found = dict(zip(new, await asyncio.gather(*(self._read(txn_id) for txn_id in new)), strict=True))
        answer = {txn_id: self._kept[txn_id] for txn_id in txn_ids if txn_id in self._kept} | found
        for txn_id, each in found.items():
            if not each.differences:
                self._kept[txn_id] = each
                self._bytes += _size(each)
        while self._bytes > KEPT_BYTES and self._kept:
            self._bytes -= _size(self._kept.pop(next(iter(self._kept))))
        return answer

    async def _read(self, txn_id: str) -> ProvenTransaction:
        if not object_keys.is_txn_id(txn_id):
            return ProvenTransaction(txn_id, None, {}, [_stray(txn_id)], [])
        epoch, partition, number = (int(part) for part in txn_id.split("-")[:3])
        try:
            body = await self._ports.store.get(object_keys.record_key(epoch, partition, number))
            record = decode_record(body, ChainId(epoch, partition), number)
        except ObjectMissing:
            return ProvenTransaction(txn_id, None, {}, [_lost(txn_id, partition, number)], [])
        except ChainBroken as exc:
            changed = _lost(txn_id, partition, number, DifferenceKind.RECORD_CHANGED, str(exc))
            return ProvenTransaction(txn_id, None, {}, [changed], [])
        if record.txn_id != txn_id:
            return ProvenTransaction(txn_id, None, {}, [_stray(txn_id, partition, number)], [])
        frames, differences = await self._files(record)
        made_again: list[str] = []
        if any(one.kind is DifferenceKind.FILE_CHANGED for one in differences):
            original, record = record, await repaired_record(self._ports.store, record)
            made_again = [out.output for out in record.outputs if out.sha256 != original.output(out.output).sha256]
            if made_again:
                frames, differences = await self._files(record)
        log = await self._ports.rows.log(epoch, partition, number, number)
        is_logged = not self._retention.is_pruned(record.committed_at_ms, self._ports.clock.now_ms())
        differences += judge_log(record, log, is_passed=is_logged)
        return ProvenTransaction(txn_id, record, frames, differences, log, made_again)

    async def _files(self, record: TransactionRecord) -> tuple[dict[str, dict[str, pl.DataFrame]], list[Difference]]:
        """The frames of the data files that are the recorded ones, and the differences of the others."""
        outputs = [out for out in record.outputs if out.data_key is not None and out.output in OUTPUTS]
        files = await asyncio.gather(*(self._frame(record, out) for out in outputs))
        frames = {
            out.output: of_each(one, "batch_id")
            for out, one in zip(outputs, files, strict=True) if isinstance(one, pl.DataFrame)
        }  # fmt: skip
        return frames, [one for one in files if isinstance(one, Difference)]

    async def _frame(self, record: TransactionRecord, out: OutputObject) -> pl.DataFrame | Difference | None:
        """The normalised rows of a data file; or its difference; None if it has expired."""
        what = about(record, out.output)
        try:
            body = await self._ports.store.get(out.data_key or "")
        except ObjectMissing:
            if self._retention.has_expired(out.data_key or "", record.committed_at_ms, self._ports.clock.now_ms()):
                return None
            return what.difference(DifferenceKind.FILE_LOST, f"{out.data_key} is missing")
        digest = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        if digest != out.sha256:
            detail = f"{out.data_key} has sha256 {digest}, the record says {out.sha256}"
            return what.difference(DifferenceKind.FILE_CHANGED, detail)
        decoded = await asyncio.to_thread(decode_output, out.output, body, out.columns_version)
        return normalised(out.output, decoded)


def of_each(frame: pl.DataFrame, column: str) -> dict[str, pl.DataFrame]:
    """Value of a column -> the rows that have it."""
    return {str(key[0]): part for key, part in frame.partition_by(column, as_dict=True).items()}


def _size(one: ProvenTransaction) -> int:
    return sum(out.bytes for out in one.record.outputs) if one.record is not None else 0


def _lost(
    txn_id: str, partition: int, number: int, kind: DifferenceKind = DifferenceKind.RECORD_LOST, detail: str = ""
) -> Difference:
    words = detail or f"transaction {txn_id} has no commit record"
    return Difference(kind=kind, txn_id=txn_id, detail=words, partition=partition, number=number)


def _stray(txn_id: str, partition: int | None = None, number: int | None = None) -> Difference:
    return Difference(
        kind=DifferenceKind.ROWS_FOREIGN, txn_id=txn_id, detail=f"no chain has transaction {txn_id}", partition=partition,
        number=number,
    )  # fmt: skip
