"""The tables inside a step: events that wait (state `pending` and `seconds`) and the rows of each flow.

Frames travel as Arrow IPC streams, lz4. Frames of the window hold no IP address and no user agent: both are read on arrival.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from app.core.enrich import Enricher
from app.core.flows import BY_NAME, ENGAGEMENTS, PAGE_VIEWS, REDIRECTS, Flow, Kind
from app.core.parts import Part
from app.core.urls import campaign_of, referrer_of

_DTYPES: Final[dict[Kind, pl.DataType]] = {
    Kind.STRING: pl.String(), Kind.INTEGER: pl.Int64(), Kind.TIMESTAMP: pl.Int64(), Kind.BOOLEAN: pl.Boolean(),
}  # fmt: skip
ROW_SCHEMAS: Final[dict[str, dict[str, pl.DataType]]] = {
    name: {column.name: _DTYPES[column.kind] for column in flow.columns if column.name != "txn_id"}
    for name, flow in BY_NAME.items()
}
"""Of each flow the columns of its rows in a step message, in order."""

_PERSON: Final = ("event_id", "page_view_id", "visitor_id", "occurred_at", "received_at")
_SIGHT: Final = ("country", "region", "city", "browser", "os", "device", "properties", "batch_id", "line")
_PAGE: Final = ("url", "referrer", "article_id", "author_id", "section", "campaign_id")
_STAY: Final = ("dwell_ms", "visible_ms", "scroll_pct")
_INDEX: Final = ("digest", "size")
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


def pack_frame(frame: pl.DataFrame) -> bytes:
    """`frame` as an Arrow IPC stream."""
    out = io.BytesIO()
    frame.rechunk().write_ipc_stream(out, compression="lz4")
    return out.getvalue()


def unpack_frame(packed: bytes, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The frame, or some of its columns, in an Arrow IPC stream."""
    return pl.read_ipc_stream(packed, columns=None if columns is None else list(columns))


def window_columns(part: Part, schema: dict[str, pl.DataType], digests: list[bytes]) -> pl.DataFrame:
    """New firsts or seconds as the window keeps them: `schema` is PENDING_SCHEMA or SECONDS_SCHEMA."""
    frame = part.frame(schema)
    size = pl.Series([ROW_BYTES], dtype=pl.Int64).new_from_index(0, len(part))
    for name in _LONG:
        if name in schema:
            size += frame[name].str.len_bytes().fill_null(0).cast(pl.Int64)
    return frame.hstack([pl.Series("digest", digests, dtype=pl.Binary), size.alias("size")])


def take_rows(
    frames: Mapping[int, pl.DataFrame], places: Sequence[tuple[int, int] | None], names: Sequence[str]
) -> pl.DataFrame:
    """The row at each place (frame number, row), in the order of `places`; a row of NULLs for None."""
    starts: dict[int, int] = {}
    height = 0
    for number, frame in frames.items():
        starts[number] = height
        height += frame.height
    picks = [None if place is None else starts[place[0]] + place[1] for place in places]
    rows = pl.concat([frame.select(names) for frame in frames.values()])
    return rows.select(pl.all().gather(pl.Series(picks, dtype=pl.UInt32)))


def page_view_rows(firsts: pl.DataFrame, seconds: pl.DataFrame | None, enricher: Enricher) -> pl.DataFrame:
    """Rows of `page_views`: closed firsts, each beside its second (NULLs where it has none; None: no first has one)."""
    urls = firsts["url"].to_list()
    came = [referrer_of(*pair) for pair in zip(firsts["referrer"].to_list(), urls, strict=True)]
    article_ids = firsts["article_id"].to_list()
    known = {article_id: enricher.article(article_id) for article_id in set(article_ids)}
    articles = [known[article_id] for article_id in article_ids]
    named = _campaigns(firsts, urls, enricher)
    if seconds is None:
        dtypes = ROW_SCHEMAS[PAGE_VIEWS.name]
        taken = [pl.lit(None, dtype=dtypes[name]).alias(name) for name in _OF_SECOND]
        wide = firsts.with_columns(*taken, pl.lit(value=False).alias("joined"))
    else:
        taken_of = seconds.select(pl.col(source).alias(name) for name, source in _OF_SECOND.items())
        wide = firsts.hstack(taken_of).with_columns(pl.col("engagement_id").is_not_null().alias("joined"))
    wide = wide.with_columns(
        *named,
        _texts("referrer_medium", [c.medium for c in came]),
        _texts("referrer_source", [c.source for c in came]),
        pl.col("author_id").fill_null(_texts("author_id", [a.author_id for a in articles])),
        pl.col("section").fill_null(_texts("section", [a.section for a in articles])),
        _texts("article_title", [a.title for a in articles]),
    )
    return flow_rows(wide, PAGE_VIEWS)


def redirect_rows(part: Part, enricher: Enricher) -> pl.DataFrame:
    """Rows of `redirects`."""
    rows = part.frame(ROW_SCHEMAS[REDIRECTS.name])
    return rows.with_columns(_campaigns(rows, rows["url"].to_list(), enricher))


def engagement_rows(seconds: pl.DataFrame, reasons: Sequence[str]) -> pl.DataFrame:
    """Rows of `engagements`: second events that met no first, each with its reason."""
    return flow_rows(seconds.with_columns(_texts("reason", list(reasons))), ENGAGEMENTS)


def flow_rows(part: pl.DataFrame, flow: Flow) -> pl.DataFrame:
    """The columns of a flow's rows, in order."""
    return part.select(list(ROW_SCHEMAS[flow.name]))


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
