"""Traces: finds the lines that carry an id, reads each in its raw file, and asks every stage for its fate."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from agents.audit.trace.hours import FIRST_HOUR, LAST_HOUR
from agents.audit.trace.id_search import TEXT, IdKind, IdSearch, IdsFound, LinePlace, WantedId
from agents.audit.trace.line_facts import FactReader
from agents.audit.trace.ports import TracePorts
from agents.audit.trace.raw_lines import RawLines
from app.core.audit.trace.facts import RawLine
from app.core.audit.trace.fate import LineFate, Trace, fate_of, moment, tell_duplicates
from app.core.audit.trace.index_plan import hour_bounds
from app.core.events.canonical_json import encode
from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import hour_path
from app.settings import Settings

MOST_SHOWN: Final = 1000
"""Lines that one answer has at most."""
Show = Callable[[int, int], None]


class Within(NamedTuple):
    """The time in which events were received, ms since the epoch; None for no bound."""

    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def since_hour(self) -> str:
        """The first hour of raw files to search. A batch is named a linger after its first line was received."""
        return FIRST_HOUR if self.since_ms is None else hour_path(self.since_ms)

    @property
    def until_hour(self) -> str:
        """The last hour; the one behind `until_ms` too, if a batch of that moment may be named in it."""
        return LAST_HOUR if self.until_ms is None else hour_path(self.until_ms + LATEST_NAME_MS)

    def has(self, line: RawLine) -> bool:
        """Whether a line was received in that time."""
        received_ms = line.fields.received_at
        if received_ms is None:
            received_ms = batch_time_ms(line.batch_id)
        return (self.since_ms or 0) <= received_ms and (self.until_ms is None or received_ms <= self.until_ms)


LATEST_NAME_MS: Final = 60_000
"""A batch is named at most so long after its first line was received."""
EVER: Final = Within()


class Tracer:
    """Traces on the services of one pipeline."""

    def __init__(self, ports: TracePorts, settings: Settings, show: Show | None = None, *, with_raw: bool = False) -> None:
        """Ask nothing yet.

        Args:
            ports: the services.
            settings: epoch and the bounds of the join.
            show: gets the number of raw files that were scanned, and of all that must be.
            with_raw: answers have the stored lines, which have personal data.
        """
        self._ports = ports
        self._rules = settings.join
        self._search = IdSearch(ports.store, show)
        self._raw = RawLines(ports.store, ports.registry)
        self._facts = FactReader(ports, settings)
        self._with_raw = with_raw

    async def events(self, event_ids: Sequence[str], within: Within = EVER) -> list[Trace]:
        """The trace of each event id, in order.

        Raises:
            ServiceUnavailable: S3, the registry or the warehouse does not answer.
            NewerFormat: a newer version wrote something that the answer depends on.
        """
        return await self._ids([WantedId(IdKind.EVENT, event_id) for event_id in event_ids], within)

    async def page_view(self, page_view_id: str, within: Within = EVER) -> Trace:
        """The trace of a page view: all lines with its id, in the order of their receipt. Raises: as `events`."""
        [trace] = await self._ids([WantedId(IdKind.PAGE_VIEW, page_view_id)], within)
        trace.lines.sort(key=lambda line: (line.received_at or "", line.place))
        return trace

    async def line(self, batch_id: str, number: int) -> Trace:
        """The trace of one line of a batch. Raises: as `events`."""
        lines, faults = await self._read([LinePlace(batch_id, number)])
        return await self._trace(f"{batch_id}:{number}", lines, moment(batch_time_ms(batch_id)), faults)

    async def text(self, text: str, within: Within) -> Trace:
        """The trace of the lines whose stored bytes contain a text, as it is or as JSON escapes it. Raises: as `events`."""
        needles = sorted({text.encode(), encode(text)[1:-1]})
        found = await self._search.find_text(needles, within.since_hour, within.until_hour, MOST_SHOWN)
        lines, faults = await self._read(found.lines[TEXT])
        lines = [line for line in lines if within.has(line)]
        trace = await self._trace(text, lines, _since(found, within), [*found.faults, *faults])
        trace.is_cut = found.is_cut
        return trace

    async def _ids(self, wanted: Sequence[WantedId], within: Within) -> list[Trace]:
        found = await self._search.find(list(dict.fromkeys(wanted)), within.since_hour, within.until_hour)
        traces = []
        for each in wanted:
            places = sorted(found.lines[each])
            lines, faults = await self._read(places[:MOST_SHOWN])
            own = [line for line in lines if each.is_in(line.fields) and within.has(line)]
            trace = await self._trace(each.text, own, _since(found, within), [*found.faults, *faults])
            trace.is_cut = found.is_cut or len(places) > MOST_SHOWN
            traces.append(trace)
        return traces

    async def _read(self, places: Iterable[LinePlace]) -> tuple[list[RawLine], list[str]]:
        """The lines, and the reason why some are missing."""
        by_batch: dict[str, list[int]] = {}
        for place in sorted(places):
            by_batch.setdefault(place.batch_id, []).append(place.line)
        reads = await asyncio.gather(*(self._raw.read(batch_id, numbers) for batch_id, numbers in by_batch.items()))
        return [line for read in reads for line in read.lines], [read.fault for read in reads if read.fault]

    async def _trace(self, name: str, lines: Sequence[RawLine], since: str | None, faults: list[str]) -> Trace:
        facts = await self._facts.of(lines)
        fates = [fate_of(each, self._rules) for each in facts]
        if self._with_raw:
            for fate, line in zip(fates, lines, strict=True):
                fate.raw = line.text.decode(errors="replace")
        groups: dict[str | None, list[LineFate]] = {}
        for fate in fates:
            groups.setdefault(fate.event_id, []).append(fate)
        nameless = groups.pop(None, [])  # malformed lines without an id are copies of nothing
        ordered = [*(line for group in groups.values() for line in tell_duplicates(group)), *nameless]
        return Trace(
            id=name, lines=ordered, since=since, until=moment(self._ports.clock.now_ms()) or "", faults=faults
        )  # fmt: skip


def _since(found: IdsFound, within: Within) -> str | None:
    """The first moment that was searched."""
    if not found.since_hour:
        return None
    return moment(max(hour_bounds(found.since_hour)[0], within.since_ms or 0))
