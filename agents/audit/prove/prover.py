"""Proves batches: reads everything that has lines of them, from the registry to the warehouse's rows.

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
from agents.audit.prove.transactions import OUTPUTS, ProvenTransaction, Transactions
from agents.audit.stages.stages import Stages
from app.core.audit.certificate import BatchBooks, books_of
from app.core.audit.deep.batch_rows import compare_batches, empty, ledger_lines, lines_in
from app.core.audit.deep.batches import LedgerEntry, LossEvidence, doubled_lines, judge_raw, lost_lines
from app.core.audit.deep.objects import about
from app.core.audit.deep.rows import normalised
from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.proof import Fault, LinkName, Proof, Verdict, conclude, fault_of, faults_of_stages
from app.core.audit.reconcile import LedgerLines, coverage, read_lines
from app.core.audit.stages import BatchStage, Stage
from app.core.formats.batch import batch_time_ms
from app.core.formats.flows import FLOWS, LEDGER
from app.core.formats.object_keys import raw_key
from app.core.formats.registry_item import RegistryItem
from app.errors import ChainBroken, FormatInvalid, ObjectMissing, ServiceUnavailable
from app.settings import Settings

LOOKS: Final = 3
"""A batch that still looks broken after so many looks is broken."""
MOVED: Final = "lines came into the warehouse while this was read"
REGISTERS_MS: Final = 60_000
"""A raw file that is younger may still be registered: its collector tries for so long."""
FILES_AT_ONCE: Final = 8


class Warehouse(NamedTuple):
    """What the warehouse has of some batches."""

    entries: Mapping[str, list[LedgerEntry]]
    rows: Mapping[str, pl.DataFrame]
    """Output -> the normalised rows of the batches."""
    transactions: Mapping[str, ProvenTransaction]


class Place(NamedTuple):
    """Where a batch stands."""

    stage: BatchStage | None
    """None if nothing had to be looked for, or if Kafka does not answer."""
    lost: BitMap
    """The lines that are lost for certain."""


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
                place = Place(stages.get(batch_id), lost.get(batch_id, BitMap()))
                books = books_of(item, (entry[1:] for entry in warehouse.entries.get(batch_id, [])))
                proofs.append(Proven(_prove(item, raw, warehouse, place), books))
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
        frames = {}
        for output in (LEDGER.name, *(flow.name for flow in FLOWS)):
            frames[output] = normalised(output, await self._ports.rows.of_batches(output, batch_ids))
        entries: dict[str, list[LedgerEntry]] = {}
        for batch_id, *entry in frames[LEDGER.name].select("batch_id", *LedgerEntry._fields).iter_rows():
            entries.setdefault(batch_id, []).append(LedgerEntry(*entry))
        txn_ids = {txn_id for frame in frames.values() for txn_id in frame["txn_id"].unique().to_list()}
        return Warehouse(entries, frames, await self._transactions.of(txn_ids))

    async def _stand(
        self, items: Sequence[RegistryItem], warehouse: Warehouse, *, find_offsets: bool
    ) -> dict[str, BatchStage]:
        """Where the batches stand that are not wholly in the warehouse's ledger; all of them with `find_offsets`."""
        wanted = [item for item in items if find_offsets or _missing(item, warehouse)]
        if self._stages is None or not wanted:
            return {}
        try:
            return await self._stages.of(wanted, find_all=find_offsets)
        except ServiceUnavailable:
            return {}  # the proof of loaded lines does not need topic `blocks`; others wait
        except ChainBroken:
            if any(_missing(item, warehouse) for item in wanted):
                raise
            return {}

    async def _lost(
        self, items: Sequence[RegistryItem], warehouse: Warehouse, stages: Mapping[str, BatchStage]
    ) -> dict[str, BitMap]:
        """Batch -> its lines that are lost for certain."""
        without_place = [
            item for item in items
            if (missing := _missing(item, warehouse)) and missing & _in_stage(stages.get(item.batch_id), Stage.LOST)
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
            elsewhere = _missing(item, warehouse) - _in_stage(stages.get(item.batch_id), Stage.LOST)
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
            return conclude(batch_id, holds, [Fault(LinkName.REGISTRY, detail, lines, is_late=young)])
        detail = why or "the registry has no item" + ("" if entries or raw is not None else ": no such batch is known")
        faults = [Fault(LinkName.REGISTRY, detail, lines)]
        if raw is None:
            faults.append(Fault(LinkName.RAW, f"{key} is missing", lines))
        return msgspec.structs.replace(conclude(batch_id, holds, faults), outcomes=_outcomes(entries))


def _is_to_read_again(proof: Proof) -> bool:
    return proof.verdict is Verdict.BROKEN or any(link.detail == MOVED for link in proof.links)


def _prove(item: RegistryItem, raw: Difference | int | None, warehouse: Warehouse, place: Place) -> Proof:
    """A batch with a registry item."""
    batch_id, missing = item.batch_id, _missing(item, warehouse)
    entries = warehouse.entries.get(batch_id, [])
    differences = [*doubled_lines(item, entries), *_of_transactions(batch_id, warehouse)]
    holds = _holds(item, warehouse, place.stage, len(missing))
    faults = [fault_of(one) for one in differences]
    if raw is None:
        holds |= dict.fromkeys((LinkName.RAW, LinkName.BLOCKS), "the raw file has expired (RETENTION_RAW_DAYS)")
    elif isinstance(raw, Difference):
        faults.append(fault_of(raw))
        if raw.kind is DifferenceKind.RAW_LOST:
            del holds[LinkName.BLOCKS]
        elif raw.kind is DifferenceKind.RAW_CHANGED:
            faults.append(Fault(LinkName.BLOCKS, "frames of the raw file are not whole", BitMap(raw.lines)))
    if missing and place.stage is not None:
        faults += faults_of_stages(place.stage, place.lost)
    elif missing:
        detail = f"{len(missing)} lines are not in the warehouse, and Kafka does not say where they are"
        faults.append(Fault(LinkName.TRANSACTIONS, detail, missing, is_late=True, stops=True))
    if moved := missing - BitMap.union(BitMap(), *(fault.lines for fault in faults)):
        faults.append(Fault(LinkName.LOAD, MOVED, moved, is_late=True, stops=True))
    proof = conclude(batch_id, holds, faults, place.stage if missing else None)
    return msgspec.structs.replace(proof, lines=item.line_count, outcomes=_outcomes(entries))


def _missing(item: RegistryItem, warehouse: Warehouse) -> BitMap:
    entries = warehouse.entries.get(item.batch_id, [])
    return coverage(item.line_count, (LedgerLines(*entry[1:]) for entry in entries)).missing


def _in_stage(found: BatchStage | None, stage: Stage) -> BitMap:
    blocks = found.blocks if found is not None else []
    return BitMap.union(BitMap(), *(block.lines[stage] for block in blocks if stage in block.lines))


def _outcomes(entries: Sequence[LedgerEntry]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: entry.outcome):
        counts[entry.outcome] = counts.get(entry.outcome, 0) + entry.lines
    return counts


def _of_transactions(batch_id: str, warehouse: Warehouse) -> list[Difference]:
    """The damage that concerns a batch, of the transactions that have rows of it in the warehouse."""
    own = {output: frame.filter(pl.col("batch_id") == batch_id) for output, frame in warehouse.rows.items()}
    found: list[Difference] = []
    for txn_id, each in warehouse.transactions.items():
        there = {output: frame.filter(pl.col("txn_id") == txn_id) for output, frame in own.items()}
        if not any(frame.height for frame in there.values()):
            continue
        files = _files_of(batch_id, each)
        lines = ledger_lines(files, there)
        for one in each.differences:
            concerned = lines_in(one.flow, batch_id, lines)
            if concerned or not one.flow:
                found.append(msgspec.structs.replace(one, batch_id=batch_id, lines=list(concerned)))
        if each.record is not None:
            found += compare_batches({output: about(each.record, output) for output in OUTPUTS}, files, there)
    return found


def _files_of(batch_id: str, each: ProvenTransaction) -> dict[str, pl.DataFrame]:
    """Output -> the batch's rows in a transaction's data files; outputs whose file is damaged are absent."""
    files = {output: frame.filter(pl.col("batch_id") == batch_id) for output, frame in each.frames.items()}
    if each.record is not None:
        files |= {output: empty(output) for output in OUTPUTS if not each.record.output(output).rows}
    return files


def _holds(
    item: RegistryItem, warehouse: Warehouse, stage: BatchStage | None, missing: int
) -> dict[LinkName, str]:  # fmt: skip
    """Link -> its detail, if it holds."""
    batch_id, entries = item.batch_id, warehouse.entries.get(item.batch_id, [])
    txn_ids = sorted({entry.txn_id for entry in entries})
    own = [warehouse.transactions[txn_id] for txn_id in txn_ids]
    files = sum(len(each.frames) for each in own)
    loads = [entry for each in own for entry in each.log]
    there = item.line_count - missing
    rows = sum(frame.filter(pl.col("batch_id") == batch_id).height for name, frame in warehouse.rows.items()
               if name != LEDGER.name)  # fmt: skip
    apart = {name: count for name, count in _outcomes(entries).items() if name not in {flow.name for flow in FLOWS}}
    more = "".join(f", {count} {name}" for name, count in apart.items())
    of_all = "all" if not missing else f"{there} of {item.line_count}"
    return {
        LinkName.REGISTRY: f"{item.line_count} lines, {item.state.value}, attempts {item.attempts}",
        LinkName.RAW: f"{item.raw_key}, {item.byte_count} bytes, sha256 {item.sha256}",
        LinkName.BLOCKS: f"{len(item.blocks)} blocks, every frame whole, all {item.line_count} lines",
        LinkName.OFFSETS: _offsets(item, stage),
        LinkName.TRANSACTIONS: f"{of_all} lines in {len(txn_ids)} transactions"
        + (f": {', '.join(txn_ids)}" if txn_ids else ""),
        LinkName.FILES: f"{files} data files, every sha256 as recorded",
        LinkName.LOAD: f"{len(loads)} transactions in delivery_log; the ledger has {of_all} lines"
        + ", each once" * (there > 0),
        LinkName.ROWS: f"{rows} rows, each as its file has it{more}",
    }


def _offsets(item: RegistryItem, stage: BatchStage | None) -> str:
    if stage is None:
        return "not looked for: the ledger has the lines"
    places = [
        f"block {number} at blocks[{item.blocks[number].partition}]@{offset}"
        for number, offset in sorted(stage.offsets.items())
    ]  # fmt: skip
    gone = len(item.blocks) - len(places)
    told = [", ".join(places)] if places else []
    return "; ".join([*told, f"{gone} blocks are no longer in topic blocks, or were not looked for"] if gone else told)
