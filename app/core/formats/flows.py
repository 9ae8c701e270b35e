"""The catalogue of the pipeline's outputs: six flows, ledger, replays and dead letters, their columns and file formats.

Files, Avro schemas, COPY and the warehouse's tables (`tables.py` has those that no file feeds) derive from it. Table and
column names are the public contract of schema `analytics`: add columns, never rename. A column that is added later has the
flow's version in `since`, and may be NULL.

The frames inside the pipeline (topic `rows`) have a flow's columns without `txn_id` and `loaded_at`: the sink adds the
first, the warehouse the second.
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
    """One column of a flow or of a warehouse table."""

    name: str
    kind: ColumnKind = ColumnKind.STRING
    max_bytes: int = 0
    """Longest string in UTF-8 bytes; 0 for other kinds."""
    integer_bytes: int = 8
    """Bytes of an integer in the warehouse: 2, 4 or 8."""
    required: bool = False
    """Whether the warehouse refuses NULL."""
    default: str = ""
    """SQL for the value if a file or statement does not name the column; empty for NULL."""
    since: int = 1
    """The version of the flow that brought the column."""
    of_second: str = ""
    """In a first event's row: the field of its second event that the column holds."""


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
    about: str
    """The meaning of a row."""
    distributed_by: str = "page_view_id"
    """The column whose equal values the warehouse keeps on one node; empty for even distribution."""
    sorted_by: str = "received_at"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in file order."""
        return tuple(column.name for column in self.columns)

    @property
    def version(self) -> int:
        """The newest of the columns' versions."""
        return max(column.since for column in self.columns)

    def at(self, version: int) -> "Flow":
        """The flow at a version: without the columns that came later."""
        return self._replace(columns=tuple(column for column in self.columns if column.since <= version))


def _text(max_bytes: int, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.STRING, max_bytes) for name in names)


def _integers(*names: str, size: int = 8) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.INTEGER, integer_bytes=size) for name in names)


def _times(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, ColumnKind.TIMESTAMP) for name in names)


def _required(*columns: Column) -> tuple[Column, ...]:
    return tuple(column._replace(required=True) for column in columns)


def _of_second(field: str, *columns: Column) -> tuple[Column, ...]:
    """Columns that hold a field of the second event; without a name each holds the field of its own name."""
    return tuple(column._replace(of_second=field or column.name) for column in columns)


def _since(version: int, *columns: Column) -> tuple[Column, ...]:
    return tuple(column._replace(since=version) for column in columns)


MAX_PROPERTIES_BYTES: Final = 32 * 1024
MAX_INVALID_FIELDS_BYTES: Final = 1024
MAX_PAYLOAD_BYTES: Final = 4 * 1024
MAX_LINE_BITS: Final = 65535
"""A VARCHAR has no more; ledger rows that span more lines are cut."""
_PLACE: Final = _required(*_text(36, "batch_id"), *_integers("line", size=4), *_text(64, "txn_id"))
_WHO: Final = (*_text(64, "event_id", "page_view_id", "visitor_id"), *_times("occurred_at", "received_at"))
_WHERE: Final = (*_text(128, "country", "region", "city"), *_text(64, "browser", "os", "device"))
_COMMON: Final = (*_WHO, *_WHERE, *_text(MAX_PROPERTIES_BYTES, "properties"), *_PLACE)
_KEY: Final = Column("key_kind", ColumnKind.STRING, 16, since=2)
_INVALID: Final = Column("invalid_fields", ColumnKind.STRING, MAX_INVALID_FIELDS_BYTES, since=2)
_CURRENCY: Final = _since(2, *_text(3, "currency"))


def _kept(since: int) -> tuple[Column, ...]:
    """The last columns that all flows of events have, with the version of the flow that brought them."""
    return _INVALID._replace(since=since), _KEY._replace(since=since)


_AD: Final = (
    *_COMMON, *_text(128, "article_id", "campaign_id"), *_integers("ad_slot", size=2),
    *_text(128, "creative_id"), *_integers("revenue_micros"), *_CURRENCY, *_kept(2),
)  # fmt: skip
_ENGAGED: Final = (*_integers("dwell_ms", "visible_ms"), *_integers("scroll_pct", size=2))
_ENGAGED_MS: Final = _since(2, *_integers("engaged_ms"))
_OF_URL: Final = _since(
    2, *_text(256, "host"), *_text(4096, "path"), *_text(256, "utm_source", "utm_medium", "utm_term", "utm_content"),
    *_text(512, "click_id"), *_text(32, "click_id_source"),
)  # fmt: skip
_OF_PAGE: Final = _since(
    2, *_text(512, "title"), *_text(35, "language"), *_text(64, "time_zone", "session_id"),
    *_integers("screen_width", "viewport_width"), *_text(64, "browser_version", "os_version"), *_text(1024, "user_agent"),
)  # fmt: skip

