"""The tables inside a step: events that wait (state `pending` and `seconds`) and the rows of each flow.

Frames of the window hold no IP address and no user agent: both are read on arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import polars as pl

from app.core.enrich.enrich import Enricher
from app.core.enrich.urls import campaign_of, referrer_of
from app.core.etl.lines import Part
from app.core.events.canonical_json import utf8_length
from app.core.formats.columns import DTYPES, gather, nothing, stack
from app.core.formats.flows import BY_NAME, ENGAGEMENTS, PAGE_VIEWS, REDIRECTS, Flow

ROW_SCHEMAS: Final[dict[str, dict[str, pl.DataType]]] = {
    name: {column.name: DTYPES[column.kind] for column in flow.columns if column.name != "txn_id"}
    for name, flow in BY_NAME.items()
}
"""Of each flow the columns of its rows in a step message, in order."""

_PERSON: Final = ("event_id", "page_view_id", "visitor_id", "occurred_at", "received_at")
_SIGHT: Final = ("country", "region", "city", "browser", "os", "device", "properties", "batch_id", "line")
_PAGE: Final = ("url", "referrer", "article_id", "author_id", "section", "campaign_id")
_STAY: Final = ("dwell_ms", "visible_ms", "scroll_pct")
_INDEX: Final = ("digest", "size")
"""Digest of the page view; how much room the event takes in a message, estimated."""
PENDING_COLUMNS: Final = (*_PERSON, *_SIGHT, *_PAGE, *_INDEX)
SECONDS_COLUMNS: Final = (*_PERSON, *_SIGHT, *_STAY, *_INDEX)
PENDING_SCHEMA: Final = {name: ROW_SCHEMAS[PAGE_VIEWS.name][name] for name in (*_PERSON, *_SIGHT, *_PAGE)}
SECONDS_SCHEMA: Final = {name: ROW_SCHEMAS[ENGAGEMENTS.name][name] for name in (*_PERSON, *_SIGHT, *_STAY)}
_LONG: Final = ("url", "referrer", "properties")
_OF_SECOND: Final = {
    "engagement_id": "event_id", "engaged_at": "occurred_at", "dwell_ms": "dwell_ms", "visible_ms": "visible_ms",
    "scroll_pct": "scroll_pct", "engagement_properties": "properties",
}  # fmt: skip
"""What a first's row takes of its second."""
ROW_BYTES: Final = 400
"""Rough size of a row without its long texts."""


def window_columns(events: pl.DataFrame, digests: list[bytes]) -> pl.DataFrame:
    """New firsts or seconds as the window keeps them, from their columns of PENDING_SCHEMA or SECONDS_SCHEMA."""
    sizes = [ROW_BYTES] * events.height
    for name in _LONG:
        if name in events.columns:
            texts = zip(sizes, events[name].to_list(), strict=True)
            sizes = [size + utf8_length(text) if text else size for size, text in texts]
    return events.hstack([pl.Series("digest", digests, dtype=pl.Binary), pl.Series("size", sizes, dtype=pl.Int64)])


def take_rows(
    frames: Mapping[int, pl.DataFrame], places: Sequence[tuple[int, int] | None], names: Sequence[str]
) -> pl.DataFrame:
    """The row at each place (frame number, row), in the order of `places`; a row of NULLs for None."""
    starts: dict[int, int] = {}
    height = 0
    for number in sorted(frames):
        starts[number] = height
        height += frames[number].height
    rows = stack([frames[number][names] for number in starts])
    picks = [None if place is None else starts[place[0]] + place[1] for place in places]
    if (first := picks[0]) is not None and picks == list(range(first, first + len(picks))):  # as most firsts lie
        return rows[first : first + len(picks)]
    return gather(rows.rechunk(), picks)


def page_view_rows(first_events: pl.DataFrame, second_events: pl.DataFrame | None, enricher: Enricher) -> pl.DataFrame:
    """Rows of `page_views`: closed firsts, each beside its second (NULLs where it has none; None: no first has one)."""
    urls = first_events["url"].to_list()
    came = [referrer_of(*pair) for pair in zip(first_events["referrer"].to_list(), urls, strict=True)]
    article_ids = first_events["article_id"].to_list()
    known = {article_id: enricher.article(article_id) for article_id in set(article_ids)}
    articles = [known[article_id] for article_id in article_ids]
    made = _campaigns(first_events, urls, enricher)
    made += [
        _texts("referrer_medium", [c.medium for c in came]),
        _texts("referrer_source", [c.source for c in came]),
        _texts("author_id", _or_else(first_events["author_id"], [a.author_id for a in articles])),
        _texts("section", _or_else(first_events["section"], [a.section for a in articles])),
        _texts("article_title", [a.title for a in articles]),
    ]
    if second_events is not None:
        made += [second_events[source].alias(name) for name, source in _OF_SECOND.items()]
        made.append(second_events["event_id"].is_not_null().alias("joined"))
    else:
        made.append(pl.Series("joined", [False]).new_from_index(0, first_events.height))
    return flow_rows(PAGE_VIEWS, first_events, made)


def redirect_rows(part: Part, enricher: Enricher) -> pl.DataFrame:
    """Rows of `redirects`."""
    rows = part.frame(ROW_SCHEMAS[REDIRECTS.name])
    return flow_rows(REDIRECTS, rows, _campaigns(rows, rows["url"].to_list(), enricher))


def engagement_rows(second_events: pl.DataFrame, reasons: Sequence[str]) -> pl.DataFrame:
    """Rows of `engagements`: second events that met no first, each with its reason."""
    return flow_rows(ENGAGEMENTS, second_events, [_texts("reason", reasons)])


def flow_rows(flow: Flow, held: pl.DataFrame, made: Iterable[pl.Series]) -> pl.DataFrame:
    """The columns of a flow's rows, in order: those that were `made`, of the others those `held`, of the rest NULLs."""
    columns = {column.name: column for column in (*held, *made)}
    schema = ROW_SCHEMAS[flow.name]
    return pl.DataFrame(
        [columns[name] if name in columns else nothing(name, dtype, held.height) for name, dtype in schema.items()]
    )


def _or_else(own: pl.Series, others: Sequence[str | None]) -> list[str | None]:
    return [other if value is None else value for value, other in zip(own.to_list(), others, strict=True)]


def _campaigns(part: pl.DataFrame, urls: list[str | None], enricher: Enricher) -> list[pl.Series]:
    """The campaign of each row, the event's own or its URL's, and what is known of it."""
    pairs = zip(part["campaign_id"].to_list(), urls, strict=True)
    ids = [own or campaign_of(url) for own, url in pairs]
    known = {campaign_id: enricher.campaign(campaign_id) for campaign_id in set(ids)}
    campaigns = [known[campaign_id] for campaign_id in ids]
    return [
        _texts("campaign_id", ids),
        _texts("campaign_name", [c.name for c in campaigns]),
        _texts("campaign_network", [c.network for c in campaigns]),
    ]


def _texts(name: str, values: Sequence[str | None]) -> pl.Series:
    return pl.Series(name, values, dtype=pl.String)
