"""Writes the certificate of an hour once every batch of it is complete (rule A4).

It asks the registry and the warehouse's ledger, as the audit's rounds do; `instream prove --hour` also reads the files and
the rows, and compares its answer with the certificate.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from agents.audit.hours import batches_of_hour, open_hours
from agents.audit.ports import AuditPorts
from app.adapters.ports import PutResult
from app.core.audit.certificate import HOUR_MS, Certificate, HourBooks, books_of, encode_certificate, hour_name
from app.core.audit.reconcile import LedgerLines
from app.core.formats.object_keys import certificate_key, hour_path, raw_prefix
from app.core.formats.registry_item import BatchState, RegistryItem
from app.errors import AccessDenied, FormatInvalid, NewerFormat, OutsideError
from app.settings import Settings
from app.shell.upgrade import UpgradeWaits

log = structlog.get_logger(__name__)

ROLE: Final = "audit"
LOOKED_BACK: Final = 7 * 24
"""Hours before now that may still get a certificate: as long as blocks are known, the audit sends them again."""
WRONG_PAUSE_MS: Final = 600_000
"""The pause before an hour whose books do not balance is read again."""
CHUNK: Final = 200
"""Batches asked for together."""

CERTIFIED = Counter("instream_audit_certificates_total", "Certificates of hours that the audit wrote")
LAST_HOUR = Gauge("instream_audit_certified_hour_seconds", "End of the newest hour with a certificate, unix time")
UNBALANCED = Gauge("instream_audit_unbalanced_hours", "Hours without open batches whose books do not balance")


class Certifier:
    """Certifies hours, the oldest first; an hour has one certificate for good."""

    def __init__(self, ports: AuditPorts, settings: Settings) -> None:
        self._ports = ports
        self._settings = settings
        self._upgrades = UpgradeWaits(ROLE)
        self._done: set[int] | None = None
        """Hours that have a certificate; None before the first round."""
        self._empty: set[int] = set()
        """Hours in which no batch was found."""
        self._wrong: dict[int, int] = {}
        """Hour whose books do not balance -> the moment at which it is looked at again."""

    def waits_for(self) -> str | None:
        """The answer of /ready: the upgrade that the last round waits for, or None."""
        return self._upgrades.reason()

    def close(self) -> None:
        """Stop waiting for upgrades."""
        self._upgrades.clear()

    async def run(self) -> None:
        """Do round after round, AUDIT_INTERVAL_S between them, until this task is cancelled. A round may be cut anywhere."""
        while True:
            await self.try_round()
            await asyncio.sleep(self._settings.audit_interval_s)

    async def try_round(self) -> None:
        """Do a round; if a service does not answer, the next one goes on.

        Raises:
            AccessDenied: a permission is missing, so the worker ends with the reason.
        """
        try:
            await self.round()
            self._upgrades.end("certificates")
        except AccessDenied:
            raise
        except OutsideError as exc:
            log.info("certificates wait", reason=f"{type(exc).__name__}: {exc}")
        except NewerFormat as exc:
            self._upgrades.begin("certificates", exc)
        except FormatInvalid as exc:
            log.error("certificates wait for a registry item that is no batch", reason=str(exc), alarm=True)

    async def round(self) -> list[Certificate]:
        """Certify every hour that is over, past the grace, and has no open batch. Returns: the new certificates.

        Its only effect, for each hour, is a PUT of the certificate if none is there. A crash before it leaves the hour to
        the next round; a crash after it leaves a certificate that the next round finds. Two auditors write the same books,
        and the first one's certificate stays.

        Raises:
            OutsideError: a service does not answer; the next round goes on.
                NewerFormat: a newer version registered a batch.
            FormatInvalid: a registry item is no batch.
        """
        now_ms = self._ports.clock.now_ms()
        last_ms = (now_ms - self._grace_ms) // HOUR_MS * HOUR_MS
        first_ms = last_ms - LOOKED_BACK * HOUR_MS
        if self._done is None:
            self._done = await self._certified(first_ms)
        still_open = await open_hours(self._ports.registry, last_ms, [])
        self._empty -= still_open.keys()
        over = self._done | self._empty
        hours = [hour_ms for hour_ms in range(first_ms, last_ms, HOUR_MS) if hour_ms not in over]
        made = []
        for hour_ms in hours:
            if hour_ms in still_open or now_ms < self._wrong.get(hour_ms, 0):
                continue
            certificate = await self._certify(hour_ms)
            if certificate is not None:
                made.append(certificate)
        self._done = {hour_ms for hour_ms in self._done if hour_ms >= first_ms}
        self._empty = {hour_ms for hour_ms in self._empty if hour_ms >= first_ms}
        self._wrong = {hour_ms: again_ms for hour_ms, again_ms in self._wrong.items() if hour_ms >= first_ms}
        UNBALANCED.set(len(self._wrong))
        return made

    @property
    def _grace_ms(self) -> int:
        """A collector registers a batch some seconds behind the time in its id; the grace is longer by far."""
        return round(self._settings.audit_grace_s * 1000) + self._settings.linger_ms

    async def _certified(self, first_ms: int) -> set[int]:
        """The hours from a moment on that have a certificate."""
        found = set()
        hours = {certificate_key(hour_ms): hour_ms for hour_ms in _hours_from(first_ms)}
        async for info in self._ports.store.list("certificates/", certificate_key(first_ms - HOUR_MS)):
            if info.key in hours:
                found.add(hours[info.key])
        return found

    async def _certify(self, hour_ms: int) -> Certificate | None:
        """Certify one hour. Returns: the certificate if it was written now."""
        if await self._is_empty(hour_ms):
            self._empty.add(hour_ms)
            return None
        batch_ids = await batches_of_hour(self._ports.store, self._ports.warehouse, hour_ms)
        books = HourBooks(hour_ms)
        for start in range(0, len(batch_ids), CHUNK):
            if not await self._add(books, batch_ids[start : start + CHUNK], hour_ms):
                return None
        certificate = books.certificate(self._ports.clock.now_ms(), self._settings.certificate_key)
        if not certificate.is_balanced:
            self._complain(hour_ms, f"{certificate.lines} lines in, a difference of {certificate.difference}")
            return None
        self._wrong.pop(hour_ms, None)
        if not certificate.batches:  # it has only raw files that were never registered
            self._empty.add(hour_ms)
            return None
        result = await self._ports.store.put_if_absent(certificate_key(hour_ms), encode_certificate(certificate))
        self._done = (self._done or set()) | {hour_ms}
        LAST_HOUR.set((hour_ms + HOUR_MS) / 1000)
        if result is PutResult.EXISTS:
            return None
        CERTIFIED.inc()
        log.info("hour certified", hour=hour_name(hour_ms), batches=certificate.batches, lines=certificate.lines)
        return certificate

    async def _is_empty(self, hour_ms: int) -> bool:
        """Whether an hour has no raw file: they outlive the hours that are looked at, and one listing costs little."""
        return not [info async for info in self._ports.store.list(raw_prefix(hour_path(hour_ms)), "", 1)]

    async def _add(self, books: HourBooks, batch_ids: Sequence[str], hour_ms: int) -> bool:
        """Add batches. Returns: False if one of them keeps the hour from its certificate."""
        found = await asyncio.gather(*(self._ports.registry.get(batch_id) for batch_id in batch_ids))
        entries = await self._ports.warehouse.entries(batch_ids)
        items: list[RegistryItem] = []
        for batch_id, item in zip(batch_ids, found, strict=True):
            if item is None and batch_id in entries:
                self._complain(hour_ms, f"the ledger has batch {batch_id} and the registry does not")
                return False
            if item is not None and item.state is not BatchState.COMPLETE:
                return False
            if item is not None:
                items.append(item)
        await asyncio.to_thread(_add_all, books, items, entries)
        return True

    def _complain(self, hour_ms: int, why: str) -> None:
        """Alarm about an hour, and leave it alone for a while."""
        if hour_ms not in self._wrong:
            log.error("the books of an hour do not balance", hour=hour_name(hour_ms), reason=why, alarm=True)
        self._wrong[hour_ms] = self._ports.clock.now_ms() + WRONG_PAUSE_MS


def _add_all(books: HourBooks, items: Sequence[RegistryItem], entries: Mapping[str, Sequence[LedgerLines]]) -> None:
    """A bitmap is cheap, and a chunk has thousands of them."""
    for item in items:
        books.add(books_of(item, entries.get(item.batch_id, ())))


def _hours_from(first_ms: int) -> range:
    return range(first_ms, first_ms + (LOOKED_BACK + 2) * HOUR_MS, HOUR_MS)