PAGE_VIEWS: Final = Flow("page_views", Format.TSV_ZSTD, (
    *_COMMON, *_text(4096, "url", "referrer"), *_text(64, "referrer_medium"), *_text(256, "referrer_source"),
    *_text(128, "article_id", "author_id", "section", "campaign_id"), Column("joined", ColumnKind.BOOLEAN),
    *_of_second("event_id", *_text(64, "engagement_id")), *_of_second("occurred_at", *_times("engaged_at")),
    *_of_second("", *_ENGAGED), *_of_second("properties", *_text(MAX_PROPERTIES_BYTES, "engagement_properties")),
    *_text(1024, "article_title", "campaign_name"), *_text(128, "campaign_network"),
    *_of_second("", *_ENGAGED_MS), *_OF_URL, *_OF_PAGE,
    *_kept(2), _INVALID._replace(name="engagement_invalid_fields", of_second="invalid_fields"),
), about="a first event with all fields of its second, where one joined")  # fmt: skip
AD_IMPRESSIONS: Final = Flow("ad_impressions", Format.TSV_GZIP, _AD, about="an ad was shown on a page view")
AD_CLICKS: Final = Flow("ad_clicks", Format.AVRO_DEFLATE, _AD, about="an ad was clicked on a page view")
REDIRECTS: Final = Flow("redirects", Format.AVRO_DEFLATE, (
    *_COMMON, *_text(4096, "url", "referrer"), *_text(128, "article_id", "campaign_id"), *_integers("cost_micros"),
    *_text(1024, "campaign_name"), *_text(128, "campaign_network"), *_CURRENCY,
    *_since(2, *_text(64, "referrer_medium"), *_text(256, "referrer_source")), *_OF_URL, *_kept(2),
), about="a paid redirect brought a visitor, and what it cost", distributed_by="campaign_id")  # fmt: skip
ENGAGEMENTS: Final = Flow(
    "engagements", Format.TSV_BZIP2, (*_COMMON, *_ENGAGED, *_text(16, "reason"), *_ENGAGED_MS, *_kept(2)),
    about="a second event that met no first event, with the reason: no_first, late or extra",
)  # fmt: skip
REJECTED: Final = Flow("rejected", Format.AVRO_NULL, (
    *_text(64, "event_id"), *_text(32, "event_type"), *_required(*_text(16, "kind")), *_text(256, "reason"),
    *_text(1024, "user_agent"), *_text(64, "ip"), *_text(MAX_PAYLOAD_BYTES, "payload"), *_times("received_at"), *_PLACE,
    _KEY,
), about="a bot or a malformed line, with the rule that caught it", distributed_by="")  # fmt: skip
LEDGER: Final = Flow("ledger", Format.TSV_ZSTD, (
    *_required(*_text(64, "txn_id"), *_text(36, "batch_id"), *_text(32, "outcome"), *_integers("lines", size=4),
               *_text(65535, "line_set")),
    *_since(2, *_integers("first_line", "last_line", size=4), *_text(MAX_LINE_BITS, "line_bits")),
),
    about="what became of lines of a batch: line_set is a Roaring bitmap in base64 with `lines` members; line_bits is it "
    "for SQL, a character for each line from first_line to last_line: 1 if it is a member (view `line_fates`)",
    distributed_by="batch_id", sorted_by="batch_id")  # fmt: skip
REPLAYS: Final = Flow("replays", Format.TSV_ZSTD, _required(
    *_text(64, "txn_id"), *_text(36, "batch_id"), *_integers("block", "attempt", size=4),
), about="a block that came again and was dropped whole", distributed_by="batch_id", sorted_by="batch_id")  # fmt: skip

DEAD_LETTERS: Final = Flow("dead_letters", Format.TSV_ZSTD, (
    *_required(*_text(64, "txn_id")), *_text(36, "batch_id"), *_integers("block", "attempt", size=4),
    *_integers("source_offset"), *_text(1024, "reason"),
), about="a block that could not be read and was set aside: its lines are in no ledger, the audit sends the batch again; "
    "source_offset is the message's place in its partition of topic `blocks`; without a batch it was no block at all",
    distributed_by="batch_id", sorted_by="batch_id")  # fmt: skip

FLOWS: Final = (PAGE_VIEWS, AD_IMPRESSIONS, AD_CLICKS, REDIRECTS, ENGAGEMENTS, REJECTED)
"""The six flows, in the order of every listing."""
OUTPUTS: Final = (*FLOWS, LEDGER, REPLAYS, DEAD_LETTERS)
"""Everything one transaction writes, in the order it is loaded."""
BY_NAME: Final = {flow.name: flow for flow in OUTPUTS}

JOINED: Final = "joined"
DUPLICATE: Final = "duplicate"
ERASED: Final = "erased"
OUTCOMES: Final = (*(flow.name for flow in FLOWS), JOINED, DUPLICATE, ERASED)
"""The outcomes of a line: a row of a flow, part of a first event's row, dropped as a duplicate, or erased (rule R7)."""
