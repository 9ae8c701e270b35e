"""Repair: audit, plan, mend, audit again (rules R1 to R6).

A repair changes nothing that the deep audit does not call damaged. Each mend looks at its damage again before it changes
anything, writes only what its source proves, and can be done twice or beside another repair. A repair that dies leaves some
damage mended and the rest as it was; the next one goes on.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from agents.audit.deep.audit import EVERYTHING, audit_deep, show_nothing
from agents.audit.deep.report import Show, Span
from agents.audit.ports import AuditPorts
from agents.audit.repair.batches import BatchMends
from agents.audit.repair.chains import Chains
from agents.audit.repair.files import FileMends
from agents.audit.repair.lines import LineMends
from agents.audit.repair.loaded import LoadedMends
from agents.audit.repair.log_again import RowsLog
from agents.audit.repair.ports import RepairPorts
from agents.audit.repair.report import MendedDifference, RepairReport, mended
from agents.audit.replay import Chosen, ReplayReport, replay
from agents.delivery.load import LoadStopped, WarehouseLoad
from app.core.audit.differences import Difference
from app.core.repair.plan import ACTIONS, Action, Mend, plan_mends
from app.core.whole_table import whole_table
from app.errors import ChainBroken, FormatInvalid, NewerFormat, OutsideError, RepairRefused
from app.settings import Settings
from app.topics import topics_of

log = structlog.get_logger(__name__)

NOT_DONE: Final = (ChainBroken, FormatInvalid, LoadStopped, NewerFormat, OutsideError, RepairRefused)
"""The errors of a mend that is not done; the other mends go on."""
ROUNDS: Final = 5
"""Damage can hide damage: behind a lost record the audit cannot see the rows of its transaction."""
STILL_THERE: Final = "the deep audit still finds it"

_Identity = tuple[object, ...]


async def repair(
    ports: RepairPorts, settings: Settings, span: Span = EVERYTHING, *, apply: bool = False, show: Show = show_nothing
) -> RepairReport:  # fmt: skip
    """Find what is damaged and, if `apply`, mend it.

    Raises:
        ServiceUnavailable: S3, the registry or the warehouse does not answer the audit.
    """
    found = await audit_deep(ports.deep, settings, span, show)
    if not apply:
        planned = [mended(each, ACTIONS[each.kind]) for each in found.differences]
        return RepairReport(applied=False, differences=planned, unchecked=found.unchecked)
    known: dict[_Identity, MendedDifference] = {}
    before: set[_Identity] = set()
    async with _Mender(ports, settings) as mender:
        for _ in range(ROUNDS):
            there = {_identity(each) for each in found.differences}
            wanted = [each for each in found.differences if not (_identity(each) in known and _is_sent(each))]
            if not wanted or there == before:
                break
            reasons = await mender.mend(wanted)
            known |= {
                _identity(each): mended(each, ACTIONS[each.kind], done=True, reason=reasons.get(n, ""))
                for n, each in enumerate(wanted)
            }
            before, found = there, await audit_deep(ports.deep, settings, span, show)
    left = {_identity(each) for each in found.differences}
    answer = [_judged(each, is_left=identity in left) for identity, each in known.items()]
    return RepairReport(applied=True, differences=answer, left=found.differences, unchecked=found.unchecked)


def _is_sent(each: Difference) -> bool:
    """Whether a mend of it takes minutes to show: it is not done a second time."""
    return ACTIONS[each.kind] is Action.REPLAY


def _judged(each: MendedDifference, *, is_left: bool) -> MendedDifference:
    reason = each.reason or (STILL_THERE if is_left else "")
    return msgspec.structs.replace(each, done=not reason, reason=reason)


def _identity(each: Difference) -> _Identity:
    return each.kind, each.batch_id, each.flow, each.txn_id, each.partition, each.number, each.offset


class _Mender:
    """Does mends on one set of ports."""

    def __init__(self, ports: RepairPorts, settings: Settings) -> None:
        deep, epoch = ports.deep, settings.epoch
        self._ports = ports
        self._settings = settings
        self._load = WarehouseLoad(deep.store, ports.connect, settings, deep.clock)
        rows = RowsLog(deep.logs, topics_of(settings).rows.name, deep.store, epoch)
        self._chains = Chains(deep.store, rows, epoch, deep.clock)
        batches, chains, lines = BatchMends(deep, settings), self._chains, LineMends(ports, settings, self._chains)
        files = FileMends(ports, settings, chains, rows)
        loaded = LoadedMends(self._load, chains, deep.store, epoch)
        self._doings: Mapping[Action, Callable[[Mend], Awaitable[str | None]]] = whole_table(Action, {
            Action.RESTORE_RAW: lambda mend: batches.restore_raw(mend.batch_id),
            Action.REGISTER: lambda mend: batches.register(mend.batch_id),
            Action.REPLACE_STEP: self._replace_steps,
            Action.RESTORE_RECORD: self._restore_record,
            Action.RESTORE_FILE: lambda mend: files.restore(mend.partition, mend.number, mend.flows),
            Action.WRITE_MANIFESTS: lambda mend: chains.write_manifests(mend.partition, mend.number),
            Action.WRITE_LOG: lambda mend: loaded.write_log(mend.partition, mend.number),
            Action.RELOAD: lambda mend: loaded.reload(mend.txn_id, mend.flows),
            Action.RELEASE: lambda mend: loaded.release(mend.partition, mend.number),
            Action.RESTORE_LINES: lambda mend: lines.restore(mend.batch_ids),
            Action.SETTLE_LINES: lambda mend: lines.doubled(mend.batch_id),
            Action.REPLAY: self._replay,
        })  # fmt: skip
        """Each answers why the mend is not done, or nothing."""

    async def __aenter__(self) -> "_Mender":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._load.close()

    async def mend(self, differences: Sequence[Difference]) -> dict[int, str]:
        """Mend differences. Returns: position -> why that one is not mended."""
        reasons: dict[int, str] = {}
        for mend in plan_mends(differences):
            if reason := await self._try_to(mend):
                reasons |= dict.fromkeys(mend.differences, reason)
        return reasons

    async def _try_to(self, mend: Mend) -> str:
        """Do a mend. Returns: why it is not done, or an empty text."""
        try:
            return await self._doings[mend.action](mend) or ""
        except NOT_DONE as exc:
            reason = f"{exc}" or type(exc).__name__
            log.warning("not mended", action=mend.action.value, batch=mend.batch_id, txn=mend.txn_id, reason=reason)
            return reason

    async def _restore_record(self, mend: Mend) -> None:
        if mend.partition is None or mend.number is None:
            raise RepairRefused("the difference names no number")
        await self._chains.restore_record(mend.partition, mend.number)

    async def _replace_steps(self, mend: Mend) -> str:
        if mend.partition is None:
            raise RepairRefused("the difference names no partition")
        return "; ".join((await self._ports.replace_steps(mend.partition)).values())

    async def _replay(self, mend: Mend) -> str:
        """Send a batch again: the blocks that could not be read are taken now, and the others are dropped."""
        deep = self._ports.deep

        async def no_lags(_: frozenset[int]) -> dict[str, int]:
            return {}

        ports = AuditPorts(deep.store, deep.registry, self._ports.stream, deep.ledger, no_lags, deep.clock)
        report = await replay(ports, self._settings, Chosen(batch_ids=[mend.batch_id]))
        if report.replayed:
            return "the batch is sent again: its lines come within minutes"
        return f"the batch was not sent: {_why_not(report)}"


def _why_not(report: ReplayReport) -> str:
    kinds = ("refused", "unknown", "damaged", "other_epoch", "held", "unreadable")
    return next((kind for kind in kinds if getattr(report, kind)), "nothing was there")
