"""The columns that enrichment computes, out of cells: each function of `ENRICHMENTS` is asked once for each distinct answer.

Rows with equal values in the columns that an enrichment reads share its answer. Two enrichments read addresses, which are
nearly all distinct; kernels cut these first:

    a page's URL    its parts are pieces of its text: they are cut out as they are, and nothing is asked of Python
    a referrer      its answer depends on the hosts alone: rows with equal hosts share it

An address that is written in an odd way goes whole to the enrichment's function.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.enrich.enrich import Enricher
from app.core.enrich.page_urls import MAX_HOST_BYTES, PageUrl
from app.core.enrich.referrers import ReferrerList, tells_host
from app.core.enrich.row_columns import PAGE_URL, REFERRER, Enrichment, enrichments_of
from app.core.enrich.url_tags import CLICK_ID_SOURCES, MAX_TAG_BYTES
from app.core.formats.arrow_stream import BufferKind
from app.core.formats.cell_table import (
    BUFFER_KINDS,
    NO_LINE,
    CellTable,
    Columns,
    Groups,
    Source,
    group,
    table_of,
)
from app.core.formats.flows import FLOWS, Flow
from app.kernels.addresses import HOST, PATH, cut_addresses, cut_authorities
from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words

_OF_FLOW: Final = {flow.name: enrichments_of(flow) for flow in FLOWS}
_KINDS: Final = {flow.name: {column.name: BUFFER_KINDS[column.kind] for column in flow.columns} for flow in FLOWS}


def enrich_cells(flow: Flow, held: Columns, height: int, enricher: Enricher) -> dict[str, Source]:
    """The columns of `flow` that enrichment makes of the columns `held`, which have `height` rows (rule J5).

    They hold what `app.core.enrich.row_columns.enrich_rows` makes of the same rows.
    """
    made: dict[str, Source] = {}
    kinds = _KINDS[flow.name]
    for enrichment in _OF_FLOW[flow.name]:
        if held.keys().isdisjoint(enrichment.reads):
            continue
        read = [held.get(name) or _nothing(kinds[name], height) for name in enrichment.reads]
        columns = _MAKERS.get(enrichment, _of_distinct)(enrichment, read, kinds, enricher)
        made |= {name: source for name, source in columns.items() if name in kinds}
    return made


def _nothing(kind: BufferKind, height: int) -> Source:
    """A column of NULLs."""
    return Source(_EMPTY, np.full(height, NO_LINE, np.int64), "", kind)


_EMPTY: Final = table_of({"": (BufferKind.TEXT, [None])})


def _of_distinct(
    enrichment: Enrichment, read: Sequence[Source], kinds: Mapping[str, BufferKind], enricher: Enricher
) -> dict[str, Source]:
    """The columns of an enrichment that knows nothing of its values but that equal ones have equal answers."""
    return _of_groups(enrichment, read, group(read), kinds, enricher)


def _of_groups(
    enrichment: Enrichment, read: Sequence[Source], groups: Groups, kinds: Mapping[str, BufferKind], enricher: Enricher
) -> dict[str, Source]:
    """The columns of an enrichment; the answer for the first row of each group is that of the whole group."""
    answers = enrichment.make(enricher, [source.values(groups.firsts) for source in read])
    named = {name: (kinds[name], values) for name, values in zip(enrichment.makes, answers, strict=True) if name in kinds}
    facts = table_of(named)
    return {name: Source(facts, groups.of_line, name, kind) for name, (kind, _) in named.items()}


# Referrers

_CAME, _TO, _WHOLE = range(3)


def _of_hosts(
    enrichment: Enrichment, read: Sequence[Source], kinds: Mapping[str, BufferKind], enricher: Enricher
) -> dict[str, Source]:
    """Medium and source of visits, once for each pair of hosts."""
    referrers, urls = read
    if (
        not isinstance(enricher.referrer, ReferrerList)
        or referrers.table is not urls.table
        or referrers.lines is not urls.lines
    ):
        return _of_distinct(enrichment, read, kinds, enricher)
    table, lines, height = referrers.table, referrers.lines, len(referrers.lines)
    cells, have = np.zeros((height, 3), np.int64), np.zeros(height, np.uint64)
    cut_authorities(table.arena, table.rec, table.present, lines, referrers.field, _CAME, cells, have)
    cut_authorities(table.arena, table.rec, table.present, lines, urls.field, _TO, cells, have)
    odd = (have >> np.uint64(_CAME)) & np.uint64(1) == 0
    while True:
        _take_whole(referrers, np.flatnonzero(odd), cells, have)
        hosts = CellTable(table.arena, cells, have, {"came": _CAME, "to": _TO, "whole": _WHOLE})
        places = np.arange(height)
        groups = group([Source(hosts, places, name, BufferKind.TEXT) for name in hosts.fields])
        firsts = referrers.values(groups.firsts)
        asked = [text is not None and not tells_host(text) for text in firsts]
        more = np.array(asked, np.bool_)[groups.of_line] & ~odd
        if not more.any():
            return _of_groups(enrichment, read, groups, kinds, enricher)
        odd |= more


def _take_whole(referrers: Source, rows: Ints, cells: Ints, have: Words) -> None:
    """Let the whole referrer of some rows be their key, apart from all hosts."""
    lines = referrers.lines[rows]
    rows, lines = rows[lines >= 0], lines[lines >= 0]
    held = (referrers.table.present[lines] >> np.uint64(referrers.field)) & np.uint64(1) == 1
    rows, lines = rows[held], lines[held]
    cells[rows, _CAME] = referrers.table.rec[lines, referrers.field]
    have[rows] |= np.uint64(1 << _CAME | 1 << _WHOLE)  # the third text is empty, and there


# Pages

_TAG_COLUMNS: Final = ("campaign", "utm_source", "utm_medium", "utm_term", "utm_content", "click_id")
_CUT_COLUMNS: Final = {"host": HOST, "path": PATH, **{name: PATH + 1 + n for n, name in enumerate(_TAG_COLUMNS)}}
_NAMES: Final = tuple(sorted(MAX_TAG_BYTES, key=lambda name: name in CLICK_ID_SOURCES))
"""The names of tags, those of click ids last."""
_WIDTH: Final = len(_CUT_COLUMNS)


def _words(name: bytes) -> list[int]:
    """A name of at most 16 bytes as `cut_addresses` takes it."""
    masks = [b"\xff" * min(8, max(0, len(name) - at)) for at in (0, 8)]
    return [int.from_bytes(part, "little") for part in (name[:8], name[8:], *masks)]


def _column_of(name: str) -> int:
    return _CUT_COLUMNS["click_id" if name in CLICK_ID_SOURCES else name.replace("utm_campaign", "campaign")]


_TAG_WORDS: Final = np.array([_words(name.encode()) for name in _NAMES], np.uint64)
_TAG_SIZES: Final = np.array([len(name) for name in _NAMES], np.int64)
_TAG_PLACES: Final = np.array([_column_of(name) for name in _NAMES], np.int64)
_TAG_LIMITS: Final = np.array([MAX_TAG_BYTES[name] for name in _NAMES], np.int64)
_SERVICES: Final = table_of({"click_id_source": (BufferKind.TEXT, [CLICK_ID_SOURCES.get(name) for name in _NAMES])})
_A_NAME_OF: Final = {CLICK_ID_SOURCES.get(name): number for number, name in enumerate(_NAMES)}
"""Service, None for none -> the number of a name that tells it."""


def _of_parts(
    enrichment: Enrichment, read: Sequence[Source], kinds: Mapping[str, BufferKind], enricher: Enricher
) -> dict[str, Source]:
    """The facts in pages' URLs, cut out of them; and the attributes of their campaigns."""
    owns, urls = read
    if owns.table is not _EMPTY and (owns.table is not urls.table or owns.lines is not urls.lines):
        return _of_distinct(enrichment, read, kinds, enricher)
    table, lines, height = urls.table, urls.lines, len(urls.lines)
    cells, have = np.zeros((height, _WIDTH), np.int64), np.empty(height, np.uint64)
    found, odd = np.empty(height, np.int64), np.empty(height, np.int64)
    count = cut_addresses(
        table.arena, table.rec, table.present, lines, urls.field, MAX_HOST_BYTES, _TAG_WORDS, _TAG_SIZES, _TAG_PLACES,
        _TAG_LIMITS, cells, have, found, odd,
    )  # fmt: skip
    arena = table.arena
    if count:
        pages = [enricher.page_url(url) for url in urls.values(odd[:count])]
        arena = _take_odd(pages, arena, odd[:count], _Parts(cells, have, found))
    if owns.table is urls.table:
        _prefer_own(owns, cells, have)
    parts, places = CellTable(arena, cells, have, _CUT_COLUMNS), np.arange(height)
    columns = {name: Source(parts, places, name, BufferKind.TEXT) for name in _CUT_COLUMNS}
    columns["campaign_id"] = ids = columns.pop("campaign")
    columns["click_id_source"] = Source(_SERVICES, found, "click_id_source", BufferKind.TEXT)
    groups = group([ids])
    campaigns = [enricher.campaign(campaign_id) for campaign_id in ids.values(groups.firsts)]
    facts = table_of(
        {
            "campaign_name": (BufferKind.TEXT, [campaign.name for campaign in campaigns]),
            "campaign_network": (BufferKind.TEXT, [campaign.network for campaign in campaigns]),
        }
    )
    return columns | {name: Source(facts, groups.of_line, name, BufferKind.TEXT) for name in facts.fields}


