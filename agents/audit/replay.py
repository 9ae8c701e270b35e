"""Sends batches once more: cut again from their raw files, put to Kinesis with the next attempt's number (rules A1, E7).

The pipeline reports and drops the blocks that it has already, so a replay never changes a row; it takes the others.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

import msgspec
import structlog

from agents.audit.auditor import audit_rules
from agents.audit.ports import AuditPorts
from agents.audit.registry_items import readable
from agents.audit.stored_ledger import StoredLedger
from app.core.audit.reconcile import pause_ms
from app.core.backoff import Backoff
from app.core.formats.batch import cut_again
from app.core.formats.registry_item import RegistryItem
from app.errors import FormatInvalid, ObjectMissing, OutsideError
from app.settings import Settings

log = structlog.get_logger(__name__)

TRIES: Final = 8
"""How often refused blocks are put again."""
BACKOFF: Final = Backoff(first_s=0.25)


class Replayed(msgspec.Struct, frozen=True):
    """A batch of which Kinesis took every block again."""

    batch_id: str
    attempt: int
    blocks: int


class Held(msgspec.Struct, frozen=True):
    """A batch with lines in a quarantined transaction: only the transaction's release brings them into the warehouse."""

    batch_id: str
    txn_id: str


class ReplayReport(msgspec.Struct):
    """The result of a replay."""

    replayed: list[Replayed] = []
    refused: list[str] = []
    """Batches of which Kinesis did not take every block, after all tries."""
    unknown: list[str] = []
    """Batches that are not in the registry."""
    damaged: list[str] = []
    """Batches whose raw file is missing or is not the registered one."""
    other_epoch: list[str] = []
    held: list[Held] = []
    """Batches that were not sent: the pipeline has their blocks, and a quarantined transaction has their lines."""
    unreadable: list[str] = []
    """Items of the registry that are no batch, each with its reason."""

    @property
    def blocks(self) -> int:
        """Blocks that were sent again."""
        return sum(batch.blocks for batch in self.replayed)


async def replay(ports: AuditPorts, settings: Settings, batch_ids: Collection[str] | None) -> ReplayReport:
    """Send the named batches again, or all.

    Args:
        ports: the services. If the warehouse does not answer, held batches are sent too, which is harmless.
        settings: epoch and the audit's times.
        batch_ids: the batches; None means every batch of this epoch.

    Raises:
        ServiceUnavailable: registry or S3 do not answer. Batches that were sent before stay sent, which is harmless.
    """
    report = ReplayReport()
    held_by = await _holders(ports, settings.epoch)
    async for item in _chosen(ports, batch_ids, report):
        if item.epoch != settings.epoch:
            report.other_epoch.append(item.batch_id)
        elif (txn_id := held_by.get(item.batch_id)) is not None:
            report.held.append(Held(item.batch_id, txn_id))
        else:
            await _replay(ports, settings, item, report)
    return report


async def _holders(ports: AuditPorts, epoch: int) -> dict[str, str]:
    """Batch -> the quarantined transaction that holds lines of it (rule D2)."""
    try:
        delivery = await ports.warehouse.delivery(epoch)
    except OutsideError as exc:
        log.warning("the warehouse does not say which batches quarantined transactions hold", reason=str(exc))
        return {}
    lines = await StoredLedger(ports.store, epoch).of_quarantined(delivery)
    return {batch_id: txn_id for txn_id, of_batches in lines.items() for batch_id in of_batches}


async def _chosen(ports: AuditPorts, batch_ids: Collection[str] | None, report: ReplayReport) -> AsyncIterator[RegistryItem]:
    if batch_ids is None:
        async for item in readable(ports.registry.all_batches(), report.unreadable):
            yield item
        return
    for batch_id in batch_ids:
        try:
            found = await ports.registry.get(batch_id)
        except FormatInvalid as exc:
            report.unreadable.append(str(exc))
            continue
        if found is None:
            report.unknown.append(batch_id)
        else:
            yield found


async def _replay(ports: AuditPorts, settings: Settings, item: RegistryItem, report: ReplayReport) -> None:
    attempt = item.attempts + 1
    try:
        blocks = await asyncio.to_thread(cut_again, await ports.store.get(item.raw_key), item, attempt)
    except (ObjectMissing, FormatInvalid) as exc:
        log.error("raw file is not what was registered", batch_id=item.batch_id, raw_key=item.raw_key, error=str(exc))
        report.damaged.append(item.batch_id)
        return
    if not await _put(ports, blocks):
        report.refused.append(item.batch_id)
        return
    next_at_ms = ports.clock.now_ms() + pause_ms(attempt, audit_rules(settings))
    await ports.registry.record_attempt(item.batch_id, attempt, next_at_ms)
    report.replayed.append(Replayed(item.batch_id, attempt, len(blocks)))


async def _put(ports: AuditPorts, blocks: Sequence[bytes]) -> bool:
    """Put blocks, and refused ones again with growing pauses. Returns: whether Kinesis took every block."""
    left = list(blocks)
    for tries in range(1, TRIES + 1):
        outcomes = await ports.stream.put(left)
        left = [block for block, outcome in zip(left, outcomes, strict=True) if outcome.error is not None]
        if not left:
            return True
        await asyncio.sleep(BACKOFF.pause_s(tries))
    return False
