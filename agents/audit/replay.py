"""Sends batches once more: cut again from their raw files, put to Kinesis with the next attempt's number (rules A1, E7).

The pipeline reports and drops the blocks that it has already, so a replay never changes a row; it takes the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from agents.audit.audit_rules import audit_rules
from agents.audit.ports import AuditPorts
from agents.audit.registry_items import readable
from agents.audit.stored_ledger import StoredLedger
from app.clock import Clock
from app.core.audit.reconcile import pause_ms
from app.core.backoff import Backoff
from app.core.formats.batch import cut_again
from app.core.formats.decoding import LATEST_MS
from app.core.formats.registry_item import Attempt, RegistryItem, with_attempt
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
    lines: int


class HeldBatch(msgspec.Struct, frozen=True):
    """A batch with lines in a quarantined transaction: only the transaction's release brings them into the warehouse."""

    batch_id: str
    txn_id: str


class ReplayReport(msgspec.Struct):
    """The result of a replay."""

    dry_run: bool = False
    """Whether nothing was sent: `replayed` has the batches that would be."""
    last: str = ""
    """The last batch that is done; a replay that was interrupted goes on behind it."""
    replayed: list[Replayed] = []
    refused: list[str] = []
    """Batches of which Kinesis did not take every block, after all tries."""
    unknown: list[str] = []
    """Batches that are not in the registry."""
    damaged: list[str] = []
    """Batches whose raw file is missing or is not the registered one."""
    other_epoch: list[str] = []
    held: list[HeldBatch] = []
    """Batches that were not sent: the pipeline has their blocks, and a quarantined transaction has their lines."""
    unreadable: list[str] = []
    """Items of the registry that are no batch, each with its reason."""

    @property
    def blocks(self) -> int:
        """Blocks that were sent again."""
        return sum(batch.blocks for batch in self.replayed)

    @property
    def lines(self) -> int:
        """Lines that were sent again."""
        return sum(batch.lines for batch in self.replayed)


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The batches to send: those that are named, or all that were received in a time range."""

    batch_ids: Sequence[str] | None = None
    """Batches by name, in any order; None for every batch of this epoch in the range."""
    since_ms: int = 0
    until_ms: int = LATEST_MS
    """First received_at behind the range."""
    after: str = ""
    """Only batches whose ids sort behind this one: a replay that was interrupted goes on there."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay is done."""

    dry_run: bool = False
    """Whether nothing is sent, and only counted."""
    lines_per_s: float | None = None
    """Most lines a second; None for as fast as it goes."""


EVERY: Final = Chosen()
AT_ONCE: Final = Terms()


async def replay(
    ports: AuditPorts,
    settings: Settings,
    chosen: Chosen,
    terms: Terms = AT_ONCE,
    show: Callable[[ReplayReport, int], None] = lambda *_: None,
) -> ReplayReport:
    """Send batches again, in the order of their ids, which is that of their times.

    Args:
        ports: the services. If the warehouse does not answer, held batches are sent too, which is harmless.
        settings: epoch and the audit's times.
        chosen: the batches.
        terms: pace, or only counting.
        show: gets the report so far and the number of all chosen batches, after each batch.

    Raises:
        ServiceUnavailable: registry or S3 do not answer. Batches that were sent before stay sent, which is harmless.
    """
    report = ReplayReport(dry_run=terms.dry_run)
    held_by = await _holders(ports, settings.epoch)
    batch_ids = await _find(ports, settings, chosen, report)
    pace = _Pace(ports.clock, terms)
    for batch_id in batch_ids:
        item = await _read(ports, batch_id, report)
        if item is not None:
            await _send(ports, settings, item, held_by.get(batch_id), report)
            await pace.after(item.line_count)
        report.last = batch_id
        show(report, len(batch_ids))
    return report


class _Pace:
    """Waits, so that no more lines a second are sent than the terms say."""

    def __init__(self, clock: Clock, terms: Terms) -> None:
        self._clock = clock
        self._lines_per_s = None if terms.dry_run else terms.lines_per_s
        self._began_s = clock.monotonic_s()
        self._lines = 0

    async def after(self, lines: int) -> None:
        """Return when as much time has passed as all lines so far may take."""
        if self._lines_per_s is not None:
            self._lines += lines
            ahead_s = self._began_s + self._lines / self._lines_per_s - self._clock.monotonic_s()
            await asyncio.sleep(max(0.0, ahead_s))


async def _holders(ports: AuditPorts, epoch: int) -> dict[str, str]:
    """Batch -> the quarantined transaction that holds lines of it (rule D2)."""
    try:
        delivery = await ports.warehouse.delivery(epoch)
    except OutsideError as exc:
        log.warning("the warehouse does not say which batches quarantined transactions hold", reason=str(exc))
        return {}
    lines = await StoredLedger(ports.store, epoch).of_quarantined(delivery)
    return {batch_id: txn_id for txn_id, of_batches in lines.items() for batch_id in of_batches}


async def _find(ports: AuditPorts, settings: Settings, chosen: Chosen, report: ReplayReport) -> list[str]:
    """The ids of the chosen batches, in their order; a batch of another epoch is only counted if it is named."""
    if chosen.batch_ids is not None:
        return sorted({batch_id for batch_id in chosen.batch_ids if batch_id > chosen.after})
    found = []
    async for item in readable(ports.registry.all_batches(), report.unreadable):
        if item.batch_id > chosen.after and chosen.since_ms <= item.received_at_ms < chosen.until_ms:
            if item.epoch == settings.epoch:
                found.append(item.batch_id)
            else:
                report.other_epoch.append(item.batch_id)
    return sorted(found)


async def _read(ports: AuditPorts, batch_id: str, report: ReplayReport) -> RegistryItem | None:
    """A batch in the registry; None, and in the report, if it is not there or is no batch."""
    try:
        found = await ports.registry.get(batch_id)
    except FormatInvalid as exc:
        report.unreadable.append(str(exc))
        return None
    if found is None:
        report.unknown.append(batch_id)
    return found


async def _send(
    ports: AuditPorts, settings: Settings, item: RegistryItem, held_by: str | None, report: ReplayReport
) -> None:
    if item.epoch != settings.epoch:
        report.other_epoch.append(item.batch_id)
    elif held_by is not None:
        report.held.append(HeldBatch(item.batch_id, held_by))
    elif report.dry_run:
        report.replayed.append(Replayed(item.batch_id, item.attempts + 1, len(item.blocks), item.line_count))
    else:
        await _replay(ports, settings, item, report)


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
    now_ms = ports.clock.now_ms()
    attempts = with_attempt(item, Attempt(attempt, now_ms, "instream replay"))
    await ports.registry.record_attempt(item.batch_id, attempts, now_ms + pause_ms(attempt, audit_rules(settings)))
    report.replayed.append(Replayed(item.batch_id, attempt, len(blocks), item.line_count))


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
