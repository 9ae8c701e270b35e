"""The catalogue of what the pipeline writes: six flows, ledger, replays and dead letters, their columns and file formats.

Table and column names are the public contract of schema `analytics`. The frames inside the pipeline (topic `rows`) have a
flow's columns without `txn_id` and `loaded_at`: the sink adds the first, the warehouse the second.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class ColumnKind(StrEnum):
    """A column's type; frames hold timestamps as Int64 milliseconds since the epoch."""

    STRING = "string"
    TIMESTAMP = "timestamp"
    INTEGER = "integer"
    BOOLEAN = "boolean"


class Column(NamedTuple):
    """One column of a flow."""

    name: str
    kind: ColumnKind = ColumnKind.STRING
    max_bytes: int = 0
    """Longest string in UTF-8 bytes; 0 for other kinds."""


class Format(StrEnum):
    """A file's format and codec, as COPY knows them."""

    TSV_ZSTD = "tsv.zst"
    TSV_GZIP = "tsv.gz"
    TSV_BZIP2 = "tsv.bz2"
    AVRO_DEFLATE = "deflate.avro"
    AVRO_NULL = "avro"


class Flow(NamedTuple):
    """One output: a warehouse table fed by files of one format. The file's ending is `format.value`."""

    name: str
    format: Format
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in file order."""
        return tuple(column.name for column in self.columns)


def _text(max_bytes: int, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.STRING, max_bytes) for name in names)


def _integers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.INTEGER) for name in names)


def _times(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.TIMESTAMP) for name in names)


MAX_PROPERTIES_BYTES: Final = 32 * 1024
MAX_PAYLOAD_BYTES: Final = 4 * 1024
_PLACE: Final = (*_text(36, "batch_id"), *_integers("line"), *_text(64, "txn_id"))
_WHO: Final = (*_text(64, "event_id", "page_view_id", "visitor_id"), *_times("occurred_at", "received_at"))
_WHERE: Final = (*_text(128, "country", "region", "city"), *_text(64, "browser", "os", "device"))
_COMMON: Final = (*_WHO, *_WHERE, *_text(MAX_PROPERTIES_BYTES, "properties"), *_PLACE)
_AD: Final = (
    *_COMMON, *_text(128, "article_id", "campaign_id"), *_integers("ad_slot"),
    *_text(128, "creative_id"), *_integers("revenue_micros"),
)  # fmt: skip

PAGE_VIEWS: Final = Flow("page_views", Format.TSV_ZSTD, (
    *_COMMON, *_text(4096, "url", "referrer"), *_text(64, "referrer_medium"), *_text(256, "referrer_source"),
    *_text(128, "article_id", "author_id", "section", "campaign_id"), Column("joined", ColumnKind.BOOLEAN),
    *_text(64, "engagement_id"), *_times("engaged_at"), *_integers("dwell_ms", "visible_ms", "scroll_pct"),
    *_text(MAX_PROPERTIES_BYTES, "engagement_properties"),
    *_text(1024, "article_title", "campaign_name"), *_text(128, "campaign_network"),
))  # fmt: skip
AD_IMPRESSIONS: Final = Flow("ad_impressions", Format.TSV_GZIP, _AD)
AD_CLICKS: Final = Flow("ad_clicks", Format.AVRO_DEFLATE, _AD)
REDIRECTS: Final = Flow("redirects", Format.AVRO_DEFLATE, (
    *_COMMON, *_text(4096, "url", "referrer"), *_text(128, "article_id", "campaign_id"), *_integers("cost_micros"),
    *_text(1024, "campaign_name"), *_text(128, "campaign_network"),
))  # fmt: skip
ENGAGEMENTS: Final = Flow("engagements", Format.TSV_BZIP2, (
    *_COMMON, *_integers("dwell_ms", "visible_ms", "scroll_pct"), *_text(16, "reason"),
))  # fmt: skip
REJECTED: Final = Flow("rejected", Format.AVRO_NULL, (
    *_text(64, "event_id"), *_text(32, "event_type"), *_text(16, "kind"), *_text(256, "reason"),
    *_text(1024, "user_agent"), *_text(64, "ip"), *_text(MAX_PAYLOAD_BYTES, "payload"), *_times("received_at"), *_PLACE,
))  # fmt: skip
LEDGER: Final = Flow("ledger", Format.TSV_ZSTD, (
    *_text(64, "txn_id"), *_text(36, "batch_id"), *_text(32, "outcome"), *_integers("lines"), *_text(65535, "line_set"),
))  # fmt: skip
REPLAYS: Final = Flow("replays", Format.TSV_ZSTD, (
    *_text(64, "txn_id"), *_text(36, "batch_id"), *_integers("block", "attempt"),
))  # fmt: skip

DEAD_LETTERS: Final = Flow("dead_letters", Format.TSV_ZSTD, (
    *_text(64, "txn_id"), *_text(36, "batch_id"), *_integers("block", "attempt", "source_offset"), *_text(1024, "reason"),
))  # fmt: skip

FLOWS: Final = (PAGE_VIEWS, AD_IMPRESSIONS, AD_CLICKS, REDIRECTS, ENGAGEMENTS, REJECTED)
"""The six flows, in the order of every listing."""
OUTPUTS: Final = (*FLOWS, LEDGER, REPLAYS, DEAD_LETTERS)
"""Everything one transaction writes, in the order it is loaded."""
BY_NAME: Final = {flow.name: flow for flow in OUTPUTS}

JOINED: Final = "joined"
DUPLICATE: Final = "duplicate"
OUTCOMES: Final = (*(flow.name for flow in FLOWS), JOINED, DUPLICATE)
"""What can become of a line: a row of a flow, part of a first event's row, or dropped as a duplicate."""
