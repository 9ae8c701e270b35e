"""One partition's chain: records, ready.json, manifests, data files, delivery_log, and the warehouse's rows.

Order of reads: the progress of delivery, then the records, then delivery_log and the rows. A transaction up to that progress
must be in delivery_log with its rows. A transaction behind it is late; if rows of it are there, delivery_log is read again.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from agents.audit.deep.look import Look
from app.core.audit.deep.lines import LinesOf, by_batch, of_all, of_output, outcome_lines
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.audit.deep.objects import StoredObjects, about, judge_log, judge_objects
from app.core.audit.deep.rows import compare_places, compare_rows, foreign_rows, normalised
from app.core.audit.differences import Difference, DifferenceKind
from app.core.delivery.statements import QUARANTINED
from app.core.formats import object_keys
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import FLOWS, LEDGER, OUTPUTS
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record
from app.errors import ChainBroken, FormatInvalid, NewerFormat, ObjectMissing
from app.shell.file_repairs import repaired_record

TRANSACTIONS_AT_ONCE: Final = 50
ROWS_AT_ONCE: Final = 100_000
BYTES_AT_ONCE: Final = 64 * 1024 * 1024
"""Transactions are looked at together until they have so many rows or bytes: that is what the audit holds in memory."""
_FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)
_FILE_KINDS: Final = frozenset({DifferenceKind.FILE_LOST, DifferenceKind.FILE_CHANGED})
_MAYBE_REPAIRED: Final = frozenset({
    DifferenceKind.FILE_CHANGED, DifferenceKind.MANIFEST_CHANGED, DifferenceKind.READY_CHANGED,
    DifferenceKind.RECORD_CHANGED,
})  # fmt: skip
"""A file that was made again with other bytes looks like this, and a file repair says so (rule R6)."""


class FoundTransaction(NamedTuple):
    """What S3 has of one transaction."""

    objects: StoredObjects
    files: Mapping[str, bytes]
    """Output -> its data file, whatever it holds."""


class ChainCheck:
    """Looks at one chain."""

    def __init__(self, look: Look, chain_id: ChainId, reached: int) -> None:
        """`reached` is the highest number that delivery has decided about."""
        self._look = look
        self._ports = look.ports
        self._chain_id = chain_id
        self._reached = reached
        self._span = look.span
        self._report = look.report
        self._last = 0
        """The highest number of the chain's records."""
        self._before: TransactionRecord | None = None
        self.txn_ids: set[str] = set()
        """Every transaction of the chain that was looked at."""
        self.ledgers: list[LinesOf] = []
        """What the ledger files of the last piece have; whoever runs the check takes them."""

    async def numbers(self) -> list[int]:
        """The numbers of the chain to look at: those that exist, and those that must exist."""
        prefix, first = object_keys.chain_prefix(*self._chain_id), await self._first()
        before = object_keys.record_key(*self._chain_id, first - 1) if first > 1 else ""
        self._last = first - 1
        async for info in self._ports.store.list(prefix, before):
            name = info.key.removeprefix(prefix).removesuffix(".json")
            if name.isdecimal() and info.key == object_keys.record_key(*self._chain_id, int(name)):
                self._last = int(name)
        return list(range(first, max(self._last, self._reached) + 1))

    async def run(self, numbers: Sequence[int], needs_ledgers: Callable[[], object]) -> AsyncIterator[int]:
        """Look at these transactions. Yields: a number of transactions that are done.

        Behind the span only ledger files are read, and only if `needs_ledgers` says so: lines of a batch of the span may be
        there.
        """
        some: list[TransactionRecord] = []
        done = rows = size = 0
        async for number, body in self._bodies(numbers):
            record = await self._record(number, body)
            done += 1
            if record is not None and record.committed_at_ms >= self._span.until_ms:
                if not needs_ledgers():
                    done += numbers[-1] - number
                    break
                await self._take_ledger(record)
            elif record is not None and record.committed_at_ms in self._span:
                some.append(record)
                rows += sum(out.rows for out in record.outputs)
                size += sum(out.bytes for out in record.outputs)
            if len(some) >= TRANSACTIONS_AT_ONCE or rows >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                await self._check(some)
                yield done
                some, done, rows, size = [], 0, 0, 0
        await self._check(some)
        yield done

    # --- inside

    async def _take_ledger(self, record: TransactionRecord) -> None:
        """Read the ledger file of a transaction behind the span."""
        ledger = record.output(LEDGER.name)
        body = await self._get(ledger.data_key) if ledger.data_key is not None else None
        if body is not None and _digest(body) == ledger.sha256:
            self.ledgers.append(outcome_lines(decode_output(LEDGER.name, body, ledger.columns_version)))

    async def _first(self) -> int:
        """The first number of the span, by halves: commits of a chain come one after the other."""
        if self._span.since_ms == 0:
            return 1
        low, high = 1, self._reached + 1
        while low < high:
            middle = (low + high) // 2
            record = await self._read(middle)
            if record is not None and record.committed_at_ms < self._span.since_ms:
                low = middle + 1
            else:
                high = middle
        return low

    async def _read(self, number: int) -> TransactionRecord | None:
        try:
            body = await self._ports.store.get(object_keys.record_key(*self._chain_id, number))
            return decode_record(body, self._chain_id, number)
        except (ObjectMissing, ChainBroken, NewerFormat):
            return None

    async def _bodies(self, numbers: Sequence[int]) -> AsyncIterator[tuple[int, bytes | None]]:
        """Each number with its record as it lies in S3; some are read side by side."""
        for start in range(0, len(numbers), TRANSACTIONS_AT_ONCE):
            some = numbers[start : start + TRANSACTIONS_AT_ONCE]
            keys = [object_keys.record_key(*self._chain_id, number) for number in some]
            for number, body in zip(some, await asyncio.gather(*map(self._get, keys)), strict=True):
                yield number, body

    async def _record(self, number: int, body: bytes | None) -> TransactionRecord | None:
        """The record of a number; None, with its difference, if it is not there or cannot be read."""
        key = object_keys.record_key(*self._chain_id, number)
        before, self._before = self._before, None
        if body is None:
            await self._note_record(DifferenceKind.RECORD_LOST, number, f"{key} is missing")
            return None
        try:
            record = decode_record(body, self._chain_id, number)
        except ChainBroken as exc:
            await self._note_record(DifferenceKind.RECORD_CHANGED, number, str(exc))
            return None
        except NewerFormat as exc:
            self._report.skip(f"transactions of a newer version: {exc}")
            return None
        if before is not None and record.first_offset != before.last_offset + 1:
            detail = f"it begins at offset {record.first_offset}, and the one before it ends at {before.last_offset}"
            await self._note_record(DifferenceKind.RECORD_CHANGED, number, detail)
        self._before = record
        self.txn_ids.add(record.txn_id)
        return record

    async def _note_record(self, kind: DifferenceKind, number: int, detail: str) -> None:
        """Name a lost or changed record, with the lines that the warehouse's ledger has of its transaction."""
        epoch, partition = self._chain_id
        entries = await self._ports.rows.log(epoch, partition, number, number)
        txn_id = entries[0].txn_id if entries else ""
        self.txn_ids.add(txn_id)
        key = object_keys.record_key(epoch, partition, number)
        difference = Difference(kind=kind, detail=detail, txn_id=txn_id, key=key, partition=partition, number=number)
        ledger = await self._ports.rows.rows(LEDGER.name, [txn_id]) if txn_id else None
        self._report.note(by_batch(difference, of_all(outcome_lines(ledger))) if ledger is not None else [difference])

    async def _check(self, records: Sequence[TransactionRecord]) -> None:
        if not records:
            return
        epoch, partition = self._chain_id
        log: dict[int, list[DeliveryLogRow]] = {}
        for entry in await self._ports.rows.log(epoch, partition, records[0].number, records[-1].number):
            log.setdefault(entry.number, []).append(entry)
        found = await asyncio.gather(*(self._gather(record) for record in records))
        warehouse = {flow.name: await self._rows(flow.name, records) for flow in OUTPUTS}
        again = []
        for record, each in zip(records, found, strict=True):
            rows = {output: by_txn.get(record.txn_id, _nothing(output)) for output, by_txn in warehouse.items()}
            entries = log.get(record.number, [])
            if not entries and record.number > self._reached and any(frame.height for frame in rows.values()):
                again.append(record)
                continue
            await self._judge(record, each, entries, rows)
        for record in again:  # loaded between the two reads, or its row of delivery_log is lost
            self._reached = max(self._reached, record.number)
            await self._check([record])

    async def _gather(self, record: TransactionRecord) -> FoundTransaction:
        """All objects of a transaction."""
        outputs = [out for out in record.outputs if out.data_key is not None and out.manifest_key is not None]
        ready, *bodies = await asyncio.gather(
            self._get(record.ready_key),
            *(self._get(key) for out in outputs for key in (out.manifest_key, out.data_key) if key is not None),
        )
        manifests = dict(zip((out.output for out in outputs), bodies[::2], strict=True))
        files = dict(zip((out.output for out in outputs), bodies[1::2], strict=True))
        digests = await asyncio.to_thread(lambda: {name: _digest(body) for name, body in files.items()})
        whole = {name: body for name, body in files.items() if body is not None}
        return FoundTransaction(StoredObjects(ready, manifests, digests), whole)

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._ports.store.get(key)
        except ObjectMissing:
            return None

    async def _rows(self, output: str, records: Sequence[TransactionRecord]) -> Mapping[str, pl.DataFrame]:
        """txn_id -> its rows in the warehouse."""
        frame = await self._ports.rows.rows(output, [record.txn_id for record in records])
        parts = frame.partition_by("txn_id", as_dict=True, maintain_order=False)
        return {str(key[0]): normalised(output, part) for key, part in parts.items()}

    async def _judge(
        self,
        record: TransactionRecord,
        found: FoundTransaction,
        log: Sequence[DeliveryLogRow],
        rows: Mapping[str, pl.DataFrame],
    ) -> None:
        self._report.transactions += 1
        is_passed = record.number <= self._reached
        is_finished = is_passed or record.number < self._last
        judged = record
        differences: list[Difference] = []
        if is_finished:
            differences, judged = judge_objects(record, found.objects, log, self._ports.store.bucket)
            if any(one.kind in _MAYBE_REPAIRED for one in differences):
                try:
                    as_repaired = await repaired_record(self._ports.store, record, found.objects.digests)
                except NewerFormat as exc:
                    self._report.skip(f"file repairs of a newer version: {exc}")
                    return
                differences, judged = judge_objects(as_repaired, found.objects, log, self._ports.store.bucket)
            differences = self._look.kept(differences, record.committed_at_ms)
        frames = await asyncio.to_thread(self._decode, judged, found)
        lines = outcome_lines(frames.get(LEDGER.name, rows[LEDGER.name]))
        self.ledgers.append(lines)
        self._report.note(each for one in differences for each in self._by_line(one, judged, found, rows, lines))
        is_logged = is_passed and not self._look.is_pruned(record.committed_at_ms)
        self._report.note(judge_log(judged, log, is_passed=is_logged))
        if any(entry.status == QUARANTINED for entry in log):
            detail = "delivery has set it aside; `instream delivery release` loads it once its fault is mended"
            self._report.note(by_batch(about(record, "").difference(DifferenceKind.QUARANTINED, detail), of_all(lines)))
            self._note_foreign(judged, rows, "its transaction is quarantined")
        elif is_passed:
            self._compare(judged, frames, rows, lines)
        else:
            self._report.late_transactions += 1

    def _decode(self, record: TransactionRecord, found: FoundTransaction) -> dict[str, pl.DataFrame]:
        """Output -> the normalised rows of its data file; outputs whose file is not the recorded one are absent."""
        frames = {}
        for out in record.outputs:
            if not out.rows:
                frames[out.output] = _nothing(out.output)
            elif found.objects.digests.get(out.output) == out.sha256:
                try:
                    decoded = decode_output(out.output, found.files[out.output], out.columns_version)
                except NewerFormat as exc:
                    self._report.skip(f"files of a newer version: {exc}")
                    continue
                frames[out.output] = normalised(out.output, decoded)
                self._report.files += 1
        return frames

    def _by_line(
        self,
        one: Difference,
        record: TransactionRecord,
        found: FoundTransaction,
        rows: Mapping[str, pl.DataFrame],
        lines: LinesOf,
    ) -> list[Difference]:
        """A difference of an object, once for each batch whose lines it is about."""
        if one.kind is DifferenceKind.FILE_CHANGED and one.flow in _FLOW_NAMES and one.flow in found.files:
            try:
                version = record.output(one.flow).columns_version
                there = normalised(one.flow, decode_output(one.flow, found.files[one.flow], version))
            except (FormatInvalid, NewerFormat):
                there = None
            if there is not None:  # it can be read: only the rows that are not those of the warehouse are damaged
                differ = compare_rows(about(record, one.flow), there, rows[one.flow])
                changed: dict[str, BitMap] = {}
                for each in differ:
                    changed[each.batch_id] = changed.get(each.batch_id, BitMap()) | BitMap(each.lines)
                if changed:
                    return by_batch(one, changed)
        if one.kind in _FILE_KINDS or one.flow:
            return by_batch(one, of_output(one.flow, lines))
        return by_batch(one, of_all(lines))

    def _compare(
        self, record: TransactionRecord, frames: Mapping[str, pl.DataFrame], rows: Mapping[str, pl.DataFrame], lines: LinesOf
    ) -> None:
        """Compare the warehouse's rows of a loaded transaction with its files."""
        for flow in OUTPUTS:
            what = about(record, flow.name)
            if flow.name in frames:
                self._report.rows += frames[flow.name].height
                self._report.note(compare_rows(what, frames[flow.name], rows[flow.name]))
            elif flow.name in _FLOW_NAMES:
                self._report.note(compare_places(what, of_output(flow.name, lines), rows[flow.name]))

    def _note_foreign(self, record: TransactionRecord, rows: Mapping[str, pl.DataFrame], why: str) -> None:
        for output, frame in rows.items():
            if frame.height:
                self._report.note(foreign_rows(about(record, output), frame, why))


@cache
def _nothing(output: str) -> pl.DataFrame:
    """No rows. Most outputs of most transactions have none, so the frame is made once."""
    return pl.DataFrame(schema=frame_schema(output))


def _digest(body: bytes | None) -> str | None:
    return None if body is None else hashlib.sha256(body).hexdigest()
