"""Erases visitors (rule R7): search, write down what will be erased, then transactions, raw files, certificates.

Only batches that the audit has marked as complete are touched: every line of theirs has its outcome in the warehouse, so
nothing of theirs is in a window, in a file that is not loaded, or on a topic that somebody has yet to read. Everything else
waits, and the erasure is run again.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, NamedTuple

import msgspec
import structlog
from pyroaring import BitMap

from agents.audit.deep.audit import EVERYTHING, show_nothing
from agents.audit.deep.report import Show, Span
from agents.audit.erase.certificates import certify_again, hours_to_certify
from agents.audit.erase.ports import ErasePorts, EraseReport, FoundLines, Left
from agents.audit.erase.raw_files import RawErasing
from agents.audit.erase.search import VisitorSearch
from agents.audit.erase.stored import read_erasures
from agents.audit.erase.transactions import TransactionErasing, files_of
from agents.delivery.load import LoadStopped, WarehouseLoad
from app.core.audit.reconcile import read_lines
from app.core.formats.batch import batch_time_ms
from app.core.formats.erasure import Erasure, digest_of_visitor, encode_erasure, packed
from app.core.formats.flows import ERASED
from app.core.formats.object_keys import erasure_key, raw_key
from app.errors import ChainBroken, FormatInvalid, NewerFormat, OutsideError, RepairRefused
from app.settings import Settings

log = structlog.get_logger(__name__)

NOT_DONE: Final = (ChainBroken, FormatInvalid, LoadStopped, NewerFormat, OutsideError, RepairRefused)
"""The errors of a part that is not erased; the other parts go on."""


class ErasureRequest(NamedTuple):
    """What is to be erased."""

    visitor_ids: Sequence[str]
    span: Span = EVERYTHING
    """Of the batches."""


async def erase(
    ports: ErasePorts, settings: Settings, wanted: ErasureRequest, *, apply: bool = False, show: Show = show_nothing
) -> EraseReport:  # fmt: skip
    """Find the lines of some visitors and, if `apply`, erase them.

    Effects, in order, and what a crash right after each leaves:
      1 finish the erasures that died                         nothing new
      2 PUT erasures/<id>.json                                a plan: the next run, for whatever visitor, carries it out
      3 each transaction (see `transactions.py`)              its lines are `erased` in the ledger, and others follow
      4 each raw file (see `raw_files.py`)                    the same
      5 certificates that were right are made again           certificates that differ from the books, until the next run
      6 PUT erasures/<id>.json as finished                    nothing

    Guarantees: run again, it goes on; what is erased does not come back by a repair, a replay or a rebuild.

    Raises:
        ServiceUnavailable: S3, the registry or the warehouse does not answer the search.
    """
    report = EraseReport(applied=apply)
    async with _Eraser(ports, settings) as eraser:
        for erasure in await eraser.unfinished():  # 1
            report.resumed.append(erasure.erasure_id)
            if apply:
                report.refused += await eraser.carry_out(erasure)
        found = await VisitorSearch(ports.deep, settings, wanted.span, show).find(wanted.visitor_ids)
        report.waiting, report.refused = found.waiting, [*report.refused, *found.refused]
        await eraser.tell(found, report)
        if not apply or not found.lines:
            return report
        erasure = await eraser.write_down(found.lines, wanted.visitor_ids)  # 2
        report.erasure_id = erasure.erasure_id
        report.refused += await eraser.carry_out(erasure)
    return report


class _Eraser:
    """Carries erasures out, on one set of ports."""

    def __init__(self, ports: ErasePorts, settings: Settings) -> None:
        self._ports = ports.deep
        self._settings = settings
        self._load = WarehouseLoad(ports.deep.store, ports.connect, settings, ports.deep.clock)
        self._transactions = TransactionErasing(ports.deep, self._load, settings)
        self._raw_files = RawErasing(ports.deep, self._load, settings)

    async def __aenter__(self) -> "_Eraser":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._load.close()

    async def unfinished(self) -> list[Erasure]:
        """The erasures that died, the oldest first."""
        return [each for each in await read_erasures(self._ports.store) if each.finished_at_ms is None]

    async def tell(self, found: FoundLines, report: EraseReport) -> None:
        """Fill in how much of what is erased."""
        outcomes: Counter[str] = Counter()
        for own in (await self._outcomes(found.lines)).values():
            report.files += files_of(list(own))
            for outcome, lines in own.items():
                outcomes[outcome] += lines
        report.outcomes = dict(sorted(outcomes.items()))
        report.lines = {batch_id: len(lines) for batch_id, lines in found.lines.items()}
        for batch_id in found.lines:
            key = raw_key(batch_id, batch_time_ms(batch_id))
            report.raw_files += await self._ports.store.head(key) is not None

    async def write_down(self, lines: dict[str, BitMap], visitor_ids: Sequence[str]) -> Erasure:
        """Store the record of a new erasure."""
        now_ms = self._ports.clock.now_ms()
        erasure = Erasure(
            erasure_id=f"{now_ms:013d}-{secrets.token_hex(8)}", made_at_ms=now_ms, made_by=version("instream"),
            visitors=sorted({digest_of_visitor(visitor_id) for visitor_id in visitor_ids}), lines=packed(lines),
            certificates=await hours_to_certify(self._ports, lines, self._key),
        )  # fmt: skip
        await self._store(erasure)
        return erasure

    async def carry_out(self, erasure: Erasure) -> list[Left]:
        """Do everything of an erasure that is not done. Returns: the parts that are not done, with the reasons."""
        lines, left = erasure.line_sets(), list[Left]()
        for txn_id in sorted(await self._outcomes(lines, with_erased=True)):  # 3
            try:
                await self._transactions.erase(txn_id, erasure, lines)
            except NOT_DONE as exc:
                left.append(Left(txn_id=txn_id, reason=f"{exc}" or type(exc).__name__))
        for batch_id, some in lines.items():  # 4
            try:
                await self._raw_files.erase(batch_id, some)
            except NOT_DONE as exc:
                left.append(Left(batch_id=batch_id, lines=len(some), reason=f"{exc}" or type(exc).__name__))
        try:
            if not left:
                await certify_again(self._ports, erasure.certificates, self._key)  # 5
        except NOT_DONE as exc:
            left.append(Left(reason=f"certificates are not made again: {exc}"))
        if not left:
            await self._store(msgspec.structs.replace(erasure, finished_at_ms=self._ports.clock.now_ms()))  # 6
        log.info("erased", erasure=erasure.erasure_id, batches=len(lines), not_done=len(left))
        return left

    # --- inside

    @property
    def _key(self) -> str | None:
        return self._settings.certificate_key

    async def _store(self, erasure: Erasure) -> None:
        await self._ports.store.put(erasure_key(erasure.erasure_id), encode_erasure(erasure))

    async def _outcomes(self, lines: dict[str, BitMap], *, with_erased: bool = False) -> dict[str, Counter[str]]:
        """Transaction -> outcome -> how many of the lines it has."""
        found: dict[str, Counter[str]] = {}
        for batch_id, entries in (await self._ports.rows.ledger(sorted(lines))).items():
            for entry in entries:
                own = (read_lines(entry.line_set) or BitMap()) & lines[batch_id]
                if own and (with_erased or entry.outcome != ERASED):
                    found.setdefault(entry.txn_id, Counter())[entry.outcome] += len(own)
        return found
