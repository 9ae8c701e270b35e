"""Finds the lines that carry an id, or a text: in the index, and in the raw files that the index does not have yet."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

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
from agents.audit.trace.segments import read_batches, read_entries
from app.adapters.ports import ObjectInfo, ObjectStore
from app.core.audit.trace.facts import LineFields
from app.core.audit.trace.search import EntrySearch
from app.core.formats.id_index import hash_of_event, hash_of_view, place_in
from app.core.formats.object_keys import SegmentPlace
from app.core.formats.raw_file import LineIds, frames_in, ids_in
from app.errors import FormatInvalid, ObjectMissing

AT_ONCE: Final = 32
"""Reads side by side: so many threads has the store."""
FILES_AT_ONCE: Final = 8
MOST_LINES: Final = 1000
"""Lines of one id that a search returns at most."""
LOOKS: Final = 5
"""How often an hour is listed again because its segments were merged meanwhile."""


class IdKind(Enum):
    """The kinds of ids in the index."""

    EVENT = "event_id"
    PAGE_VIEW = "page_view_id"


class WantedId(NamedTuple):
    """An id to find."""

    kind: IdKind
    text: str

    def hash(self) -> int:
        """Its hash in the index."""
        return hash_of_event(self.text) if self.kind is IdKind.EVENT else hash_of_view(self.text)

    def section(self, place: SegmentPlace) -> tuple[int, int]:
        """The byte at which the section with such ids begins in a segment, and the number of its entries."""
        counts = place.counts
        return (counts.events_at, counts.events) if self.kind is IdKind.EVENT else (counts.views_at, counts.views)

    def is_in(self, ids: "LineIds | LineFields") -> bool:
        """Whether a line with these ids carries it."""
        return self.text == (ids.event_id if self.kind is IdKind.EVENT else ids.page_view_id)


TEXT: Final = WantedId(IdKind.EVENT, "")
"""The key of lines that were found by a text."""


class LinePlace(NamedTuple):
    """A line of a batch."""

    batch_id: str
    line: int


class IdsFound(msgspec.Struct):
    """The result of a search."""

    lines: dict[WantedId, set[LinePlace]]
    """Id -> the lines that may carry it. Two ids may share a hash: the raw line decides."""
    since_hour: str = ""
    """The first hour that was searched; empty if there is no raw file at all."""
    segments: int = 0
    """Segments of the index that were read."""
    scanned: int = 0
    """Raw files that were read whole, because the index does not have them yet."""
    faults: list[str] = []
    """Raw files that could not be read, each with the reason."""
    is_cut: bool = False
    """Whether an id has more lines than `MOST_LINES`."""


class _Scanned(NamedTuple):
    places: dict[int, set[LinePlace]]
    """Number of a needle -> lines."""
    fault: str = ""


class IdSearch:
    """Searches one bucket."""

    def __init__(self, store: ObjectStore, show: Callable[[int, int], None] | None = None) -> None:
        """Search nothing yet; `show` gets the number of raw files that were scanned, and of all that must be."""
        self._store = store
        self._show = show
        self._reads = asyncio.Semaphore(AT_ONCE)
        self._files = asyncio.Semaphore(FILES_AT_ONCE)

    async def find(self, ids: Sequence[WantedId], since: str = FIRST_HOUR, until: str = LAST_HOUR) -> IdsFound:
        """The lines that may carry the ids, in the hours from `since` to `until`, both included.

        Raises:
            ServiceUnavailable: S3 does not answer.
            NewerFormat: a newer version wrote a segment.
        """
        found = IdsFound({each: set() for each in ids})
        indexed = await indexed_hours(self._store, since, until)
        unsettled = await unsettled_hours(self._store, indexed, since, until)
        hours = sorted({*indexed, *unsettled})
        found.since_hour = hours[0] if hours else ""
        tails = await asyncio.gather(
            *(self._in_hour(indexed.get(hour) or no_index(hour), found, is_whole=hour not in unsettled) for hour in hours)
        )
        await self._scan([info for tail in tails for info in tail], found)
        return found

    async def _in_hour(self, indexed: IndexedHour, found: IdsFound, *, is_whole: bool) -> list[ObjectInfo]:
        """Search the index of one hour. Returns: the raw files that it does not have."""
        for _ in range(LOOKS):
            try:
                read = await asyncio.gather(*(self._in_segment(place, found) for place in indexed.segments))
                usable = [place for place, is_read in zip(indexed.segments, read, strict=True) if is_read]
                if is_whole and len(usable) == len(indexed.segments):
                    return []
                async with self._reads:
                    files = await raw_files(self._store, indexed.hour)
                for place in usable:
                    async with self._reads:
                        known = await read_batches(self._store, place)
                    files = {batch_id: info for batch_id, info in files.items() if batch_id not in set(known)}
                return list(files.values())
            except ObjectMissing:  # segments were merged meanwhile
                async with self._reads:
                    indexed = await indexed_hour(self._store, indexed.hour)
        async with self._reads:
            return list((await raw_files(self._store, indexed.hour)).values())

    async def _in_segment(self, place: SegmentPlace, found: IdsFound) -> bool:
        """Search one segment for every id. Returns: whether it could be read; a damaged one is as none."""
        try:
            await asyncio.gather(*(self._look_up(place, wanted, found) for wanted in found.lines))
        except FormatInvalid:
            return False
        found.segments += 1
        return True

    async def _look_up(self, place: SegmentPlace, wanted: WantedId, found: IdsFound) -> None:
        section_at, count = wanted.section(place)
        search = EntrySearch(count, wanted.hash(), MOST_LINES)
        while (asked := search.ask()) is not None:
            async with self._reads:
                search.take(asked, await read_entries(self._store, place, section_at, *asked))
        lines = [place_in(entry) for entry in search.found]
        batches: dict[int, str] = {}
        for number in {line.batch for line in lines}:
            async with self._reads:
                [batches[number]] = await read_batches(self._store, place, number, 1)
        found.lines[wanted] |= {LinePlace(batches[line.batch], line.line) for line in lines}
        found.is_cut |= search.is_cut

    async def _scan(self, files: Sequence[ObjectInfo], found: IdsFound) -> None:
        """Read raw files whole, and add the lines that carry an id."""
        wanted = list(found.lines)
        needles = [f'"{each.text}"'.encode() for each in wanted]
        scans = [self._scan_file(info.key, needles, [each.is_in for each in wanted]) for info in files]
        for done, scan in enumerate(asyncio.as_completed(scans)):
            scanned = await scan
            if self._show is not None:
                self._show(done + 1, len(files))
            if scanned.fault:
                found.faults.append(scanned.fault)
            for number, places in scanned.places.items():
                found.lines[wanted[number]] |= places
        found.scanned = len(files)

    async def _scan_file(self, key: str, needles: Sequence[bytes], confirm: Sequence[Callable[[LineIds], bool]]) -> _Scanned:
        async with self._files:
            try:
                return await asyncio.to_thread(_scan_raw, key, await self._store.get(key), needles, confirm)
            except ObjectMissing:
                return _Scanned({}, f"raw file {key} is missing")
            except FormatInvalid as exc:
                return _Scanned({}, f"raw file {key} is damaged: {exc}")

    async def find_text(self, needles: Sequence[bytes], since: str, until: str, most: int) -> IdsFound:
        """The first `most` lines whose stored bytes contain one of some texts, in the raw files of these hours.

        Returns: the lines under the one key `TEXT`.
        """
        found = IdsFound({TEXT: set()})
        async for hour in raw_hours(self._store, since, until):
            found.since_hour = found.since_hour or hour
            files = list((await raw_files(self._store, hour)).values())
            for start in range(0, len(files), FILES_AT_ONCE):
                some = files[start : start + FILES_AT_ONCE]
                confirm = [_any_line] * len(needles)
                for scanned in await asyncio.gather(*(self._scan_file(info.key, needles, confirm) for info in some)):
                    found.scanned += 1
                    if scanned.fault:
                        found.faults.append(scanned.fault)
                    found.lines[TEXT].update(*scanned.places.values())
                if self._show is not None:
                    self._show(start + len(some), len(files))
                if len(found.lines[TEXT]) > most:
                    found.lines[TEXT] = set(sorted(found.lines[TEXT])[:most])
                    found.is_cut = True
                    return found
        return found


def _any_line(_: LineIds) -> bool:
    return True


def _scan_raw(key: str, raw: bytes, needles: Sequence[bytes], confirm: Sequence[Callable[[LineIds], bool]]) -> _Scanned:
    """The lines of a raw file that contain a needle and are confirmed: a search in bytes, and JSON only where it hits."""
    batch_id = key.rpartition("/")[2].partition(".")[0]
    places: dict[int, set[LinePlace]] = {}
    first = 0
    for frame in frames_in(raw):
        for number, needle in enumerate(needles):
            for line, text in _lines_with(frame.text, needle):
                [ids] = ids_in(text)
                if confirm[number](ids):
                    places.setdefault(number, set()).add(LinePlace(batch_id, first + line))
        first += frame.text.count(b"\n")
    return _Scanned(places)


def _lines_with(text: bytes, needle: bytes) -> Iterable[tuple[int, bytes]]:
    """The number and the bytes, with their LF, of each line that contains a needle."""
    line = end = 0
    at = text.find(needle)
    while at >= 0:
        line += text.count(b"\n", end, at)
        end = text.index(b"\n", at)
        yield line, text[text.rfind(b"\n", 0, at) + 1 : end + 1]
        at = text.find(needle, end)
