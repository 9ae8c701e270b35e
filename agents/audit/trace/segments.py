"""Reads segments of the index: their batch lists, and ranges of their entries; whole ones to check or merge them."""

from app.adapters.ports import ObjectStore
from app.core.formats.id_index import (
    BATCH_BYTES,
    ENTRY_BYTES,
    HEAD_BYTES,
    Entries,
    Segment,
    batches_in,
    decode_segment,
    entries_in,
)
from app.core.formats.object_keys import SegmentPlace
from app.errors import FormatInvalid


async def read_segment(store: ObjectStore, place: SegmentPlace) -> Segment:
    """A whole segment.

    Raises:
        FormatInvalid: it is damaged.
        ObjectMissing: it is gone.
    """
    segment = decode_segment(await store.get(place.key))
    if segment.counts != place.counts:
        raise FormatInvalid(f"index segment {place.key} holds {segment.counts}")
    return segment


async def read_batches(store: ObjectStore, place: SegmentPlace, first: int = 0, count: int | None = None) -> list[str]:
    """The batches of a segment, or `count` of them from number `first` on. Raises: as `read_segment`."""
    wanted = place.counts.batches if count is None else count
    packed = await store.get_range(place.key, HEAD_BYTES + BATCH_BYTES * first, BATCH_BYTES * wanted)
    found = batches_in(packed)
    if len(found) != wanted:
        raise FormatInvalid(f"index segment {place.key} ends before its batch {first + wanted - 1}")
    return found


async def read_entries(store: ObjectStore, place: SegmentPlace, section_at: int, first: int, end: int) -> Entries:
    """The entries from `first` up to before `end` of the section that begins at a byte. Raises: as `read_segment`."""
    packed = await store.get_range(place.key, section_at + ENTRY_BYTES * first, ENTRY_BYTES * (end - first))
    entries = entries_in(packed)
    if len(entries) != end - first:
        raise FormatInvalid(f"index segment {place.key} ends before its entry {end - 1}")
    return entries
