"""An auditor and the services in memory that it compares."""

import base64
import hashlib
from collections.abc import Mapping

from pyroaring import BitMap

from agents.audit.auditor import Auditor
from agents.audit.ports import AuditPorts
from agents.audit.report import AuditReport
from app.core.audit.reconcile import LedgerLines
from app.core.formats import object_keys
from app.core.formats.batch import SealedBatch, new_batch_id, seal
from app.core.formats.block import decode_header
from app.core.formats.flow_files import encode_output, ledger_frame
from app.core.formats.flows import LEDGER, OUTPUTS
from app.core.formats.registry_item import RegistryItem
from app.core.formats.step_message import LedgerEntry
from app.core.formats.stored_line import StoredLine
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.sink.chain import encode_record
from app.settings import Settings
from app.testing.memory import MemoryBlockStream, MemoryLoadedLedger, MemoryObjectStore, MemoryRegistry

START_MS = 1_800_000_000_000
GRACE_MS = 300_000
PARTITIONS = 3


class World:
    """A registry, a bucket, a stream and a warehouse in memory; a clock that tests move."""

    def __init__(self) -> None:
        self.at_ms = START_MS
        self.store = MemoryObjectStore(self)
        self.registry = MemoryRegistry()
        self.stream = MemoryBlockStream(2, self)
        self.warehouse = MemoryLoadedLedger()
        self.behind: dict[str, int] = {}
        self.settings = Settings(partitions=PARTITIONS, audit_grace_s=GRACE_MS / 1000)
        self.ports = AuditPorts(self.store, self.registry, self.stream, self.warehouse, self.lags, self)
        self.auditor = Auditor(self.ports, self.settings)

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000

    async def lags(self, partitions: frozenset[int]) -> Mapping[str, int]:
        return self.behind

    async def batch(self, lines: int = 30, epoch: int = 1) -> SealedBatch:
        """A batch in raw and registry, received now."""
        stored = [
            StoredLine(b'{"received_at":%d,"n":%d}' % (self.at_ms, n), b"k%d" % n, True, None, self.at_ms)
            for n in range(lines)
        ]
        sealed = seal(new_batch_id(self.at_ms, bytes(range(10))), epoch, PARTITIONS, stored)
        await self.store.put(sealed.item.raw_key, sealed.raw)
        await self.registry.register(sealed.item)
        return sealed

    def later(self, seconds: float = GRACE_MS / 1000 + 1, lagging: int | None = None) -> None:
        """Time passes, and delivery keeps up with it on every partition but one that lags."""
        self.at_ms += int(seconds * 1000)
        for partition in set(range(PARTITIONS)) - {lagging}:
            self.warehouse.load(1, partition, 5, self.at_ms)

    def ledger(self, item: RegistryItem, *blocks: int) -> None:
        """The warehouse has all lines of some blocks."""
        for number in blocks:
            place = item.blocks[number]
            lines = range(place.first_line, place.first_line + place.lines)
            text = base64.b64encode(BitMap(lines).serialize()).decode()
            self.warehouse.add_entry(item.batch_id, LedgerLines("page_views", place.lines, text))

    async def commit(self, item: RegistryItem, block: int, number: int, *, staged: bool = False) -> TransactionRecord:
        """A committed transaction in S3 whose ledger has one block's lines."""
        place = item.blocks[block]
        lines = BitMap(range(place.first_line, place.first_line + place.lines))
        txn_id = object_keys.txn_id(1, place.partition, number, "ab")
        entry = LedgerEntry(item.batch_id, "page_views", place.lines, lines.serialize())
        body = encode_output("ledger", ledger_frame([entry], txn_id))
        outputs = [
            OutputObject(
                output="ledger", rows=1, bytes=len(body), sha256=hashlib.sha256(body).hexdigest(),
                staged_key=object_keys.staged_key(txn_id, "ledger"),
                data_key=object_keys.data_key("ledger", txn_id, self.at_ms),
                manifest_key="m", version=LEDGER.version,
            )
            if flow.name == "ledger" else OutputObject(output=flow.name, rows=0)
            for flow in OUTPUTS
        ]  # fmt: skip
        record = TransactionRecord(
            txn_id=txn_id, epoch=1, partition=place.partition, number=number, first_offset=0, last_offset=0, step_number=1,
            step_offset=0, step_digest="", stream_time_ms=self.at_ms, committed_at_ms=self.at_ms, outputs=outputs,
            ready_key="r",
        )  # fmt: skip
        ledger = next(output for output in outputs if output.output == "ledger")
        key = ledger.staged_key if staged else ledger.data_key
        assert key is not None
        await self.store.put(key, body)
        await self.store.put(object_keys.record_key(1, place.partition, number), encode_record(record))
        return record

    async def blocks(self) -> list[bytes]:
        """Everything in the stream, by block number."""
        found = []
        for shard in await self.stream.shards():
            page = await self.stream.records(await self.stream.iterator(shard.shard_id, None), 1000)
            found += [record.data for record in page.records]
        return sorted(found, key=lambda block: (decode_header(block).attempt, decode_header(block).block))

    async def item(self, sealed: SealedBatch) -> RegistryItem:
        item = await self.registry.get(sealed.item.batch_id)
        assert item is not None
        return item


def counts(report: AuditReport) -> dict[str, int]:
    names = (
        "judged", "completed", "waiting", "replayed", "refused", "held", "lost", "excess", "damaged", "dead_lettered",
        "other_epoch",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names if getattr(report, name)}
