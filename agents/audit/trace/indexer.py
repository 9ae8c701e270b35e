"""Writes the index of ids beside the raw files, hour by hour; everything it needs to know it reads from the listing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from agents.audit.trace.hours import (
    FIRST_HOUR,
    LAST_HOUR,
    IndexedHour,
    indexed_hour,
    indexed_hours,
    no_index,
    raw_files,
    raw_hours,
    unsettled_hours,
)
from agents.audit.trace.segments import read_batches, read_segment
from app.adapters.ports import ObjectInfo, ObjectStore
from app.clock import Clock
from app.core.audit.trace.index_plan import hour_bounds, is_over, plan_merge
from app.core.formats.batch import ID_RANDOM_BYTES, batch_time_ms, new_batch_id
from app.core.formats.id_index import MOST_BATCHES, IdsOfBatch, Segment, build, digest_in, encode_segment, merge
from app.core.formats.object_keys import SegmentPlace, raw_key, segment_key, settled_key
from app.core.formats.raw_file import frames_in, ids_in
from app.errors import AccessDenied, FormatInvalid, NewerFormat, ObjectMissing, OutsideError
from app.settings import Settings
from app.shell.upgrade import UpgradeWaits

log = structlog.get_logger(__name__)

ROLE: Final = "audit"
PART_BYTES: Final = 16 * 1024 * 1024
"""Raw files, as stored, that one new segment is made of: some 150,000 lines."""
AT_ONCE: Final = 8
"""Raw files read side by side."""
LOOK_BACK_MS: Final = 10 * 60_000
"""A round lists an unsettled hour from so long before its newest indexed batch on: a raw file may come behind a younger one.
Before it settles, the hour is listed whole."""

NO_CHANCE: Final = bytes(ID_RANDOM_BYTES)
"""The random bytes of the first batch id of a millisecond."""

LINES = Counter("instream_index_lines_total", "Lines of raw files that were indexed")
UNREADABLE = Gauge("instream_index_unreadable_files", "Raw files of the last round whose ids cannot be read")
BEHIND = Gauge("instream_index_unsettled_hours", "Hours with raw files whose index is not settled; usually one or two")


class IndexReport(msgspec.Struct):
    """The work of one round."""

    hours: int = 0
    """Hours that were looked at."""
    batches: int = 0
    lines: int = 0
    segments: int = 0
    """Segments written, merged ones included."""
    settled: int = 0
    """Hours whose index is whole since this round."""
    damaged: int = 0
    """Segments that were damaged and are made again."""
    unreadable: list[str] = []
    """Raw files that cannot be read, each with the reason."""


class Indexer:
    """Indexes raw files. Two at once only do some work twice: a batch may be in two segments, which a search sees as one."""

    def __init__(self, store: ObjectStore, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._interval_s = settings.audit_interval_s
        self._upgrades = UpgradeWaits(ROLE)
        self._known: dict[str, dict[str, frozenset[str]]] = {}
        """Unsettled hour -> segment -> its batches; a segment that is not here is read."""
        self._since = FIRST_HOUR
        """Every earlier hour is settled."""

    def waits_for(self) -> str | None:
        """The answer of /ready: the upgrade that the last round waits for, or None."""
        return self._upgrades.reason()

    def close(self) -> None:
        """Stop waiting for upgrades."""
        self._upgrades.clear()

    async def run(self) -> None:
        """Do round after round, AUDIT_INTERVAL_S between them, until this task is cancelled. A round may be cut anywhere."""
        while True:
            await self.round()
            await asyncio.sleep(self._interval_s)

    async def round(self) -> IndexReport:
        """Index the raw files that are new, the newest hour first, for AUDIT_INTERVAL_S at most.

        If S3 does not answer, the next round goes on.

        Raises:
            AccessDenied: a permission is missing, so the worker ends with the reason.
        """
        report = IndexReport()
        try:
            await self._index_open(report)
            self._upgrades.end("index round")
        except AccessDenied:
            raise
        except OutsideError as exc:  # ObjectMissing too: another indexer has merged a segment meanwhile
            log.warning("index round ended early", reason=f"{type(exc).__name__}: {exc}")
        except NewerFormat as exc:
            self._upgrades.begin("index round", exc)
        UNREADABLE.set(len(report.unreadable))
        return report

    async def index_all(
        self, since: str = FIRST_HOUR, until: str = LAST_HOUR, show: Callable[[int, int], None] | None = None
    ) -> IndexReport:
        """Check and complete the index of all hours between two, both included, settled ones too.

        Every segment is read whole; damaged ones are made again from the raw files. `show` gets the number of hours that
        are done, and of all.

        Raises:
            OutsideError: S3 does not answer. The hours before stay done.
            NewerFormat: a newer version wrote a segment.
        """
        report = IndexReport()
        hours = sorted({hour async for hour in raw_hours(self._store, since, until)})
        for done, hour in enumerate(hours):
            if show is not None:
                show(done, len(hours))
            await self._check(hour, report)
            await self._index_hour(await indexed_hour(self._store, hour), report, whole=True)
        return report

    async def _index_open(self, report: IndexReport) -> None:
        start_s = self._clock.monotonic_s()
        indexed = await indexed_hours(self._store, self._since)
        unsettled = await unsettled_hours(self._store, indexed, self._since)
        BEHIND.set(len(unsettled))
        left = list(unsettled)
        for hour in [hour for hour in unsettled if hour in indexed and indexed[hour].damaged]:
            await self._check(hour, report)
            indexed[hour] = await indexed_hour(self._store, hour)
        for hour in reversed(unsettled):
            try:
                is_settled = await self._index_hour(indexed.get(hour) or no_index(hour), report, whole=False)
            except FormatInvalid as exc:
                log.error("index segment is damaged: it is made again", hour=hour, error=str(exc))
                is_settled = False
                await self._check(hour, report)
            if is_settled:
                left.remove(hour)
            if self._clock.monotonic_s() - start_s > self._interval_s:
                return  # a long past is indexed in many rounds, so that new files are not kept waiting
        self._since = left[0] if left else max(indexed, default=self._since)
        self._known = {hour: known for hour, known in self._known.items() if hour in left}

    async def _index_hour(self, indexed: IndexedHour, report: IndexReport, *, whole: bool) -> bool:
        """Bring the index of one hour up to its raw files. Returns: whether it is settled.

        Order of effects, and what a crash right after each leaves:
        1. PUT a segment of new raw files. The next round sees it in the listing.
        2. PUT the merged segment. Its parts are there too, so a search sees entries twice, and the merge is made again.
        3. DELETE its parts.
        4. PUT `settled`, after a listing of the whole hour that had nothing new.
        """
        report.hours += 1
        hour, unreadable = indexed.hour, len(report.unreadable)
        known = await self._batches_of(indexed)
        over = is_over(hour, self._clock.now_ms())
        newest = "" if over or whole else max(known, default="")
        files = await raw_files(self._store, hour, _list_after(hour, newest))
        segments = list(indexed.segments)
        async for some in self._parts({batch_id: info for batch_id, info in files.items() if batch_id not in known}, report):
            segments.append(await self._put(hour, await asyncio.to_thread(build, some)))
            lines = sum(len(each.event_ids) for each in some)
            report.segments, report.batches, report.lines = (
                report.segments + 1, report.batches + len(some), report.lines + lines,
            )  # fmt: skip
            LINES.inc(lines)
        while chosen := plan_merge(segments, is_over=over):
            merged = await self._merge(hour, chosen)
            report.segments += 1
            segments = [*(segment for segment in segments if segment not in chosen), merged]
        if not over or len(report.unreadable) > unreadable:
            return False
        if not indexed.is_settled:
            await self._store.put(settled_key(hour), b"")
            report.settled += 1
        return True

    async def _batches_of(self, indexed: IndexedHour) -> set[str]:
        """The batches that an hour's segments have; of each segment the list is read once."""
        before, now = self._known.get(indexed.hour, {}), dict[str, frozenset[str]]()
        self._known[indexed.hour] = now
        for segment in indexed.segments:
            found = before.get(segment.key)
            now[segment.key] = frozenset(await read_batches(self._store, segment)) if found is None else found
        return {batch_id for batches in now.values() for batch_id in batches}

    async def _parts(self, files: dict[str, ObjectInfo], report: IndexReport) -> AsyncIterator[list[IdsOfBatch]]:
        """The ids in raw files, so many at a time as one segment takes."""
        waiting = sorted(files.items())
        while waiting:
            size = taken = 0
            for _, info in waiting[:MOST_BATCHES]:
                if taken and size + info.size > PART_BYTES:
                    break
                size, taken = size + info.size, taken + 1
            some, waiting = waiting[:taken], waiting[taken:]
            places = asyncio.Semaphore(AT_ONCE)
            found = await asyncio.gather(*(self._ids(batch_id, info.key, places, report) for batch_id, info in some))
            if read := [each for each in found if each is not None]:
                yield read

    async def _ids(self, batch_id: str, key: str, places: asyncio.Semaphore, report: IndexReport) -> IdsOfBatch | None:
        """The ids in a raw file; None, with an alarm, if it cannot be read."""
        async with places:
            try:
                return await asyncio.to_thread(_ids_of, batch_id, await self._store.get(key))
            except ObjectMissing:
                return None
            except FormatInvalid as exc:
                log.error("raw file cannot be indexed", raw_key=key, error=str(exc), alarm=True)
                report.unreadable.append(f"{key}: {exc}")
                return None

    async def _put(self, hour: str, segment: Segment) -> SegmentPlace:
        data = await asyncio.to_thread(encode_segment, segment)
        place = SegmentPlace(segment_key(hour, digest_in(data), segment.counts), hour, segment.counts)
        await self._store.put(place.key, data)
        self._known[hour][place.key] = frozenset(segment.batch_ids)
        return place

    async def _merge(self, hour: str, chosen: Sequence[SegmentPlace]) -> SegmentPlace:
        parts = [await read_segment(self._store, place) for place in chosen]
        merged = await self._put(hour, await asyncio.to_thread(merge, parts))
        await self._store.delete([place.key for place in chosen if place.key != merged.key])
        return merged

    async def _check(self, hour: str, report: IndexReport) -> None:
        """Read every segment of an hour, and delete the damaged ones: the hour is then no longer settled, and made again.

        `settled` goes first, so that a crash in between leaves no settled hour that lacks a segment.
        """
        indexed = await indexed_hour(self._store, hour)
        damaged = list(indexed.damaged)
        for place in indexed.segments:
            try:
                await read_segment(self._store, place)
            except ObjectMissing:
                continue  # merged meanwhile, by the audit's worker
            except FormatInvalid as exc:
                log.error("index segment is damaged", key=place.key, error=str(exc))
                damaged.append(place.key)
        if damaged:
            await self._store.delete([settled_key(hour)])
            await self._store.delete(damaged)
            report.damaged += len(damaged)


def _list_after(hour: str, newest: str) -> str:
    """The key behind which an unsettled hour's raw files are listed: some minutes before its newest indexed batch."""
    if not newest:
        return ""
    begin_ms, _ = hour_bounds(hour)
    return raw_key(new_batch_id(max(begin_ms, batch_time_ms(newest) - LOOK_BACK_MS), NO_CHANCE), begin_ms)


def _ids_of(batch_id: str, raw: bytes) -> IdsOfBatch:
    ids = [each for frame in frames_in(raw) for each in ids_in(frame.text)]
    return IdsOfBatch(batch_id, [each.event_id for each in ids], [each.page_view_id for each in ids])
