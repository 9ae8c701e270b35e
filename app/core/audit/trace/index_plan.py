"""The decisions of the indexer: which segments of an hour become one, and when an hour is settled.

An hour's raw files are indexed while they come, in small segments, because a look-up of recent events must not wait. Each
segment costs a look-up one read. So small segments are merged: eight of about one size at a time while the hour goes on, so
that an entry is rewritten a few times only; all of them when it is over.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from app.core.formats.id_index import MOST_BATCHES
from app.core.formats.object_keys import SegmentPlace

MOST_BYTES: Final = 64 * 1024 * 1024
"""Largest segment made of others: four million lines. A merge keeps all of it in memory, several times."""
MERGED_AT_ONCE: Final = 8
"""So many segments of about one size are merged before the hour is over."""
SETTLES_AFTER_MS: Final = 15 * 60_000
"""A raw file is stored at most so long after the time in its batch's id: the collector's clock is right within seconds, and
no request of a client waits longer."""
_TIER_BITS: Final = 3


def plan_merge(segments: Sequence[SegmentPlace], *, is_over: bool) -> list[SegmentPlace]:
    """The segments of one hour that are merged next; empty if all stay as they are.

    Args:
        segments: all of the hour.
        is_over: whether no more raw files of this hour come.
    """
    small = sorted((segment for segment in segments if _size(segment) < MOST_BYTES), key=_size)
    if is_over:
        fitting = _fitting(small)
        return fitting if len(fitting) > 1 else []
    tiers: dict[int, list[SegmentPlace]] = {}
    for segment in small:
        tiers.setdefault(_size(segment).bit_length() // _TIER_BITS, []).append(segment)
    for tier in tiers.values():
        fitting = _fitting(tier)
        if len(fitting) >= MERGED_AT_ONCE:
            return fitting
    return []


def _fitting(segments: Sequence[SegmentPlace]) -> list[SegmentPlace]:
    """The first ones that together are no larger than a segment may be."""
    taken: list[SegmentPlace] = []
    size = batches = 0
    for segment in segments:
        size, batches = size + _size(segment), batches + segment.counts.batches
        if size > MOST_BYTES or batches > MOST_BATCHES:
            break
        taken.append(segment)
    return taken


def _size(segment: SegmentPlace) -> int:
    return segment.counts.size_bytes


def hour_bounds(hour: str) -> tuple[int, int]:
    """The first moment of `dt=YYYY-MM-DD/hour=HH`, and the first moment behind it, ms since the epoch; UTC.

    Raises:
        ValueError: it names no hour.
    """
    begin = datetime.strptime(hour, "dt=%Y-%m-%d/hour=%H").replace(tzinfo=UTC)
    return round(begin.timestamp() * 1000), round((begin + timedelta(hours=1)).timestamp() * 1000)


def is_over(hour: str, now_ms: int) -> bool:
    """Whether no more raw files of this hour come."""
    return now_ms >= hour_bounds(hour)[1] + SETTLES_AFTER_MS
