"""Takes lines out of a transaction: its files, everything that follows from them, and its rows (rule R7).

All of it is done under delivery's lock, so neither a repair nor another erasure works on the transaction meanwhile.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import polars as pl
from msgspec import UNSET

from agents.audit.deep.ports import DeepPorts
from agents.delivery.load import Mending, WarehouseLoad
from app.adapters.warehouse_port import WarehouseSession
from app.core.delivery.load_plan import log_row
from app.core.delivery.statements import LOADED
from app.core.erase.files import FLOW_NAMES, Lines, NewFile, amended, without_lines
from app.core.formats import object_keys
from app.core.formats.erasure import Erasure
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import BY_NAME, LEDGER
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import OutputObject, TransactionRecord, ready_of
from app.core.sink.chain import ChainId, decode_record, effects_of, encode_record
from app.errors import ChainBroken, FormatInvalid, ObjectMissing, RepairRefused
from app.settings import Settings
from app.shell.file_repairs import repaired_record

TOUCHED: Final = FLOW_NAMES | {LEDGER.name}
"""The outputs that hold something of a line."""


class TransactionErasing:
    """Erases lines from transactions of the settings' epoch (rule R7)."""

    def __init__(self, ports: DeepPorts, load: WarehouseLoad, settings: Settings) -> None:
        self._ports = ports
        self._store = ports.store
        self._load = load
        self._settings = settings

    async def erase(self, txn_id: str, erasure: Erasure, lines: Lines) -> None:
        """Take `lines` out of a transaction.

        Effects, in order, all under the lock, and what a crash right after each leaves:
          1 PUT the record, with the digests of the new files   the old files: the deep audit calls them changed, a repair
                                                                makes none that fits; the next run goes on at 2
          2 PUT the new files, DELETE the empty ones            old manifests; the next run goes on
          3 PUT manifests and ready.json                        rows that the files do not have: the next run, or a repair,
                                                                loads the files again
          4 DELETE the rows of these outputs, COPY the files, the row of delivery_log, COMMIT: in one transaction of the
            warehouse, as a repair does it (rule R2)

        Raises:
            RepairRefused: the record or a file is damaged, or delivery has not loaded the transaction.
            LoadStopped: a statement failed.
        """
        record = await self._record(txn_id)
        await self._load.mend(partial(self._under_the_lock, record.partition, record.number, erasure, lines))

    async def _under_the_lock(
        self, partition: int, number: int, erasure: Erasure, lines: Lines, session: WarehouseSession
    ) -> Mending | None:  # fmt: skip
        record = await repaired_record(self._store, await self._read(partition, number))
        rows = await session.log_rows(record.epoch, partition, number)
        is_loaded = any(row.status == LOADED and row.txn_id == record.txn_id for row in rows)
        if not is_loaded and (rows or number > (await session.positions(record.epoch)).get(partition, 0)):
            raise RepairRefused(f"delivery has not loaded transaction {record.txn_id}")
        files = {
            out.output: file for out in record.outputs
            if out.output in TOUCHED and out.rows and (file := await self._new_file(record, out, lines)) is not None
        }  # fmt: skip
        is_begun = record.erasures is not UNSET and erasure.erasure_id in record.erasures
        if not is_begun and not files:
            return None  # other erasures took the lines out
        if not is_begun:
            record = amended(record, files, erasure.erasure_id)
            await self._store.put(object_keys.record_key(record.epoch, partition, number), encode_record(record))  # 1
        await self._write(record, files)  # 2, 3
        ready, wrong = ready_of(record), {LEDGER.name}
        for output in sorted(FLOW_NAMES):  # 4
            if await session.count_rows(output, record.txn_id) != record.output(output).rows:
                wrong.add(output)
        for output in sorted(wrong):
            await session.delete_rows(output, record.txn_id)
        if rows:
            await session.delete_log(record.epoch, partition, number)
        chosen = [out for out in ready.outputs if out.output in wrong and out.rows]
        copied = [msgspec.structs.replace(ready, outputs=chosen)] if chosen else []
        return Mending(copied, [log_row(ready, row.load_id)._replace(detail=row.detail) for row in rows[:1]])

    async def _new_file(self, record: TransactionRecord, out: OutputObject, lines: Lines) -> NewFile | None:
        """The output's file behind the erasure; None if it is the file that is there.

        Raises:
            RepairRefused: the file is neither the recorded one, nor one whose erasure gives the recorded one.
        """
        try:
            body = await self._store.get(out.data_key or "")
        except ObjectMissing:
            if not self._settings.retention.has_expired(
                out.data_key or "", record.committed_at_ms, self._ports.clock.now_ms()
            ):
                raise RepairRefused(f"{out.data_key} is missing: see `instream repair`") from None
            body = None
        if body is None:  # it has expired: what the warehouse has is what there is
            return _made(out.output, await self._ports.rows.rows(out.output, [record.txn_id]), lines)
        if _digest(body) == out.sha256:
            frame = await asyncio.to_thread(decode_output, out.output, body, out.columns_version)
            return await asyncio.to_thread(_made, out.output, frame, lines)
        for version in range(BY_NAME[out.output].version, 0, -1):  # an erasure died behind 1: it is the file from before
            try:
                frame = await asyncio.to_thread(decode_output, out.output, body, version)
            except FormatInvalid:
                continue
            made = await asyncio.to_thread(_made, out.output, frame, lines)
            if made is not None and _digest(made.body) == out.sha256:
                return made
        raise RepairRefused(f"{out.data_key} is not the recorded file: see `instream repair`")

    async def _write(self, record: TransactionRecord, files: dict[str, NewFile]) -> None:
        empty: list[str] = []
        for out in record.outputs:
            if out.output not in TOUCHED:
                continue
            if out.data_key is None:
                place = record.txn_id, record.committed_at_ms
                empty += [object_keys.data_key(out.output, *place), object_keys.manifest_key(out.output, *place)]
            elif out.output in files:
                await self._store.put(out.data_key, files[out.output].body)
        effects = effects_of(record, self._store.bucket)
        for put in (*effects.manifests, effects.ready):  # 3
            await self._store.put(put.key, put.body)
        await self._store.delete(empty)

    async def _record(self, txn_id: str) -> TransactionRecord:
        if not object_keys.is_txn_id(txn_id):
            raise RepairRefused(f"{txn_id} is no transaction of a chain")
        epoch, partition, number = (int(part) for part in txn_id.split("-")[:3])
        if epoch != self._settings.epoch:
            raise RepairRefused(f"{txn_id} is of epoch {epoch}: set INSTREAM_EPOCH and INSTREAM_PARTITIONS to it")
        record = await self._read(partition, number)
        if record.txn_id != txn_id:
            raise RepairRefused(f"number {number} of partition {partition} is {record.txn_id}: see `instream repair`")
        return record

    async def _read(self, partition: int, number: int) -> TransactionRecord:
        chain_id = ChainId(self._settings.epoch, partition)
        try:
            return decode_record(await self._store.get(object_keys.record_key(*chain_id, number)), chain_id, number)
        except (ObjectMissing, ChainBroken) as exc:
            raise RepairRefused(f"the commit record {number} of partition {partition}: {exc}") from exc


def files_of(outcomes: Sequence[str]) -> int:
    """How many files change for lines with these outcomes in one transaction: those of the flows, and the ledger."""
    return len(FLOW_NAMES.intersection(outcomes)) + 1


def _made(output: str, frame: pl.DataFrame, lines: Lines) -> NewFile | None:
    """The file of the rows without some lines; None if they have none of them.

    Raises:
        RepairRefused: the file would not say the same of the other rows.
    """
    kept = without_lines(output, frame, lines)
    if kept.equals(frame):
        return None
    made = NewFile(kept.height, encode_output(output, kept) if kept.height else b"")
    if made.rows and not decode_output(output, made.body).equals(kept):
        raise RepairRefused(f"the file of {output} cannot be written again as it was")
    return made


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
