"""Compares the registry with the ledger, completes covered batches and sends missing ones again (rules A1, A2, D2)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, NamedTuple, assert_never

import structlog
from prometheus_client import Counter as Metric
from pyroaring import BitMap

from agents.audit.audit_rules import audit_rules
from agents.audit.ports import AuditPorts
from agents.audit.registry_items import readable
from agents.audit.report import AuditReport, publish
from agents.audit.stored_ledger import BatchLines, Behind, StoredLedger
from app.adapters.warehouse_port import Delivery
from app.core.audit.reconcile import (
    AuditRules,
    BatchVerdict,
    Evidence,
    VerdictKind,
    coverage,
    delivery_lags,
    judge_batch,
    lacking_blocks,
    pause_ms,
    unread_blocks,
)
from app.core.formats.batch import cut_again
from app.core.formats.registry_item import Attempt, RegistryItem, with_attempt
from app.errors import AccessDenied, ChainBroken, FormatInvalid, NewerFormat, ObjectMissing, OutsideError
from app.settings import Settings
from app.shell.upgrade import UpgradeWaits, remedy

log = structlog.get_logger(__name__)

ROLE: Final = "audit"
CHUNK: Final = 200
"""Batches judged together: one query for their ledger, and one for their replays."""
COUNTED: Final = 1000
"""A report counts at most so many transactions behind delivery."""

VERDICTS = Metric("instream_audit_verdicts_total", "Open batches judged, by verdict", ["verdict"])
REFUSED = Metric("instream_audit_refused_blocks_total", "Replayed blocks that Kinesis did not take", ["error"])


class Judged(NamedTuple):
    """A batch with the verdict on it."""

    item: RegistryItem
    verdict: BatchVerdict
    evidence: Evidence


class Auditor:
    """One auditor. Two at once only make needless replays: every change is idempotent."""

    def __init__(self, ports: AuditPorts, settings: Settings) -> None:
        self._ports = ports
        self._settings = settings
        self._stored = StoredLedger(ports.store, settings.epoch)
        self._upgrades = UpgradeWaits(ROLE)

    def waits_for(self) -> str | None:
        """The answer of /ready: the upgrade that the last round waits for, or None."""
        return self._upgrades.reason()

    def close(self) -> None:
        """Stop waiting for upgrades."""
        self._upgrades.clear()

    async def run(self) -> None:
        """Do round after round, AUDIT_INTERVAL_S between them, until this task is cancelled.

        The work of a round until then stays right, and the next round does the rest.
        """
        while True:
            await self.round()
            await asyncio.sleep(self._settings.audit_interval_s)

    async def round(self, grace_s: float | None = None) -> AuditReport:
        """Judge every open batch older than the grace (default: AUDIT_GRACE_S) once.

        Order of reads, chunk by chunk: open batches, then the progress of delivery, then ledgers, then the transactions
        behind delivery. A change in between can only make a batch more complete than its judgement says. If a service does
        not answer, the round ends and the report names it. Data of a newer version ends the round too; but a newer registry
        item makes only its own batch wait.

        Raises:
            AccessDenied: a permission is missing, so the worker ends with the reason.
        """
        rules = audit_rules(self._settings, grace_s)
        report = AuditReport()
        lagging: set[int] = set()
        try:
            async for some in self._open_batches(self._ports.clock.now_ms() - rules.grace_ms, report):
                lagging |= await self._judge_some(some, rules, report)
        except AccessDenied:
            raise
        except (OutsideError, ChainBroken) as exc:
            report.wait_for(f"{type(exc).__name__}: {exc}")
        except NewerFormat as exc:
            _wait_for_upgrade(exc, report)
        if lagging:
            await self._name_laggards(frozenset(lagging), report)
        self._note_upgrade(report)
        publish(report)
        return report

    async def _open_batches(self, before_ms: int, report: AuditReport) -> AsyncIterator[list[RegistryItem]]:
        """Our open batches received up to a moment, in chunks.

        Items that are no batch are skipped, and the report names them.
        """
        some: list[RegistryItem] = []
        try:
            async for item in readable(self._ports.registry.open_batches(before_ms + 1), report.unreadable):
                if self._is_ours(item, report):
                    some.append(item)
                if len(some) == CHUNK:
                    yield some
                    some = []
        except NewerFormat as exc:
            _wait_for_upgrade(exc, report)
        yield some

    def _note_upgrade(self, report: AuditReport) -> None:
        """Show in /ready, the log and the metric the upgrade that the round waits for."""
        if report.upgrade:
            self._upgrades.begin("audit round", NewerFormat(report.upgrade))
        else:
            self._upgrades.end("audit round")

    def _is_ours(self, item: RegistryItem, report: AuditReport) -> bool:
        if item.epoch == self._settings.epoch:
            return True
        report.other_epoch += 1
        report.name("other_epoch", item.batch_id)
        return False

    async def judge(self, items: Sequence[RegistryItem], rules: AuditRules) -> list[Judged]:
        """The verdict on each of some open batches, in their order; nothing is changed.

        Raises: what the services raise, and ChainBroken or NewerFormat for a chain that cannot be read.
        """
        delivery = await self._ports.warehouse.delivery(self._settings.epoch)
        stream_times_ms = {partition: reached.stream_time_ms for partition, reached in delivery.partitions.items()}
        evidence = await self._gather(items, delivery)
        behind = Behind(self._stored, delivery)
        judged = []
        for item in items:
            now_ms = self._ports.clock.now_ms()
            found = evidence[item.batch_id]
            verdict = judge_batch(item, found, stream_times_ms, rules, now_ms)
            if verdict.kind in {VerdictKind.REPLAY, VerdictKind.LOST}:  # look behind delivery only if a batch needs it
                places = lacking_blocks(item, coverage(item.line_count, found.entries)).values()
                unloaded, far = await behind.of({place.partition for place in places})
                found = found._replace(unloaded=_of_batch(unloaded, item.batch_id))
                verdict = delivery_lags(far) if far else judge_batch(item, found, stream_times_ms, rules, now_ms)
            judged.append(Judged(item, verdict, found))
        return judged

    async def _judge_some(self, items: Sequence[RegistryItem], rules: AuditRules, report: AuditReport) -> set[int]:
        """Judge and act; the covered batches are completed side by side. Returns: the partitions that batches wait for."""
        if not items:
            return set()
        lagging: set[int] = set()
        judged = await self.judge(items, rules)
        covered = [item.batch_id for item, verdict, _ in judged if verdict.kind is VerdictKind.COMPLETE]
        now_ms = self._ports.clock.now_ms()
        completing = (self._ports.registry.complete(batch_id, now_ms) for batch_id in covered)
        for done in await asyncio.gather(*completing, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done
        for item, verdict, found in judged:
            lagging |= verdict.lagging
            if excess := coverage(item.line_count, found.entries).excess:
                report.excess += 1
                report.name("excess", item.batch_id)
                log.error("ledger has more than the batch", batch_id=item.batch_id, excess="; ".join(excess))
            if unread := unread_blocks(item, found):
                report.dead_lettered += 1
                report.name("dead_lettered", item.batch_id)
                log.error("blocks cannot be read", batch_id=item.batch_id, blocks=unread)
            report.judged += 1
            if verdict.kind is not VerdictKind.COMPLETE:
                report.note_age((now_ms - item.received_at_ms) / 1000)
            VERDICTS.labels(verdict.kind.value).inc()
            await self._act(item, verdict, rules, report)
        return lagging

    async def _gather(self, items: Sequence[RegistryItem], delivery: Delivery) -> dict[str, Evidence]:
        """The lines of each batch in the warehouse and in the ledger files of quarantined transactions."""
        batch_ids = [item.batch_id for item in items]
        replays = await self._ports.warehouse.replayed_blocks(batch_ids)
        dead_letters = await self._ports.warehouse.dead_letters(batch_ids)
        entries = await self._ports.warehouse.entries(batch_ids)
        quarantined = await self._stored.of_quarantined(delivery)
        return {
            batch_id: Evidence(
                entries.get(batch_id, []),
                replays.get(batch_id, frozenset()),
                {},
                _of_batch(quarantined, batch_id),
                dead_letters.get(batch_id, {}),
            )
            for batch_id in batch_ids
        }

    async def _act(self, item: RegistryItem, verdict: BatchVerdict, rules: AuditRules, report: AuditReport) -> None:
        match verdict.kind:
            case VerdictKind.COMPLETE:  # marked before, with the others
                report.completed += 1
            case VerdictKind.WAIT:
                report.waiting += 1
                if not verdict.lagging:
                    report.wait_for(verdict.reason)
            case VerdictKind.HELD:
                report.held += 1
                report.name("held", item.batch_id)
                report.held_by += [txn_id for txn_id in verdict.txn_ids if txn_id not in report.held_by]
            case VerdictKind.LOST:
                report.lost += 1
                report.name("lost", item.batch_id)
                log.error("lines are lost", batch_id=item.batch_id, reason=verdict.reason)
            case VerdictKind.REPLAY:
                await self._replay(item, verdict, rules, report)
            case VerdictKind.EXCESS:  # counted and alarmed for every verdict
                pass
            case _:
                assert_never(verdict.kind)

    async def _replay(self, item: RegistryItem, verdict: BatchVerdict, rules: AuditRules, report: AuditReport) -> None:
        """Put the whole batch again, cut into the same blocks. The attempt counts if Kinesis took every record."""
        blocks = await self._blocks(item, verdict.attempt)
        if blocks is None:
            report.damaged += 1
            report.name("damaged", item.batch_id)
            return
        outcomes = await self._ports.stream.put(blocks)
        errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
        for error, count in errors.items():
            REFUSED.labels(error).inc(count)
        if errors:
            report.refused += 1
            report.wait_for(f"Kinesis refused blocks: {', '.join(sorted(errors))}")
            log.warning("replay not taken whole", batch_id=item.batch_id, attempt=verdict.attempt, errors=dict(errors))
            return
        now_ms = self._ports.clock.now_ms()
        attempts = with_attempt(item, Attempt(verdict.attempt, now_ms, verdict.reason))
        await self._ports.registry.record_attempt(item.batch_id, attempts, now_ms + pause_ms(verdict.attempt, rules))
        report.replayed += 1
        log.info("batch replayed", batch_id=item.batch_id, attempt=verdict.attempt, reason=verdict.reason)

    async def _blocks(self, item: RegistryItem, attempt: int) -> list[bytes] | None:
        """The batch's blocks, cut again; None, with an alarm, if its raw file is not the registered one."""
        try:
            raw = await self._ports.store.get(item.raw_key)
            return await asyncio.to_thread(cut_again, raw, item, attempt)
        except ObjectMissing:
            log.error("raw file is missing", batch_id=item.batch_id, raw_key=item.raw_key)
        except FormatInvalid as exc:
            log.error("raw file is not what was registered", batch_id=item.batch_id, raw_key=item.raw_key, error=str(exc))
        return None

    async def _name_laggards(self, partitions: frozenset[int], report: AuditReport) -> None:
        """Report the roles that are behind on the partitions that batches wait for."""
        behind: dict[str, int] = {}
        try:
            delivery = await self._ports.warehouse.delivery(self._settings.epoch)
            waiting = 0
            for partition in sorted(partitions):
                waiting += len(await self._stored.numbers_behind(partition, delivery.number(partition), COUNTED))
            behind = {"delivery": waiting, **await self._ports.lags(partitions)}
        except AccessDenied:
            raise
        except (OutsideError, ChainBroken) as exc:
            report.wait_for(f"{type(exc).__name__}: {exc}")
        except NewerFormat as exc:
            _wait_for_upgrade(exc, report)
        roles = [f"{role} ({count} behind)" for role, count in behind.items() if count]
        report.wait_for(f"partitions {sorted(partitions)}: {', '.join(roles) or 'bridge'}")


def _wait_for_upgrade(exc: NewerFormat, report: AuditReport) -> None:
    report.upgrade = report.upgrade or str(exc)
    report.wait_for(remedy(ROLE, exc))


def _of_batch(transactions: Mapping[str, BatchLines], batch_id: str) -> dict[str, BitMap]:
    return {txn_id: lines[batch_id] for txn_id, lines in transactions.items() if batch_id in lines}
