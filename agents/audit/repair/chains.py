"""Mends of a transaction in S3: its commit record, its manifests and ready.json (rules R1, R4).

The record is made again from ready.json and topic `rows`, and counts only if both agree. Manifests and ready.json follow
from the record. `agents.audit.repair.files` makes data files again.
"""

import asyncio
import hashlib
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pyroaring import BitMap

from agents.audit.repair.log_again import RowsLog
from app.adapters.ports import ObjectStore
from app.clock import Clock
from app.core.delivery.release import lines_of
from app.core.formats import object_keys
from app.core.formats.flows import LEDGER
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import Ready, TransactionRecord, read_ready, ready_of
from app.core.rebuild.span import HOUR_MS, BatchSpan
from app.core.sink.chain import ChainId, decode_record, effects_of, encode_record
from app.core.sink.open_transaction import Encoded, OpenTransaction, encode_outputs, record_of
from app.errors import ChainBroken, FormatInvalid, ObjectMissing, RepairRefused
from app.shell.file_repairs import repaired_record

_HOUR: Final = re.compile(r"manifests/dt=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/")


class Files(NamedTuple):
    """The data files of a transaction."""

    record: TransactionRecord
    """The record, with what is said of those files that were made again with other bytes (rule R6)."""
    damaged: list[str]
    """The outputs whose file is missing, or is not the one that `record` names."""


class Chains:
    """The chains of one epoch."""

    def __init__(self, store: ObjectStore, log: RowsLog, epoch: int, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._epoch = epoch
        self._clock = clock

    async def record(self, partition: int, number: int) -> TransactionRecord | None:
        """The record under a number; None if it is not there or cannot be read.

        Raises:
            NewerFormat: a newer sink committed it.
        """
        chain_id = ChainId(self._epoch, partition)
        try:
            body = await self._store.get(object_keys.record_key(*chain_id, number))
            return decode_record(body, chain_id, number)
        except (ObjectMissing, ChainBroken):
            return None

    async def whole_record(self, partition: int | None, number: int | None) -> TransactionRecord:
        """The record under a number.

        Raises:
            RepairRefused: it is not there, or cannot be read.
        """
        found = None if partition is None or number is None else await self.record(partition, number)
        if found is None:
            raise RepairRefused(f"the commit record {number} of partition {partition} is missing or unreadable")
        return found

    async def files(self, record: TransactionRecord, flows: Collection[str] = ()) -> Files:
        """The data files of a transaction: those of some outputs, or of all."""
        digests: dict[str, str | None] = {}
        for out in record.outputs:
            if out.data_key is not None and (not flows or out.output in flows):
                try:
                    body = await self._store.get(out.data_key)
                    digests[out.output] = await asyncio.to_thread(_digest, body)
                except ObjectMissing:
                    digests[out.output] = None
        if any(digest not in {None, record.output(name).sha256} for name, digest in digests.items()):
            record = await repaired_record(self._store, record, digests)
        return Files(record, [name for name, digest in digests.items() if digest != record.output(name).sha256])

    async def ledger_lines(self, record: TransactionRecord) -> dict[str, BitMap]:
        """Batch -> the lines in the transaction's ledger file.

        Raises:
            FormatInvalid: it cannot be read.
            ObjectMissing: it is not there.
        """
        ledger = record.output(LEDGER.name)
        if ledger.data_key is None:
            return {}
        frame = decode_output(LEDGER.name, await self._store.get(ledger.data_key), ledger.columns_version)
        return lines_of(frame.select("batch_id", "line_set").iter_rows())

    # --- mends

    async def restore_record(self, partition: int, number: int) -> None:
        """Make a commit record again, and store it.

        Raises:
            RepairRefused: ready.json or the log's messages are gone, or they do not agree.
        """
        before = await self.whole_record(partition, number - 1) if number > 1 else None
        after = await self.record(partition, number + 1)
        ready = await self._ready(partition, number, before, after)
        last = None if after is None else after.first_offset - 1
        open_ = await self._log.transaction(partition, before, last, lambda taken: _may_be(taken, ready))
        made = record_of(open_, ready.txn_id, await encoded(open_, ready.txn_id), ready.committed_at_ms)
        if ready_of(made) != ready:
            raise RepairRefused(f"topic rows gives another transaction {number} than {made.ready_key} says")
        await self._store.put(object_keys.record_key(self._epoch, partition, number), encode_record(made))

    async def write_manifests(self, partition: int | None, number: int | None) -> None:
        """Write manifests and ready.json again, ready.json last.

        Raises:
            RepairRefused: a data file is missing or is not the recorded one: ready.json would promise it.
        """
        found = await self.files(await self.whole_record(partition, number))
        if found.damaged:
            raise RepairRefused(f"data files of {', '.join(found.damaged)} are missing or damaged")
        effects = effects_of(found.record, self._store.bucket)
        for put in (*effects.manifests, effects.ready):
            await self._store.put(put.key, put.body)

    async def _ready(
        self, partition: int, number: int, before: TransactionRecord | None, after: TransactionRecord | None
    ) -> Ready:
        """The ready.json of a transaction whose record is gone: it lies in the hour of its commit."""
        since_ms = 0 if before is None else before.committed_at_ms
        until_ms = (self._clock.now_ms() if after is None else after.committed_at_ms) + 1
        if before is None:
            since_ms = await self._first_hour_ms() or until_ms - HOUR_MS
        for hour in BatchSpan(since_ms - HOUR_MS, until_ms + HOUR_MS).hours():
            async for info in self._store.list(f"manifests/{hour}/{self._epoch}-{partition}-{number}-"):
                if info.key.endswith("/ready.json"):
                    try:
                        return read_ready(await self._store.get(info.key))
                    except FormatInvalid as exc:
                        raise RepairRefused(f"{info.key} is damaged, too: {exc}") from exc
        raise RepairRefused(f"transaction {number} of partition {partition} has no ready.json that says what it was")

    async def _first_hour_ms(self) -> int | None:
        """The hour of the bucket's first manifest; keys sort by hour."""
        async for info in self._store.list("manifests/", limit=1):
            found = _HOUR.match(info.key)
            return None if found is None else round(datetime.fromisoformat(f"{found[1]}T{found[2]}Z").timestamp() * 1000)
        return None


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _may_be(open_: OpenTransaction, ready: Ready) -> bool:
    """Whether the messages so far may be all of a transaction: the log does not say where it ended."""
    if open_.stream_time_ms != ready.stream_time_ms:
        return False
    rows = {out.output: out.rows for out in ready.outputs if out.rows}
    files = encode_outputs(open_.content, ready.txn_id)
    return {file.output: file.rows for file in files if file.rows} == rows


async def encoded(open_: OpenTransaction, txn_id: str) -> Sequence[Encoded]:
    """The files of a transaction that was taken from the log again."""
    return await asyncio.to_thread(encode_outputs, open_.content, txn_id)
