"""Says of batches which stage holds them: reads the evidence for `app.core.audit.stages` from every service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from pyroaring import BitMap

from agents.audit.audit_rules import audit_rules
from agents.audit.stages.block_search import BlockName, BlockSearch, WantedBlock, by_block
from agents.audit.stages.open_steps import OpenSteps, RowsPartition, read_open_steps
from agents.audit.stored_ledger import BEHIND_MOST, BatchLines, StoredLedger
from app.adapters.kafka import QUICK_MS, LogReader
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.ports import LogSearch, ObjectStore
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_login import login_of
from app.adapters.warehouse_port import Delivery, LoadedLedger
from app.core.audit.reconcile import LedgerLines, coverage, lacking_blocks, pause_ms
from app.core.audit.stages import (
    BatchStage,
    BlockSearchResult,
    EtlPosition,
    StageEvidence,
    StageRules,
    stage_batch,
    unplaced_blocks,
)
from app.core.formats.registry_item import RegistryItem
from app.core.formats.step_message import StepLog
from app.core.repair.replacements import Replacements
from app.core.sink.chain import chain_end_after
from app.settings import Settings
from app.shell.repairs import read_replacements
from app.topics import topics_of

CHUNK: Final = 200
"""Batches that are judged together."""


class StagePorts(NamedTuple):
    """The services that are asked."""

    store: ObjectStore
    warehouse: LoadedLedger
    logs: LogSearch


@asynccontextmanager
async def open_stages(settings: Settings) -> AsyncIterator["Stages"]:
    """The stages of a running pipeline, for a command.

    Raises:
        ServiceUnavailable: Kafka does not answer.
    """
    objects = S3ObjectStore(settings)
    warehouse = WarehouseLedger(settings.warehouse_url, login_of(settings))
    try:
        async with LogReader(settings, QUICK_MS) as logs:
            yield Stages(StagePorts(objects, warehouse, logs), settings)
    finally:
        await warehouse.close()
        await objects.close()


class PartitionProgress(NamedTuple):
    """One partition between the etl and the warehouse."""

    committed: dict[str, BatchLines]
    """Transactions that are committed and not loaded -> batch -> lines."""
    steps: OpenSteps
    position: EtlPosition


class Stages:
    """Where batches of one epoch stand.

    Order of reads: the progress of delivery; the ledger in the warehouse; the transactions behind that progress; the steps
    behind the last transaction; the blocks. See `app.core.audit.stages`.
    """

    def __init__(
        self, ports: StagePorts, settings: Settings, stored: StoredLedger | None = None, most_transactions: int = BEHIND_MOST
    ) -> None:
        """Ask nothing yet; at most `most_transactions` of a partition, committed and not loaded, are read."""
        topics = topics_of(settings)
        self._ports = ports
        self._settings = settings
        self._rows = topics.rows.name
        self._most = most_transactions
        self._stored = stored or StoredLedger(ports.store, settings.epoch)
        self._search = BlockSearch(ports.logs, topics.blocks.name)
        self._rules = StageRules(settings.join, settings.linger_ms)

    async def of(self, items: Sequence[RegistryItem], *, find_all: bool = False) -> dict[str, BatchStage]:
        """Batch id -> where the batch stands. With `find_all` the offset of every block is looked for.

        Raises:
            ServiceUnavailable: a service does not answer.
            ChainBroken: a chain of transactions has a gap, or a record cannot be read.
            NewerFormat: a newer version wrote a record.
        """
        found: dict[str, BatchStage] = {}
        for start in range(0, len(items), CHUNK):
            found |= await self._of_some(items[start : start + CHUNK], find_all=find_all)
        return found

    async def _of_some(self, items: Sequence[RegistryItem], *, find_all: bool) -> dict[str, BatchStage]:
        batch_ids = [item.batch_id for item in items]
        delivery = await self._ports.warehouse.delivery(self._settings.epoch)
        dead_letters = await self._ports.warehouse.dead_letters(batch_ids)
        entries = await self._ports.warehouse.entries(batch_ids)
        quarantined = await self._stored.of_quarantined(delivery)
        partitions = await self._partitions(items, entries, delivery, batch_ids)
        evidence = {
            item.batch_id: _evidence(item, entries, quarantined, partitions, dead_letters.get(item.batch_id, {}))
            for item in items
        }
        wanted = [
            self._wanted(item, block, evidence[item.batch_id])
            for item in items
            for block in (range(len(item.blocks)) if find_all else unplaced_blocks(item, evidence[item.batch_id]))
        ]
        searches: dict[BlockName, BlockSearchResult] = await self._search.find(wanted) if wanted else {}
        positions = {number: partition.position for number, partition in partitions.items()}
        return {
            item.batch_id: stage_batch(
                item,
                evidence[item.batch_id]._replace(searches=by_block(searches, item.batch_id)),
                positions,
                self._rules,
            )
            for item in items
        }

    async def _partitions(
        self,
        items: Sequence[RegistryItem],
        entries: dict[str, list[LedgerLines]],
        delivery: Delivery,
        batch_ids: Sequence[str],
    ) -> dict[int, PartitionProgress]:
        """Every partition with a block that lacks lines in the warehouse."""
        numbers = set()
        for item in items:
            found = coverage(item.line_count, entries.get(item.batch_id, []))
            numbers |= {place.partition for place in lacking_blocks(item, found).values()}
        replaced = await read_replacements(self._ports.store, self._settings.epoch, numbers) if numbers else {}
        partitions = {}
        for number in sorted(numbers):
            at = delivery.number(number)
            committed, more, record = await self._stored.some_behind(number, at, self._most)
            log = StepLog(self._rows, number, self._settings.epoch)
            rows = RowsPartition(self._ports.logs, log, replaced.get(number) or Replacements())
            steps = await read_open_steps(rows, chain_end_after(record), batch_ids)
            loaded_ms = delivery.partitions[number].stream_time_ms if number in delivery.partitions else -1
            position = steps.position._replace(unread_transactions=more, loaded_time_ms=loaded_ms)
            partitions[number] = PartitionProgress(committed, steps, position)
        return partitions

    def _wanted(self, item: RegistryItem, block: int, evidence: StageEvidence) -> WantedBlock:
        replayed_at_ms = None
        if item.attempts:
            replayed_at_ms = item.next_attempt_at_ms - pause_ms(item.attempts, audit_rules(self._settings))
        return WantedBlock(item, block, all_copies=block in evidence.dead_letters, replayed_at_ms=replayed_at_ms)


def _evidence(
    item: RegistryItem,
    entries: dict[str, list[LedgerLines]],
    quarantined: dict[str, BatchLines],
    partitions: dict[int, PartitionProgress],
    dead_letters: dict[int, str],
) -> StageEvidence:
    batch_id = item.batch_id
    committed: dict[str, BitMap] = {}
    steps: dict[int, BitMap] = {}
    letters = dict(dead_letters)
    for partition in {place.partition for place in item.blocks} & partitions.keys():
        there = partitions[partition]
        committed |= {txn_id: lines[batch_id] for txn_id, lines in there.committed.items() if batch_id in lines}
        for offset, batches in there.steps.lines.items():
            if batch_id in batches:  # two partitions may have steps at one offset
                steps[offset] = steps.get(offset, BitMap()) | batches[batch_id]
        letters |= there.steps.dead_letters.get(batch_id, {})
    return StageEvidence(
        entries=entries.get(batch_id, []),
        quarantined={txn_id: lines[batch_id] for txn_id, lines in quarantined.items() if batch_id in lines},
        committed=committed, steps=steps, dead_letters=letters,
    )  # fmt: skip
