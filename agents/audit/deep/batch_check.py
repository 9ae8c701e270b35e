"""Every batch: its registry item, its raw file, and its lines in the warehouse's ledger."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pyroaring import BitMap

from agents.audit.audit_rules import audit_rules
from agents.audit.deep.look import Look
from agents.audit.deep.report import NAMED
from agents.audit.registry_items import readable
from app.core.audit.deep.batches import LossEvidence, doubled_lines, judge_raw, lost_lines
from app.core.audit.differences import Difference, DifferenceKind
from app.core.audit.reconcile import (
    Coverage,
    LedgerLines,
    coverage,
    lacking_blocks,
    read_lines,
)
from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import hour_path, raw_key
from app.core.formats.registry_item import BatchState, RegistryItem
from app.errors import FormatInvalid, NewerFormat, ObjectMissing

CHUNK: Final = 200
"""Batches asked for together."""
FILES_AT_ONCE: Final = 8
"""Raw files in memory; each has at most some MiB."""
_HOUR_MS: Final = 3_600_000
_BATCH_ID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class BatchCheck:
    """Looks at the batches of a span, and remembers those with lines that no ledger of the warehouse has."""

    def __init__(self, look: Look) -> None:
        """Look at nothing yet."""
        self._look = look
        self._ports = look.ports
        self._settings = look.settings
        self._span = look.span
        self._report = look.report
        self._files = asyncio.Semaphore(FILES_AT_ONCE)
        self._known: set[bytes] = set()
        """Ids of the batches that have a registry item."""
        self._unregistered: set[bytes] = set()
        """Ids of the batches that have a raw file and no item."""
        self.uncovered: dict[str, BitMap] = {}
        """Batch -> its lines without a ledger row in the warehouse."""
        self.committed: dict[str, BitMap] = {}
        """Batch of `uncovered` -> its lines that a committed transaction's ledger file has."""

    async def raw_files(self) -> list[str]:
        """The batch ids of the raw files of the span. Ask before the registry: an item comes after its file."""
        return [batch_id async for batch_id in self._raw_ids()]

    async def run(self, raw_ids: Sequence[str]) -> AsyncIterator[int]:
        """Look at all of them; `raw_ids` are those of `raw_files`. Yields: a number of batches that are done."""
        unreadable: list[str] = []
        some: list[RegistryItem] = []
        try:
            async for item in readable(self._ports.registry.all_batches(), unreadable):
                if batch_time_ms(item.batch_id) in self._span:
                    self._known.add(_packed(item.batch_id))
                    some.append(item)
                if len(some) == CHUNK:
                    await self._judge(some)
                    yield len(some)
                    some = []
        except NewerFormat as exc:
            self._report.skip(f"registry items of a newer version: {exc}")
        await self._judge(some)
        yield len(some)
        for reason in unreadable:
            self._unreadable(reason)
        orphans = [batch_id for batch_id in raw_ids if _packed(batch_id) not in self._known]
        for start in range(0, len(orphans), CHUNK):
            await self._judge_orphans(orphans[start : start + CHUNK])
            yield 0

    def is_unknown(self, batch_id: str) -> bool:
        """Whether a batch of the span has neither a registry item nor a raw file that were seen."""
        packed = _packed(batch_id)
        try:
            is_asked = batch_time_ms(batch_id) in self._span
        except ValueError:
            return False
        return is_asked and packed not in self._known and packed not in self._unregistered

    async def judge_unknown(self, batch_ids: Iterable[str]) -> None:
        """Batches that a ledger file has: name those that have lost both their item and their raw file."""
        for batch_id in batch_ids:
            self._known.add(_packed(batch_id))
            key = raw_key(batch_id, batch_time_ms(batch_id))
            if self._settings.retention.has_expired(key, batch_time_ms(batch_id), self._ports.clock.now_ms()):
                continue
            if await self._registered(batch_id) is None and await self._ports.store.head(key) is None:
                lines = (await self._lines([batch_id])).get(batch_id, BitMap())
                for kind, what in ((DifferenceKind.RAW_LOST, key), (DifferenceKind.REGISTRY_LOST, "the registry's item")):
                    detail = f"{what} is missing, and a ledger has the batch"
                    self._report.note([Difference(kind=kind, batch_id=batch_id, lines=list(lines), detail=detail, key=key)])

    async def finish(self) -> None:
        """Judge the batches whose lines no ledger had, once the chains have been read."""
        batch_ids = sorted(self.uncovered)
        for start in range(0, len(batch_ids), CHUNK):
            await self._judge_uncovered(batch_ids[start : start + CHUNK])

    # --- inside

    async def _raw_ids(self) -> AsyncIterator[str]:
        for prefix in await self._raw_prefixes():
            async for info in self._ports.store.list(prefix):
                batch_id = info.key.rpartition("/")[2].partition(".")[0]
                if not _BATCH_ID.fullmatch(batch_id):
                    continue
                time_ms = batch_time_ms(batch_id)
                if info.key == raw_key(batch_id, time_ms) and time_ms in self._span:
                    yield batch_id

    async def _raw_prefixes(self) -> list[str]:
        """The folders of the hours of the span; the whole prefix if the span is everything."""
        if self._span.is_everything or self._span.since_ms == 0:
            return ["raw/"]
        until_ms = min(self._span.until_ms, self._ports.clock.now_ms() + _HOUR_MS)
        hour = datetime.fromtimestamp(self._span.since_ms / 1000, UTC).replace(minute=0, second=0, microsecond=0)
        prefixes = []
        while hour.timestamp() * 1000 < until_ms:
            prefixes.append(f"raw/{hour_path(round(hour.timestamp() * 1000))}/")
            hour += timedelta(hours=1)
        return prefixes

    async def _judge(self, items: Sequence[RegistryItem]) -> None:
        if not items:
            return
        ids = [item.batch_id for item in items]
        dead_letters = await self._ports.ledger.dead_letters(ids)
        entries = await self._ports.rows.ledger(ids)
        for item, found in zip(items, await asyncio.gather(*map(self._judge_file, items)), strict=True):
            if found is not None:
                self._report.note(self._look.kept([found], batch_time_ms(item.batch_id)))
        for item in items:
            rows = entries.get(item.batch_id, [])
            self._report.note(doubled_lines(item, rows))
            missing = coverage(item.line_count, (LedgerLines(*row[1:]) for row in rows)).missing
            if missing:
                self.uncovered[item.batch_id] = missing
                self._report.note(_unread(item, missing, dead_letters.get(item.batch_id, {})))
        self._report.batches += len(items)

    async def _judge_file(self, item: RegistryItem) -> Difference | None:
        async with self._files:
            raw = await self._get(item.raw_key)
            own_key = raw_key(item.batch_id, batch_time_ms(item.batch_id))
            at_own_key = await self._get(own_key) if own_key != item.raw_key else None
            self._report.raw_files += raw is not None
            return await asyncio.to_thread(judge_raw, item, raw, at_own_key)

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._ports.store.get(key)
        except ObjectMissing:
            return None

    def _unreadable(self, reason: str) -> None:
        """A registry item that is no batch; `reason` has its id."""
        found = _BATCH_ID.search(reason)
        batch_id = found[0] if found else ""
        if found:
            self._known.add(_packed(batch_id))
        self._report.note([Difference(kind=DifferenceKind.REGISTRY_CHANGED, batch_id=batch_id, detail=reason)])

    async def _judge_orphans(self, batch_ids: Sequence[str]) -> None:
        """Raw files without an item. Blocks leave the collector behind the registry: a ledger proves that one was there."""
        lines = await self._lines(batch_ids)
        for batch_id in batch_ids:
            if await self._registered(batch_id) is not None:
                continue  # registered since
            self._unregistered.add(_packed(batch_id))
            key = raw_key(batch_id, batch_time_ms(batch_id))
            if batch_id in lines:
                detail = f"no registry item, and the ledger has {len(lines[batch_id])} of its lines"
                kind = DifferenceKind.REGISTRY_LOST
                found = Difference(kind=kind, batch_id=batch_id, lines=list(lines[batch_id]), detail=detail, key=key)
                self._report.note([found])
            elif len(self._report.unregistered) < NAMED:
                self._report.unregistered.append(key)

    async def _registered(self, batch_id: str) -> object | None:
        """The batch's item by a consistent read; one that cannot be read counts as there."""
        try:
            return await self._ports.registry.get(batch_id)
        except (FormatInvalid, NewerFormat) as exc:
            return exc

    async def _lines(self, batch_ids: Sequence[str]) -> dict[str, BitMap]:
        """Batch -> its lines in the warehouse's ledger; batches without any are absent."""
        found: dict[str, BitMap] = {}
        for batch_id, entries in (await self._ports.rows.ledger(batch_ids)).items():
            for entry in entries:
                found[batch_id] = found.get(batch_id, BitMap()) | (read_lines(entry.line_set) or BitMap())
        return found

    async def _judge_uncovered(self, batch_ids: Sequence[str]) -> None:
        delivery = await self._ports.ledger.delivery(self._settings.epoch)
        times_ms = {partition: reached.stream_time_ms for partition, reached in delivery.partitions.items()}
        replays = await self._ports.ledger.replayed_blocks(batch_ids)
        entries = await self._ports.ledger.entries(batch_ids)
        for batch_id in batch_ids:
            item = await self._ports.registry.get(batch_id)
            if item is None:
                continue
            rows = entries.get(batch_id, [])
            missing = coverage(item.line_count, rows).missing
            elsewhere = missing & self.committed.get(batch_id, BitMap())  # not loaded yet, or lost and named there
            evidence = LossEvidence(rows, elsewhere, replays.get(batch_id, frozenset()), times_ms)
            left = lost_lines(item, evidence, audit_rules(self._settings), self._ports.clock.now_ms())
            if not left:
                self._report.late_batches += bool(missing)
                continue
            why = "the registry says complete" if item.state is BatchState.COMPLETE else "the etl knows their blocks"
            self._report.note([Difference(
                kind=DifferenceKind.LINES_LOST, batch_id=batch_id, lines=list(left),
                detail=f"{len(left)} of {item.line_count} lines are in no ledger of the warehouse or of S3, and {why}",
            )])  # fmt: skip


def _unread(item: RegistryItem, missing: BitMap, reasons: dict[int, str]) -> list[Difference]:
    """The blocks that lack lines and of which a copy could not be read."""
    lacking = lacking_blocks(item, Coverage(missing))
    return [
        Difference(
            kind=DifferenceKind.DEAD_LETTER, batch_id=item.batch_id, detail=f"block {number}: {reasons[number]}",
            lines=list(missing & BitMap(range(place.first_line, place.first_line + place.lines))),
            partition=place.partition,
        )
        for number, place in lacking.items() if number in reasons
    ]  # fmt: skip


def _packed(batch_id: str) -> bytes:
    """A batch id in 16 bytes; other text as it is."""
    try:
        return bytes.fromhex(batch_id.replace("-", ""))
    except ValueError:
        return batch_id.encode()
