"""Finds a visitor's lines: in the warehouse by its columns, and in every raw file of the span.

The warehouse alone does not do: duplicates, joined second events and bots have no row with the visitor's id. Raw files alone
do not either: they may have expired. Every raw file is read, because no index knows visitors; a second look takes the page
views of the first one.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final

from pyroaring import BitMap

from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import Show, Span
from agents.audit.erase.ports import FoundLines, Left
from app.core.audit.reconcile import read_lines
from app.core.erase.visitors import Sought, is_named_in, lines_in
from app.core.formats.batch import batch_time_ms
from app.core.formats.flows import ERASED, FLOWS
from app.core.formats.object_keys import raw_key
from app.core.formats.raw_file import frames_in
from app.core.formats.registry_item import BatchState, is_batch_id
from app.core.rebuild.span import HOUR_MS
from app.errors import FormatInvalid, NewerFormat, ObjectMissing
from app.settings import Settings

AT_ONCE: Final = 8
"""Raw files in memory; each has at most some MiB."""
UNACKNOWLEDGED_MS: Final = HOUR_MS
"""A raw file without a registry item may still get one for so long."""
_ENDING: Final = ".ndjson.zst"


class VisitorSearch:
    """One search for some visitors."""

    def __init__(self, ports: DeepPorts, settings: Settings, span: Span, show: Show) -> None:
        self._ports = ports
        self._settings = settings
        self._span = span
        self._show = show
        self._lines: dict[str, BitMap] = {}
        self._page_views: set[str] = set()
        self._refused: list[Left] = []

    async def find(self, visitor_ids: Iterable[str]) -> FoundLines:
        """The lines of some visitors.

        Raises:
            ServiceUnavailable: a service does not answer.
        """
        visitors = Sought(frozenset(visitor_ids))
        keys = [key async for key in self._raw_keys()]
        await self._loaded(visitors)
        await self._read_all(keys, visitors, 0)
        if self._page_views:
            of_pages = Sought(frozenset(), frozenset(self._page_views))
            await self._loaded(of_pages)
            await self._read_all(keys, of_pages, len(keys))
        return await self._settled()

    # --- inside

    def _note(self, batch_id: str | None, line: int | None, page_view_id: str | None = None) -> None:
        if batch_id is None or line is None or not is_batch_id(batch_id) or batch_time_ms(batch_id) not in self._span:
            return
        self._lines.setdefault(batch_id, BitMap()).add(line)
        if page_view_id:
            self._page_views.add(page_view_id)

    async def _loaded(self, sought: Sought) -> None:
        """Rows of the warehouse with the ids; of `rejected` those whose payload names them."""
        for flow in FLOWS:
            for column, ids in (("visitor_id", sought.visitor_ids), ("page_view_id", sought.page_view_ids)):
                if column in flow.names and ids:
                    frame = await self._ports.rows.with_ids(flow.name, column, sorted(ids))
                    for place in frame.select("batch_id", "line", "page_view_id").iter_rows():
                        self._note(*place)
        for text in sorted(sought.visitor_ids):
            frame = await self._ports.rows.payloads(text)
            for batch_id, line, payload in frame.select("batch_id", "line", "payload").iter_rows():
                if is_named_in(payload or "", sought):
                    self._note(batch_id, line)

    async def _raw_keys(self) -> AsyncIterator[str]:
        async for info in self._ports.store.list("raw/"):
            batch_id = info.key.rpartition("/")[2].removesuffix(_ENDING)
            if is_batch_id(batch_id) and batch_time_ms(batch_id) in self._span:
                yield info.key

    async def _read_all(self, keys: list[str], sought: Sought, done: int) -> None:
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            await asyncio.gather(*(self._read(key, sought) for key in some))
            self._show(done + start + len(some), 2 * len(keys), "")

    async def _read(self, key: str, sought: Sought) -> None:
        batch_id = key.rpartition("/")[2].removesuffix(_ENDING)
        try:
            raw = await self._ports.store.get(key)
            found = await asyncio.to_thread(_scan, raw, sought)
        except ObjectMissing:
            return  # expired meanwhile
        except FormatInvalid as exc:
            left = Left(batch_id=batch_id, reason=f"its raw file is damaged: {exc}: see `instream repair`")
            if left not in self._refused:
                self._refused.append(left)
            return
        for line, page_view_id in found:
            self._note(batch_id, line, page_view_id)

    async def _settled(self) -> FoundLines:
        """Tell the lines of complete batches from those that are on their way."""
        settled: dict[str, BitMap] = {}
        waiting: list[Left] = []
        entries = await self._ports.rows.ledger(sorted(self._lines))
        for batch_id, lines in sorted(self._lines.items()):
            own = [(entry.outcome, read_lines(entry.line_set) or BitMap()) for entry in entries.get(batch_id, [])]
            covered = BitMap.union(BitMap(), *(members for _, members in own))
            erased = BitMap.union(BitMap(), *(members for outcome, members in own if outcome == ERASED))
            late, refused = await self._reason(batch_id, lines - covered)
            if late or refused:
                left = Left(batch_id=batch_id, lines=len(lines), reason=late or refused)
                (waiting if late else self._refused).append(left)
            else:
                settled[batch_id] = lines - erased if await self._is_raw_gone(batch_id) else lines
        return FoundLines({batch_id: lines for batch_id, lines in settled.items() if lines}, waiting, self._refused)

    async def _is_raw_gone(self, batch_id: str) -> bool:
        return await self._ports.store.head(raw_key(batch_id, batch_time_ms(batch_id))) is None

    async def _reason(self, batch_id: str, uncovered: BitMap) -> tuple[str, str]:
        """Why the lines of a batch cannot be erased yet, and why not until something is mended; empty if they can."""
        late = refused = ""
        try:
            item = await self._ports.registry.get(batch_id)
        except (FormatInvalid, NewerFormat) as exc:
            return "", f"its registry item cannot be read: {exc}: see `instream repair`"
        if item is None:
            if await self._is_raw_gone(batch_id):
                pass  # everything but the rows has expired
            elif self._ports.clock.now_ms() - batch_time_ms(batch_id) < UNACKNOWLEDGED_MS:
                late = "it is not registered yet: it will be within the hour, or it was never acknowledged"
            else:
                refused = "its raw file has no registry item: `instream repair` registers it; or delete the raw file"
        elif item.epoch != self._settings.epoch:
            refused = f"it is of epoch {item.epoch}: set INSTREAM_EPOCH and INSTREAM_PARTITIONS to it"
        elif item.state is not BatchState.COMPLETE:
            late = "it is on its way: the audit has not marked it as complete"
        elif uncovered:
            refused = f"{len(uncovered)} of its lines are in no ledger: see `instream audit --deep`"
        return late, refused


def _scan(raw: bytes, sought: Sought) -> list[tuple[int, str | None]]:
    found, first_line = [], 0
    for frame in frames_in(raw):
        found += [(each.line, each.page_view_id) for each in lines_in(frame.text, first_line, sought)]
        first_line += frame.text.count(b"\n")
    return found
