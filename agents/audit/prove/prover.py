"""Proves batches: reads everything that has lines of them, from the registry to the warehouse's rows (rule A3).

Order of reads: the registry, the raw files, the warehouse's ledger and rows, delivery_log and the transactions, and last the
places of lines that are not loaded (`agents.audit.stages`). A transaction that is loaded meanwhile may be in some of these
answers and not in others, so what looks broken is read again, and is broken only if it still is.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import polars as pl
from pyroaring import BitMap

from agents.audit.audit_rules import audit_rules
from agents.audit.deep.ports import DeepPorts
from agents.audit.prove.links import MOVED, BatchStanding, Warehouse, lines_in_stage, missing_lines, outcomes_of, prove_item
from agents.audit.prove.transactions import Transactions, of_each
from agents.audit.stages.stages import Stages
from app.core.audit.certificate import BatchBooks, books_of
from app.core.audit.deep.batches import BatchLedgerRow, LossEvidence, judge_raw, lost_lines
from app.core.audit.deep.rows import normalised
from app.core.audit.differences import Difference
from app.core.audit.proof import BrokenLink, LinkName, Proof, Verdict, conclude
from app.core.audit.reconcile import LedgerLines, read_lines
from app.core.audit.stages import BatchStage, Stage
from app.core.formats.batch import batch_time_ms
from app.core.formats.flows import FLOWS, LEDGER
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import RegistryItem
from app.errors import ChainBroken, FormatInvalid, ObjectMissing, ServiceUnavailable
from app.settings import Settings

LOOKS: Final = 3
"""A batch that still looks broken after so many looks is broken."""
REGISTERS_MS: Final = 60_000
"""A raw file that is younger may still be registered: its collector tries for so long."""
FILES_AT_ONCE: Final = 8


class Proven(NamedTuple):
    """A batch that was looked at."""

    proof: Proof
    books: BatchBooks | None
    """For the certificate of its hour; None without a registry item that can be read."""
    is_no_batch: bool = False
    """Whether it was never acknowledged: a raw file alone."""


class Prover:
    """Proves batches of one epoch."""

    def __init__(self, ports: DeepPorts, stages: Stages | None, settings: Settings) -> None:
        """`stages` None: Kafka does not answer, so nothing is known about lines that are not committed."""
        self._ports = ports
        self._stages = stages
        self._settings = settings
        self._transactions = Transactions(ports, settings)
        self._files = asyncio.Semaphore(FILES_AT_ONCE)

    async def of(self, batch_ids: Sequence[str], *, find_offsets: bool = False) -> list[Proof]:
        """The proof of each batch; as `look`."""
        return [each.proof for each in await self.look(batch_ids, find_offsets=find_offsets)]

    async def look(self, batch_ids: Sequence[str], *, find_offsets: bool = False) -> list[Proven]:
        """Each batch, in their order. With `find_offsets` every block is looked for in topic `blocks`.

        Raises:
            ServiceUnavailable: S3, the registry or the warehouse does not answer.
            NewerFormat: a newer version wrote an item, a record or a file.
        """
        found: dict[str, Proven] = {}
        left = list(dict.fromkeys(batch_ids))
        for _ in range(LOOKS):
            found |= {each.proof.batch_id: each for each in await self._look(left, find_offsets=find_offsets)}
            left = [batch_id for batch_id in left if _is_to_read_again(found[batch_id].proof)]
            if not left:
                break
        return [found[batch_id] for batch_id in batch_ids]

    # --- inside

    async def _look(self, batch_ids: Sequence[str], *, find_offsets: bool) -> list[Proven]:
        items = dict(zip(batch_ids, await asyncio.gather(*(self._item(each) for each in batch_ids)), strict=True))
        raws = dict(zip(batch_ids, await asyncio.gather(*(self._raw(*each) for each in items.items())), strict=True))
        warehouse = await self._warehouse(batch_ids)
        registered = [item for item in items.values() if isinstance(item, RegistryItem)]
        stages = await self._stand(registered, warehouse, find_offsets=find_offsets)
        lost = await self._lost(registered, warehouse, stages)
        proofs = []
        for batch_id in batch_ids:
            item, raw = items[batch_id], raws[batch_id]
            if isinstance(item, RegistryItem):
                place = BatchStanding(stages.get(batch_id), lost.get(batch_id, BitMap()))
                books = books_of(item, (entry[1:] for entry in warehouse.entries.get(batch_id, [])))
                proofs.append(Proven(prove_item(item, raw, warehouse, place), books))
            else:
                proof = self._prove_unregistered(batch_id, item, raw, warehouse)
                is_no_batch = not item and batch_id not in warehouse.entries and raw is not None
                proofs.append(Proven(proof, None, is_no_batch))
        return proofs

    async def _item(self, batch_id: str) -> RegistryItem | str:
        """The registry's item; words if there is none, or none that can be read."""
        try:
            return await self._ports.registry.get(batch_id) or ""
        except FormatInvalid as exc:
            return str(exc)

    async def _raw(self, batch_id: str, item: RegistryItem | str) -> Difference | int | None:
        """The difference of the raw file; else its size; None if there is none: expired, or never stored."""
        async with self._files:
            own_key = raw_key(batch_id, batch_time_ms(batch_id))
            if not isinstance(item, RegistryItem):
                info = await self._ports.store.head(own_key)
                return None if info is None else info.size
            raw = await self._get(item.raw_key)
            at_own_key = await self._get(own_key) if own_key != item.raw_key else None
            found = await asyncio.to_thread(judge_raw, item, raw, at_own_key)
            if raw is None and found is not None and self._has_expired(own_key, batch_time_ms(batch_id)):
                return None
            return item.byte_count if found is None else found

    def _has_expired(self, key: str, stored_ms: int) -> bool:
        return self._settings.retention.has_expired(key, stored_ms, self._ports.clock.now_ms())

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._ports.store.get(key)
        except ObjectMissing:
            return None

    async def _warehouse(self, batch_ids: Sequence[str]) -> Warehouse:
        frames: dict[str, pl.DataFrame] = {}
        for output in (LEDGER.name, *(flow.name for flow in FLOWS)):
            frames[output] = normalised(output, await self._ports.rows.of_batches(output, batch_ids))
        entries: dict[str, list[BatchLedgerRow]] = {}
        for batch_id, *entry in frames[LEDGER.name].select("batch_id", *BatchLedgerRow._fields).iter_rows():
            entries.setdefault(batch_id, []).append(BatchLedgerRow(*entry))
        txn_ids = {txn_id for frame in frames.values() for txn_id in frame["txn_id"].unique().to_list()}
        rows: dict[str, dict[str, dict[str, pl.DataFrame]]] = {}
        for output, frame in frames.items():
            for batch_id, own in of_each(frame, "batch_id").items():
                for txn_id, part in of_each(own, "txn_id").items():
                    rows.setdefault(batch_id, {}).setdefault(txn_id, {})[output] = part
        return Warehouse(entries, rows, await self._transactions.of(txn_ids))

    async def _stand(
        self, items: Sequence[RegistryItem], warehouse: Warehouse, *, find_offsets: bool
    ) -> dict[str, BatchStage]:
        """Where the batches stand that are not wholly in the warehouse's ledger; all of them with `find_offsets`."""
        wanted = [item for item in items if find_offsets or missing_lines(item, warehouse)]
        if self._stages is None or not wanted:
            return {}
        try:
            return await self._stages.of(wanted, find_all=find_offsets)
        except ServiceUnavailable:
            return {}  # the proof of loaded lines does not need topic `blocks`; others wait
        except ChainBroken:
            if any(missing_lines(item, warehouse) for item in wanted):
                raise
            return {}

    async def _lost(
        self, items: Sequence[RegistryItem], warehouse: Warehouse, stages: Mapping[str, BatchStage]
    ) -> dict[str, BitMap]:
        """Batch -> its lines that are lost for certain."""
        without_place = [
            item for item in items
            if missing_lines(item, warehouse) & lines_in_stage(stages.get(item.batch_id), Stage.LOST)
        ]  # fmt: skip
        if not without_place:
            return {}
        batch_ids = [item.batch_id for item in without_place]
        delivery = await self._ports.ledger.delivery(self._settings.epoch)
        times_ms = {partition: reached.stream_time_ms for partition, reached in delivery.partitions.items()}
        replayed = await self._ports.ledger.replayed_blocks(batch_ids)
        found = {}
        for item in without_place:
            rows = [LedgerLines(*entry[1:]) for entry in warehouse.entries.get(item.batch_id, [])]
            elsewhere = missing_lines(item, warehouse) - lines_in_stage(stages.get(item.batch_id), Stage.LOST)
            evidence = LossEvidence(rows, elsewhere, replayed.get(item.batch_id, frozenset()), times_ms)
            rules = audit_rules(self._settings)
            found[item.batch_id] = lost_lines(item, evidence, rules, self._ports.clock.now_ms())
        return found

    def _prove_unregistered(
        self, batch_id: str, why: str, raw: Difference | int | None, warehouse: Warehouse
    ) -> Proof:  # fmt: skip
        """A batch without a registry item: the collector registers it before anybody learns of it."""
        entries = warehouse.entries.get(batch_id, [])
        lines = BitMap.union(BitMap(), *(read_lines(entry.line_set) or BitMap() for entry in entries))
        key = raw_key(batch_id, batch_time_ms(batch_id))
        holds = {LinkName.RAW: f"{key}, {raw} bytes; nothing says which sha256 it must have"} if raw is not None else {}
        young = self._ports.clock.now_ms() - batch_time_ms(batch_id) < REGISTERS_MS
        if not why and not entries and raw is not None:
            detail = "the collector has stored it, and not registered it" + (
                " yet" if young else ": it was never acknowledged, so its senders have sent its events again"
            )
            return conclude(batch_id, holds, [BrokenLink(LinkName.REGISTRY, detail, lines, is_late=young)])
        detail = why or "the registry has no item" + ("" if entries or raw is not None else ": no such batch is known")
        faults = [BrokenLink(LinkName.REGISTRY, detail, lines)]
        if raw is None:
            faults.append(BrokenLink(LinkName.RAW, f"{key} is missing", lines))
        return msgspec.structs.replace(conclude(batch_id, holds, faults), outcomes=outcomes_of(entries))


def _is_to_read_again(proof: Proof) -> bool:
    return proof.verdict is Verdict.BROKEN or any(link.detail == MOVED for link in proof.links)
