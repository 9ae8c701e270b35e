"""The states of batches for `instream audit --since --until`: counts, and the history of each batch that is worth a look."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from agents.audit.audit_rules import audit_rules
from agents.audit.auditor import CHUNK, Auditor, Judged
from agents.audit.deep.report import Span
from agents.audit.ports import AuditPorts
from agents.audit.registry_items import readable
from app.core.audit.reconcile import VerdictKind, coverage
from app.core.formats.batch import batch_time_ms
from app.core.formats.registry_item import BatchState, RegistryItem
from app.settings import Settings

SHOWN: Final = 1000
"""The answer has the histories of at most so many batches."""


class AttemptShown(msgspec.Struct, frozen=True):
    """A replay of a batch."""

    number: int
    at_ms: int
    reason: str
    """Why the batch was sent again."""
    result: str
    """What came of it."""


class BatchShown(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is open, or that was sent again."""

    batch_id: str
    received_at_ms: int
    lines: int
    state: BatchState
    verdict: VerdictKind
    reason: str
    """Of the verdict; empty for complete."""
    missing: int = 0
    """Lines without a row in the warehouse's ledger."""
    attempts: int = 0
    completed_at_ms: int = 0
    history: list[AttemptShown] = []


class AuditStates(msgspec.Struct, kw_only=True):
    """The batches of a span. Nothing was changed."""

    batches: int = 0
    lines: int = 0
    open: int = 0
    complete: int = 0
    verdicts: dict[str, int] = {}
    """Verdict on the open batches -> how many. `complete`: covered, and the audit has not marked them yet."""
    young: int = 0
    """Open batches that are younger than the grace: the audit does not judge them yet."""
    attempts: int = 0
    """Replays of all batches."""
    other_epoch: int = 0
    """Open batches of another epoch: they were left behind."""
    unreadable: list[str] = []
    """Items of the registry that are no batch, each with its reason."""
    shown: list[BatchShown] = []
    """Open batches that are older than the grace, and batches that were sent again; at most 1000."""
    not_shown: int = 0

    @property
    def is_off(self) -> bool:
        """Whether anything is not as it should be: an open batch that is old enough, or an item that is none."""
        old = self.open - self.young - self.verdicts.get(VerdictKind.COMPLETE.value, 0)
        return bool(old or self.unreadable)


async def read_states(ports: AuditPorts, settings: Settings, span: Span) -> AuditStates:
    """The states of the batches of a span, by the time in their ids.

    Raises:
        OutsideError: a service does not answer.
        ChainBroken: a chain of transactions cannot be read.
        NewerFormat: a newer version registered a batch, or wrote a record.
    """
    states, auditor = AuditStates(), Auditor(ports, settings)
    some: list[RegistryItem] = []
    async for item in _of_span(ports, span, states):
        _count(states, item)
        if item.state is BatchState.COMPLETE:
            if item.attempts:
                _show(states, _shown(item, VerdictKind.COMPLETE, "", 0))
        elif item.epoch != settings.epoch:
            states.other_epoch += 1
        else:
            some.append(item)
        if len(some) == CHUNK:
            await _judge(auditor, settings, ports, some, states)
            some = []
    await _judge(auditor, settings, ports, some, states)
    states.shown.sort(key=lambda each: each.batch_id)
    return states


async def _of_span(ports: AuditPorts, span: Span, states: AuditStates) -> AsyncIterator[RegistryItem]:
    async for item in readable(ports.registry.all_batches(), states.unreadable):
        if batch_time_ms(item.batch_id) in span:
            yield item


async def _judge(
    auditor: Auditor, settings: Settings, ports: AuditPorts, items: Sequence[RegistryItem], states: AuditStates
) -> None:  # fmt: skip
    if not items:
        return
    rules = audit_rules(settings)
    before_ms = ports.clock.now_ms() - rules.grace_ms
    for judged in await auditor.judge(items, rules):
        kind = judged.verdict.kind
        is_young = judged.item.received_at_ms > before_ms
        states.young += is_young and kind is not VerdictKind.COMPLETE
        states.verdicts[kind.value] = states.verdicts.get(kind.value, 0) + 1
        if judged.item.attempts or (kind is not VerdictKind.COMPLETE and not is_young):
            _show(states, _of(judged))


def _count(states: AuditStates, item: RegistryItem) -> None:
    states.batches += 1
    states.lines += item.line_count
    states.attempts += item.attempts
    if item.state is BatchState.OPEN:
        states.open += 1
    else:
        states.complete += 1


def _show(states: AuditStates, shown: BatchShown) -> None:
    if len(states.shown) < SHOWN:
        states.shown.append(shown)
    else:
        states.not_shown += 1


def _of(judged: Judged) -> BatchShown:
    missing = len(coverage(judged.item.line_count, judged.evidence.entries).missing)
    return _shown(judged.item, judged.verdict.kind, judged.verdict.reason, missing)


def _shown(item: RegistryItem, verdict: VerdictKind, reason: str, missing: int) -> BatchShown:
    history = [
        AttemptShown(each.number, each.at_ms, each.reason, _result(item, place, verdict, missing))
        for place, each in enumerate(item.history)
    ]
    return BatchShown(
        batch_id=item.batch_id, received_at_ms=item.received_at_ms, lines=item.line_count, state=item.state, verdict=verdict,
        reason=reason, missing=missing, attempts=item.attempts, completed_at_ms=item.completed_at_ms, history=history,
    )  # fmt: skip


def _result(item: RegistryItem, place: int, verdict: VerdictKind, missing: int) -> str:
    """What came of an attempt: the next one's reason, or the state now."""
    if place + 1 < len(item.history):
        return f"not complete: {item.history[place + 1].reason}"
    if verdict is VerdictKind.COMPLETE:
        return "complete"
    return f"{missing} of {item.line_count} lines are missing until now"
