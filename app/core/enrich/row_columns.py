"""The columns that enrichment computes when a row is emitted (rule J5).

A flow gets the columns of an enrichment by naming them in the catalogue (`app.core.formats.flows`), beside the columns that
the enrichment reads. So a new column takes two steps: name it in the catalogue, and let an enrichment here make it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from app.core.enrich.enrich import Enricher
from app.core.enrich.page_urls import PageUrl
from app.core.formats.columns import DTYPES, column
from app.core.formats.flows import FLOWS, Flow

Values = Sequence[Any]
"""A column: one value for each row, None for NULL."""


class Enrichment(NamedTuple):
    """Some columns that are made together."""

    makes: tuple[str, ...]
    reads: tuple[str, ...]
    """Columns of the same row, in the order in which the function gets them."""
    make: Callable[[Enricher, Sequence[Values]], Sequence[Values]]
    """The columns of `makes`, in order. Of a row without any of `reads` it makes NULLs: it is not asked about those."""


def _page_url(enricher: Enricher, read: Sequence[Values]) -> Sequence[Values]:
    """The facts in the URL; the event's own campaign goes before the URL's. And the campaign's attributes in the table."""
    owns, urls = read
    pages = list(map(enricher.page_url, urls))
    host, path, campaign, *tags = zip(*pages, strict=True) if pages else [()] * len(PageUrl._fields)
    ids = [own or named for own, named in zip(owns, campaign, strict=True)]
    known = {campaign_id: enricher.campaign(campaign_id) for campaign_id in set(ids)}
    campaigns = [known[campaign_id] for campaign_id in ids]
    return ids, [c.name for c in campaigns], [c.network for c in campaigns], host, path, *tags


def _versions(enricher: Enricher, read: Sequence[Values]) -> Sequence[Values]:
    """The versions of browser and system."""
    agents = list(map(enricher.agent, read[0]))
    return [a.browser_version for a in agents], [a.os_version for a in agents]


def _currency(_: Enricher, read: Sequence[Values]) -> Sequence[Values]:
    """The code in upper case, as ISO 4217 writes it."""
    codes = {code: code and code.upper() for code in set(read[0])}
    return ([codes[code] for code in read[0]],)


def _referrer(enricher: Enricher, read: Sequence[Values]) -> Sequence[Values]:
    """Medium and source of the visit."""
    came = [enricher.referrer(referrer, url) for referrer, url in zip(*read, strict=True)]
    return [c.medium for c in came], [c.source for c in came]


def _article(enricher: Enricher, read: Sequence[Values]) -> Sequence[Values]:
    """The event's own author and section, or those of its article in the dimension table; and the article's title."""
    article_ids, authors, sections = read
    known = {article_id: enricher.article(article_id) for article_id in set(article_ids)}
    articles = [known[article_id] for article_id in article_ids]
    return (
        [a.author_id if own is None else own for own, a in zip(authors, articles, strict=True)],
        [a.section if own is None else own for own, a in zip(sections, articles, strict=True)],
        [a.title for a in articles],
    )


PAGE_URL: Final = Enrichment(
    ("campaign_id", "campaign_name", "campaign_network", *PageUrl._fields[:2], *PageUrl._fields[3:]),
    ("campaign_id", "url"),
    _page_url,
)
REFERRER: Final = Enrichment(("referrer_medium", "referrer_source"), ("referrer", "url"), _referrer)
ENRICHMENTS: Final = (
    PAGE_URL,
    REFERRER,
    Enrichment(("author_id", "section", "article_title"), ("article_id", "author_id", "section"), _article),
    Enrichment(("browser_version", "os_version"), ("user_agent",), _versions),
    Enrichment(("currency",), ("currency",), _currency),
)


def enrichments_of(flow: Flow) -> list[Enrichment]:
    """The enrichments whose columns a flow names, if it also has the columns that they read."""
    names = frozenset(flow.names)
    return [e for e in ENRICHMENTS if names.issuperset(e.reads) and not names.isdisjoint(e.makes)]


_OF_FLOW: Final = {flow.name: enrichments_of(flow) for flow in FLOWS}
_DTYPES: Final = {flow.name: {column.name: DTYPES[column.kind] for column in flow.columns} for flow in FLOWS}


def enrich_rows(flow: Flow, rows: pl.DataFrame, enricher: Enricher) -> list[pl.Series]:
    """The columns of `flow` that enrichment makes of `rows`, less those without a value (rule J5)."""
    held = frozenset(rows.columns)
    read: dict[str, Values] = {}
    made: list[pl.Series | None] = []
    dtypes = _DTYPES[flow.name]
    for enrichment in _OF_FLOW[flow.name]:
        if held.isdisjoint(enrichment.reads):
            continue
        for name in enrichment.reads:
            if name not in read:
                read[name] = rows[name].to_list() if name in held else [None] * rows.height
        columns = enrichment.make(enricher, [read[name] for name in enrichment.reads])
        named = zip(enrichment.makes, columns, strict=True)
        made += [column(name, values, dtypes[name]) for name, values in named if name in dtypes]
    return [made_column for made_column in made if made_column is not None]
