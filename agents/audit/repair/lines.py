"""Lost lines come back as a transaction of their own (rules A2, R5).

The ETL knows their blocks, so a replay does not bring them. They are decided again from their raw files, and the result is
appended to the partition's chain: a transaction that answers for no messages of topic `rows`. The chain is the one place
that decides, so the sink, delivery and the audit take it like any other.

Effects for one partition, in order, and what a crash right after each leaves:
  1 find the chain's end, finish it   nothing new
  2 look for the lines once more      nothing: lines that any ledger up to that end has are not lost
  3 decide, stage                     staged files that the sweep deletes
  4 commit the next number            the transaction; the owner of the partition finishes it, or the next repair
  5 finish, clear                     nothing
If another writer takes the number at 4, everything is looked at again from 1. So two repairs at once cannot both bring a
line: the second finds the first one's ledger.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

from pyroaring import BitMap

from agents.audit.repair.chains import Chains
from agents.audit.repair.ports import RepairPorts
from agents.audit.repair.raw_lines import blocks_with, registered
from agents.etl.owner import etl_rules
from agents.sink.chain_store import ChainStore
from app.core.audit.reconcile import coverage
from app.core.formats import object_keys
from app.core.formats.batch import batch_time_ms, partition_of
from app.core.formats.columns import pack_frame
from app.core.formats.flows import LEDGER
from app.core.formats.registry_item import RegistryItem
from app.core.formats.transaction_record import TransactionRecord
from app.core.rebuild.lost_lines import DecidedLines, Knowledge, PartitionRules, decide_lost, lost_lines
from app.core.sink.chain import ChainId, chain_end_after
from app.core.sink.open_transaction import Content, Encoded, OpenTransaction, encode_outputs, record_of
from app.errors import RepairRefused, ServiceUnavailable
from app.settings import Settings

TRIES: Final = 20
"""How often another writer may take the number before the repair gives up."""
AT_ONCE: Final = 16
"""Transactions of a chain that are read at once."""
EARLIER_MS: Final = 3_600_000
"""The clock of a sink may be so far behind that of a collector."""
_RANDOM_BYTES: Final = 4


class LineMends:
    """Mends lines that are in no ledger, or in more than one entry."""

    def __init__(self, ports: RepairPorts, settings: Settings, chains: Chains) -> None:
        self._ports = ports
        self._deep = ports.deep
        self._settings = settings
        self._chains = chains

    async def restore(self, batch_ids: Collection[str]) -> None:
        """Bring back the lost lines of some batches.

        Raises:
            RepairRefused: a batch has no item or no raw file, or a transaction that may have the lines is damaged.
            ChainBroken: a chain contradicts itself.
            ServiceUnavailable: a service does not answer.
        """
        items = [await registered(self._deep.registry, batch_id) for batch_id in sorted(batch_ids)]
        partitions = {place.partition for item in items for place in item.blocks}
        for partition in sorted(partitions):
            await self._restore_on(partition, items)

    async def doubled(self, batch_id: str) -> str:
        """Why the ledger still has lines of a batch more than once; an empty text if it has not."""
        item = await registered(self._deep.registry, batch_id)
        found = coverage(item.line_count, (await self._deep.ledger.entries([batch_id])).get(batch_id, []))
        if not found.excess:
            return ""
        return f"two transactions have them, and only an operator can say which one is wrong: {'; '.join(found.excess)}"

    # --- inside

    async def _restore_on(self, partition: int, items: Collection[RegistryItem]) -> None:
        chain = ChainStore(self._deep.store, ChainId(self._settings.epoch, partition), _give_up)
        for _ in range(TRIES):
            last = await chain.find_end()  # 1
            if last is not None:
                await chain.finish(last)
            lost = await self._lost(partition, items, last)  # 2
            if not lost:
                return
            decided = await self._decide(partition, items, lost)
            if await self._commit(chain, last, decided):
                return
        raise RepairRefused(f"other writers took every number of partition {partition}'s chain: try again")

    async def _lost(
        self, partition: int, items: Collection[RegistryItem], last: TransactionRecord | None
    ) -> dict[str, BitMap]:
        """Batch -> its lines on the partition that no ledger has: neither the warehouse's nor any committed transaction's.

        The ledger files of every transaction since the oldest of the batches are read, also of those that are loaded: their
        rows may be lost in the warehouse, and another repair may be about to load them again.
        """
        entries = await self._deep.ledger.entries([item.batch_id for item in items])
        lost: dict[str, BitMap] = {}
        for item in items:
            here = BitMap()
            for place in item.blocks:
                if place.partition == partition:
                    here.add_range(place.first_line, place.first_line + place.lines)
            if missing := coverage(item.line_count, entries.get(item.batch_id, [])).missing & here:
                lost[item.batch_id] = missing
        if lost:
            since_ms = min(batch_time_ms(batch_id) for batch_id in lost) - EARLIER_MS
            async for lines in self._ledgers(partition, last, since_ms):
                for batch_id in lost.keys() & lines.keys():
                    lost[batch_id] = lost[batch_id] - lines[batch_id]
        return {batch_id: lines for batch_id, lines in lost.items() if lines}

    async def _ledgers(
        self, partition: int, last: TransactionRecord | None, since_ms: int
    ) -> AsyncIterator[dict[str, BitMap]]:
        """Batch -> lines in the ledger file of each transaction that was committed since a moment, the newest first.

        Raises:
            RepairRefused: a record or a ledger file is missing or damaged: it may have the lines.
        """
        number = 0 if last is None else last.number
        while number > 0:
            some = range(number, max(0, number - AT_ONCE), -1)
            records = await asyncio.gather(*(self._chains.whole_record(partition, each) for each in some))
            wanted = [record for record in records if record.committed_at_ms >= since_ms]
            for found in await asyncio.gather(*map(self._ledger, wanted)):
                yield found
            if len(wanted) < len(records):
                return
            number -= AT_ONCE

    async def _ledger(self, record: TransactionRecord) -> dict[str, BitMap]:
        found = await self._chains.files(record, [LEDGER.name])
        if found.damaged:
            raise RepairRefused(f"the ledger file of {record.txn_id} is missing or damaged: it may have the lines")
        return await self._chains.ledger_lines(found.record)

    async def _decide(
        self, partition: int, items: Collection[RegistryItem], lost: Mapping[str, BitMap]
    ) -> DecidedLines:  # fmt: skip
        """The rows and the ledger of the lost lines (3)."""
        envelopes = []
        for item in items:
            if item.batch_id in lost:
                envelopes += await blocks_with(self._deep.store, item, partition, lost[item.batch_id])
        known = await self._knowledge(partition, envelopes, lost)
        core = PartitionRules(partition, etl_rules(self._settings), self._ports.enricher)
        decided = await asyncio.to_thread(decide_lost, core, envelopes, lost, known)
        if decided.lines != sum(map(len, lost.values())):
            raise RepairRefused(f"{decided.lines} of {sum(map(len, lost.values()))} lost lines have an outcome")
        return decided

    async def _knowledge(
        self, partition: int, envelopes: Collection[bytes], lost: Mapping[str, BitMap]
    ) -> Knowledge:  # fmt: skip
        lines = await asyncio.to_thread(lost_lines, envelopes, lost)
        ids = sorted({each.event_id for each in lines if each.event_id})
        views = sorted({each.page_view_id for each in lines if each.page_view_id})
        counted = await self._ports.events.counted(ids)
        here = {event_id for event_id, view in counted if self._lies_on(partition, event_id, view)}
        first_events: dict[str, tuple[int, str]] = {}
        for view, event_id, received_ms in await self._ports.events.first_events(views):
            first_events[view] = min(first_events.get(view, (received_ms, event_id)), (received_ms, event_id))
        return Knowledge(frozenset(here), first_events)

    def _lies_on(self, partition: int, event_id: str, page_view_id: str | None) -> bool:
        """Whether an event met this partition's state; a row of a bot does not say, and its id was sent once more."""
        key = page_view_id or event_id
        return page_view_id is None or partition_of(key.encode(), self._settings.partitions) == partition

    async def _commit(self, chain: ChainStore, last: TransactionRecord | None, decided: DecidedLines) -> bool:
        """Append the transaction (3 to 5). Returns: whether it holds the number."""
        end, now_ms = chain_end_after(last), self._deep.clock.now_ms()
        txn = object_keys.txn_id(*chain.chain_id, end.number + 1, secrets.token_hex(_RANDOM_BYTES))
        files = await asyncio.to_thread(_encoded, decided, txn)
        record = record_of(OpenTransaction(chain.chain_id, end, 0.0), txn, files, now_ms)
        staged = [out.staged_key for out in record.outputs if out.staged_key is not None]
        await chain.stage(record, [file.body for file in files])
        found = await chain.commit(record)
        if found.txn_id == txn:
            await chain.finish(record)
        await chain.clear(staged)
        return found.txn_id == txn


def _encoded(decided: DecidedLines, txn: str) -> list[Encoded]:
    streams = {flow: [pack_frame(rows) for rows in frames] for flow, frames in decided.rows.items()}
    return encode_outputs(Content(streams, decided.ledger), txn)


async def _give_up(_: float) -> None:
    """Instead of a pause: a command says that S3 does not answer, and is run again."""
    raise ServiceUnavailable("S3 does not answer: run it again")
