"""The links of one batch's proof, from what was read of it (rule A3)."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import polars as pl
from pyroaring import BitMap

from agents.audit.prove.transactions import OUTPUTS, ProvenTransaction
from app.core.audit.deep.batch_rows import Frames, compare_batches, empty, ledger_lines, lines_in
from app.core.audit.deep.batches import BatchLedgerRow, doubled_lines
from app.core.audit.deep.objects import about
from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.proof import BrokenLink, LinkName, Proof, conclude, fault_of, faults_of_stages
from app.core.audit.reconcile import LedgerLines, coverage
from app.core.audit.stages import BatchStage, Stage
from app.core.formats.flows import FLOWS, LEDGER
from app.core.formats.registry_item import RegistryItem

MOVED: Final = "lines came into the warehouse while this was read"


class Warehouse(NamedTuple):
    """What the warehouse has of some batches."""

    entries: Mapping[str, list[BatchLedgerRow]]
    rows: Mapping[str, Mapping[str, Frames]]
    """Batch -> transaction -> output -> the normalised rows."""
    transactions: Mapping[str, ProvenTransaction]


class BatchStanding(NamedTuple):
    """Where a batch stands."""

    stage: BatchStage | None
    """None if nothing had to be looked for, or if Kafka does not answer."""
    lost: BitMap
    """The lines that are lost for certain."""


def prove_item(item: RegistryItem, raw: Difference | int | None, warehouse: Warehouse, place: BatchStanding) -> Proof:
    """A batch with a registry item."""
    batch_id, missing = item.batch_id, missing_lines(item, warehouse)
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
            faults.append(BrokenLink(LinkName.BLOCKS, "frames of the raw file are not whole", BitMap(raw.lines)))
    if missing and place.stage is not None:
        faults += faults_of_stages(place.stage, place.lost)
    elif missing:
        detail = f"{len(missing)} lines are not in the warehouse, and Kafka does not say where they are"
        faults.append(BrokenLink(LinkName.TRANSACTIONS, detail, missing, is_late=True, stops=True))
    if moved := missing - BitMap.union(BitMap(), *(fault.lines for fault in faults)):
        faults.append(BrokenLink(LinkName.LOAD, MOVED, moved, is_late=True, stops=True))
    proof = conclude(batch_id, holds, faults, place.stage if missing else None)
    return msgspec.structs.replace(proof, lines=item.line_count, outcomes=outcomes_of(entries))


def missing_lines(item: RegistryItem, warehouse: Warehouse) -> BitMap:
    """The lines of a batch that the warehouse's ledger does not have."""
    entries = warehouse.entries.get(item.batch_id, [])
    return coverage(item.line_count, (LedgerLines(*entry[1:]) for entry in entries)).missing


def lines_in_stage(found: BatchStage | None, stage: Stage) -> BitMap:
    """The lines of a batch that stand in a stage."""
    blocks = found.blocks if found is not None else []
    return BitMap.union(BitMap(), *(block.lines[stage] for block in blocks if stage in block.lines))


def outcomes_of(entries: Sequence[BatchLedgerRow]) -> dict[str, int]:
    """Outcome -> lines, by ledger rows."""
    counts: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: entry.outcome):
        counts[entry.outcome] = counts.get(entry.outcome, 0) + entry.lines
    return counts


def _of_transactions(batch_id: str, warehouse: Warehouse) -> list[Difference]:
    """The damage that concerns a batch, of the transactions that have rows of it in the warehouse."""
    found: list[Difference] = []
    for txn_id, there in warehouse.rows.get(batch_id, {}).items():
        each = warehouse.transactions[txn_id]
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
    files = {output: of_batch.get(batch_id, empty(output)) for output, of_batch in each.frames.items()}
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
    again = sum(len(each.made_again) for each in own)
    loads = [entry for each in own for entry in each.log]
    there = item.line_count - missing
    rows = sum(
        frame.height for frames in warehouse.rows.get(batch_id, {}).values() for name, frame in frames.items()
        if name != LEDGER.name
    )  # fmt: skip
    apart = {name: count for name, count in outcomes_of(entries).items() if name not in {flow.name for flow in FLOWS}}
    more = "".join(f", {count} {name}" for name, count in apart.items())
    of_all = "all" if not missing else f"{there} of {item.line_count}"
    return {
        LinkName.REGISTRY: f"{item.line_count} lines, {item.state.value}, attempts {item.attempts}",
        LinkName.RAW: f"{item.raw_key}, {item.byte_count} bytes, sha256 {item.sha256}",
        LinkName.BLOCKS: f"{len(item.blocks)} blocks, every frame whole, all {item.line_count} lines",
        LinkName.OFFSETS: _offsets(item, stage),
        LinkName.TRANSACTIONS: f"{of_all} lines in {len(txn_ids)} transactions"
        + (f": {', '.join(txn_ids)}" if txn_ids else ""),
        LinkName.FILES: f"{files} data files, every sha256 as recorded"
        + (f"; {again} were made again, and have the sha256 that repairs/files/ names" if again else ""),
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