class _Parts(NamedTuple):
    """What `cut_addresses` writes."""

    cells: Ints
    have: Words
    found: Ints


def _take_odd(pages: Sequence[PageUrl], arena: Bytes, odd: Ints, parts: _Parts) -> Bytes:
    """Put the parts of odd URLs among those of the others. Returns: the arena of all cells."""
    cells, have, found = parts
    read = table_of({
        name: (BufferKind.TEXT, [getattr(page, name) for page in pages]) for name in _CUT_COLUMNS
    })  # fmt: skip
    shift = len(arena)
    cells[odd] = read.rec + (shift << LEN_BITS)
    have[odd] = read.present
    found[odd] = [_A_NAME_OF[page.click_id_source] for page in pages]
    return np.concatenate([arena, read.arena])


def _prefer_own(owns: Source, cells: Ints, have: Words) -> None:
    """Let the campaign that an event names itself go before the one in its URL."""
    lines = owns.lines
    own = owns.table.rec[lines, owns.field]
    is_held = (owns.table.present[lines] >> np.uint64(owns.field)) & np.uint64(1) == 1
    rows = np.flatnonzero(is_held & (lines >= 0) & (own & LEN_MASK > 0))
    cells[rows, _CUT_COLUMNS["campaign"]] = own[rows]
    have[rows] |= np.uint64(1 << _CUT_COLUMNS["campaign"])


_Maker = Callable[[Enrichment, Sequence[Source], Mapping[str, BufferKind], Enricher], dict[str, Source]]
_MAKERS: Final[dict[Enrichment, _Maker]] = {PAGE_URL: _of_parts, REFERRER: _of_hosts}
