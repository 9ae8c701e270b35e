"""Sends batches once more: cut again from their raw files, put to Kinesis with the next attempt's number (rules A1, E7).

What the pipeline has already it reports and drops, so that this never changes a row; what it lacks it gets.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

import msgspec
import structlog

from agents.audit.auditor import audit_rules
from agents.audit.ports import AuditPorts
from app.core.audit.reconcile import pause_ms
from app.core.backoff import Backoff
from app.core.formats.batch import cut_again
from app.core.formats.registry_item import RegistryItem
from app.errors import FormatInvalid, ObjectMissing
from app.settings import Settings

log = structlog.get_logger(__name__)

TRIES: Final = 8
"""How often what Kinesis does not take is put again."""
BACKOFF: Final = Backoff(first_s=0.25)


class Replayed(msgspec.Struct, frozen=True):
    """A batch that Kinesis took whole once more."""

    batch_id: str
    attempt: int
    blocks: int


class ReplayReport(msgspec.Struct):
    """What was sent again."""

    replayed: list[Replayed] = []
    refused: list[str] = []
    """Batches of which Kinesis did not take every block, however often it was asked."""
    unknown: list[str] = []
    """Batches that the registry does not have."""
    damaged: list[str] = []
    """Batches whose raw file is missing or not what was registered."""
    other_epoch: list[str] = []

    @property
    def blocks(self) -> int:
        """Blocks that were sent again."""
        return sum(batch.blocks for batch in self.replayed)


async def replay(ports: AuditPorts, settings: Settings, batch_ids: Collection[str] | None) -> ReplayReport:
    """Send batches again, those named or all.

    Args:
        ports: where to read and put; the warehouse is not asked.
        settings: epoch and the audit's times.
        batch_ids: which; None for every batch of this epoch.

    Raises:
        ServiceUnavailable: registry or S3 do not answer; batches sent before stay sent, which is harmless.
    """
    report = ReplayReport()
    async for item in _chosen(ports, batch_ids, report):
        if item.epoch != settings.epoch:
            report.other_epoch.append(item.batch_id)
            continue
        await _replay(ports, settings, item, report)
    return report


async def _chosen(ports: AuditPorts, batch_ids: Collection[str] | None, report: ReplayReport) -> AsyncIterator[RegistryItem]:
    if batch_ids is None:
        async for item in ports.registry.all_batches():
            yield item
        return
    for batch_id in batch_ids:
        found = await ports.registry.get(batch_id)
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
    """Whether Kinesis took every block, those it refused being put again with growing pauses."""
    left = list(blocks)
    for tries in range(1, TRIES + 1):
        outcomes = await ports.stream.put(left)
        left = [block for block, outcome in zip(left, outcomes, strict=True) if outcome.error is not None]
        if not left:
            return True
        await asyncio.sleep(BACKOFF.pause_s(tries))
    return False
