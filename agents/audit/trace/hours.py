"""The hours of the bucket: their raw files, the segments of their index, and whether they are settled."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

import structlog

from app.adapters.ports import ObjectInfo, ObjectStore
from app.core.audit.trace.index_plan import hour_bounds
from app.core.formats.object_keys import (
    BEHIND_ALL,
    INDEX,
    RAW,
    SegmentPlace,
    hour_of,
    index_prefix,
    raw_place,
    raw_prefix,
    segment_place,
    settled_key,
)

log = structlog.get_logger(__name__)

FIRST_HOUR: Final = ""
"""It sorts before every hour."""
LAST_HOUR: Final = BEHIND_ALL
GAPS_AT_ONCE: Final = 16
"""Gaps between settled hours that are looked into side by side."""


class IndexedHour(NamedTuple):
    """The index of one hour, as a listing shows it."""

    hour: str
    segments: list[SegmentPlace]
    damaged: list[str]
    """Keys of segments whose size is not that of their counts: they are not used."""
    is_settled: bool
    """Whether the segments have all raw files of the hour."""


async def raw_hours(store: ObjectStore, since: str = FIRST_HOUR, until: str = LAST_HOUR) -> AsyncIterator[str]:
    """The hours from `since` to `until`, both included, that have raw files, in order: one short listing for each."""
    after = f"{RAW}{since}"
    while True:
        found = [info.key async for info in store.list(RAW, after, 1)]
        if not found:
            return
        hour = hour_of(found[0])
        if hour > until:
            return
        if hour:
            yield hour
        after = f"{raw_prefix(hour)}{BEHIND_ALL}" if hour else found[0]


async def indexed_hours(store: ObjectStore, since: str = FIRST_HOUR, until: str = LAST_HOUR) -> dict[str, IndexedHour]:
    """The index of each hour from `since` to `until`, both included, that has any, in order.

    Raises:
        NewerFormat: a newer version wrote a segment.
    """
    hours: dict[str, IndexedHour] = {}
    async for info in store.list(INDEX, f"{INDEX}{since}"):
        hour = hour_of(info.key)
        if hour > until:
            break
        if hour:
            hours[hour] = _with(hours.get(hour) or no_index(hour), info)
    return hours


async def unsettled_hours(
    store: ObjectStore, indexed: Mapping[str, IndexedHour], since: str = FIRST_HOUR, until: str = LAST_HOUR
) -> list[str]:
    """The hours with raw files from `since` to `until`, both included, whose index may lack some of them, in order.

    Only where two settled hours do not follow each other can there be others between them, so only there it looks.
    """
    settled = sorted(hour for hour, index in indexed.items() if index.is_settled and not index.damaged)
    edges = [since, *(hour for hour in settled if since <= hour <= until), until]
    known = frozenset(settled)
    gaps = [
        (before, behind)
        for before, behind in pairwise(edges)
        if not (before in known and behind in known and hour_bounds(before)[1] >= hour_bounds(behind)[0])
    ]
    places = asyncio.Semaphore(GAPS_AT_ONCE)

    async def between(before: str, behind: str) -> list[str]:
        async with places:
            return [hour async for hour in raw_hours(store, before, behind) if hour not in known]

    found = await asyncio.gather(*(between(before, behind) for before, behind in gaps))
    return sorted({hour for hours in found for hour in hours})


async def indexed_hour(store: ObjectStore, hour: str) -> IndexedHour:
    """The index of one hour. Raises: as `indexed_hours`."""
    found = no_index(hour)
    async for info in store.list(index_prefix(hour)):
        found = _with(found, info)
    return found


def no_index(hour: str) -> IndexedHour:
    """An hour without an index."""
    return IndexedHour(hour, [], [], is_settled=False)


def _with(known: IndexedHour, info: ObjectInfo) -> IndexedHour:
    if info.key == settled_key(known.hour):
        return known._replace(is_settled=True)
    place = segment_place(info.key)
    if place is None:
        return known
    if place.counts.size_bytes != info.size:
        log.error("index segment has another size than its key says", key=info.key, size=info.size, alarm=True)
        known.damaged.append(info.key)
    else:
        known.segments.append(place)
    return known


async def raw_files(store: ObjectStore, hour: str, after: str = "") -> dict[str, ObjectInfo]:
    """Batch id -> raw file, of an hour's batches whose raw file sorts behind the key `after`."""
    found: dict[str, ObjectInfo] = {}
    async for info in store.list(raw_prefix(hour), after):
        place = raw_place(info.key)
        if place is not None and place.hour == hour:
            found[place.batch_id] = info
    return found
