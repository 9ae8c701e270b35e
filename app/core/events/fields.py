"""The catalogue of event types and of their fields: rules, users, and how a stored line holds them (a public contract).

Lengths are UTF-8 bytes of the text as stored. A check is asked only about a value that is present. JSON null counts as
absent in every field, the empty string in every field of text. A value that breaks its rule is mended where its meaning is
plain (`app.core.events.mends`, rule J6); `app.core.events.parse` says what becomes of it otherwise.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from app.core.events.addresses import sender_address
from app.core.events.canonical_json import Number, utf8_length
from app.core.events.mends import Mend, Mended, cut_at, moment, number_as_text, percentage, rounded, whole_number
from app.core.formats.flows import AD_CLICKS, AD_IMPRESSIONS, ENGAGEMENTS, PAGE_VIEWS, REDIRECTS, ColumnKind, Flow

KeyKind = Literal["browser", "server"]
Check = Callable[[Any], str | None]
"""The rule that a present value breaks, in a few words, or None."""

MIN_TIME_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z."""
MAX_TIME_MS: Final = 4_133_980_800_000
"""2101-01-01T00:00:00Z, itself excluded: the year 2100 is the last."""
INT64: Final = (-(2**63), 2**63 - 1)
BOUNDS: Final[dict[Check, tuple[int, int]]] = {}
"""Bounds of the checks that `string_check` and `integer_check` made: fewest and most bytes, or least and greatest value."""


class JoinPart(Enum):
    """The part of an event type in the join."""

    FIRST = "first"
    """They wait for a second event of their page view."""
    SECOND = "second"
    """They join the first event of their page view."""
    NONE = "none"
    """They are rows of their flow at once."""


class EventType(NamedTuple):
    """A type of event."""

    name: str
    flow: Flow
    """The flow whose columns decide which fields of the type have a place of their own."""
    part: JoinPart = JoinPart.NONE


TYPES: Final = (
    EventType("page_view", PAGE_VIEWS, JoinPart.FIRST),
    EventType("engagement", ENGAGEMENTS, JoinPart.SECOND),
    EventType("ad_impression", AD_IMPRESSIONS),
    EventType("ad_click", AD_CLICKS),
    EventType("redirect", REDIRECTS),
)
"""Every type of event; exactly one is the join's first event, and one its second event."""
FLOW_OF: Final[dict[str, Flow]] = {kind.name: kind.flow for kind in TYPES}
EVENT_TYPES: Final = tuple(FLOW_OF)

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _identifier(value: object) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    if _ID.fullmatch(value):
        return None
    return "longer than 64 bytes" if utf8_length(value) > 64 else "characters other than A-Za-z0-9_-"


def _event_type(value: object) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    return None if value in FLOW_OF else f"none of {', '.join(EVENT_TYPES)}"


def string_check(max_bytes: int) -> Check:
    """A string of at most `max_bytes` UTF-8 bytes."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return "not a string"
        return None if utf8_length(value) <= max_bytes else f"longer than {max_bytes} bytes"

    BOUNDS[check] = (0, max_bytes)
    return check


def integer_check(low: int, high: int) -> Check:
    """A JSON integer (no boolean; 5.0 and 1e3 are mended) from `low` to `high`, both included."""

    def check(value: object) -> str | None:
        if type(value) is int:  # a boolean is an int to isinstance
            return None if low <= value <= high else f"not from {low} to {high}"
        is_huge = isinstance(value, Number) and value.is_integer
        return f"not from {low} to {high}" if is_huge else "not an integer"

    BOUNDS[check] = (low, high)
    return check


_CURRENCY: Final = re.compile("[A-Za-z]{3}")


def _currency(value: object) -> str | None:
    """A code of ISO 4217 by its form: a list of codes would refuse money that is new."""
    if not isinstance(value, str):
        return "not a string"
    return None if _CURRENCY.fullmatch(value) else "not three letters"


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "not a boolean"


def _object(value: object) -> str | None:
    return None if isinstance(value, dict) else "not an object"


def _address(value: object) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    return None if sender_address(value) else "not an IP address"


def _any_string(value: object) -> str | None:
    return None if isinstance(value, str) else "not a string"


class Field(NamedTuple):
    """A known field: its check, the event types that use it, those that require it, its stored kind, and its mend."""

    check: Check
    used_by: tuple[str, ...]
    required_by: tuple[str, ...] = ()
    kind: ColumnKind = ColumnKind.STRING
    mend: Mend | None = None
    """How a value is read that breaks the rule; None: a whole number is an integer, and nothing else is mended."""

    def read(self, value: object) -> Mended | str:
        """A present value as it is stored, mended where it must be; or the rule that it breaks, in a few words."""
        fault = self.check(value)
        if fault is None:
            return Mended(value)
        mend = self.mend or (whole_number if self.kind is ColumnKind.INTEGER else None)
        mended = mend(value) if mend else None
        if mended is None:
            return fault
        return self.check(mended.value) or mended


_AD: Final = ("ad_impression", "ad_click")
_PAGE: Final = ("page_view",)
_LANDING: Final = ("page_view", "redirect")
_CONTENT: Final = ("page_view", *_AD, "redirect")
_JOINED: Final = ("page_view", "engagement", *_AD)
_SECOND: Final = ("engagement",)

FIELDS: Final[dict[str, Field]] = {
    "event_id": Field(_identifier, EVENT_TYPES, EVENT_TYPES, mend=number_as_text),
    "event_type": Field(_event_type, EVENT_TYPES, EVENT_TYPES),
    "page_view_id": Field(_identifier, EVENT_TYPES, _JOINED, mend=number_as_text),
    "occurred_at": Field(
        integer_check(MIN_TIME_MS, MAX_TIME_MS - 1), EVENT_TYPES, EVENT_TYPES, ColumnKind.TIMESTAMP, moment
    ),
    "visitor_id": Field(string_check(64), EVENT_TYPES, mend=number_as_text),
    "url": Field(string_check(4096), _LANDING, mend=cut_at(4096)),
    "referrer": Field(string_check(4096), _LANDING, mend=cut_at(4096)),
    "article_id": Field(string_check(128), _CONTENT, mend=number_as_text),
    "author_id": Field(string_check(128), _CONTENT, mend=number_as_text),
    "section": Field(string_check(128), _CONTENT),
    "campaign_id": Field(string_check(128), _CONTENT, mend=number_as_text),
    "title": Field(string_check(512), _PAGE),
    "language": Field(string_check(35), _PAGE),
    "time_zone": Field(string_check(64), _PAGE),
    "session_id": Field(string_check(64), _PAGE, mend=number_as_text),
    "screen_width": Field(integer_check(0, INT64[1]), _PAGE, (), ColumnKind.INTEGER),
    "viewport_width": Field(integer_check(0, INT64[1]), _PAGE, (), ColumnKind.INTEGER),
    "dwell_ms": Field(integer_check(0, INT64[1]), _SECOND, (), ColumnKind.INTEGER, rounded),
    "visible_ms": Field(integer_check(0, INT64[1]), _SECOND, (), ColumnKind.INTEGER, rounded),
    "engaged_ms": Field(integer_check(0, INT64[1]), _SECOND, (), ColumnKind.INTEGER, rounded),
    "scroll_pct": Field(integer_check(0, 100), _SECOND, (), ColumnKind.INTEGER, percentage),
    "ad_slot": Field(integer_check(1, 3), _AD, (), ColumnKind.INTEGER),
    "creative_id": Field(string_check(128), _AD, mend=number_as_text),
    "revenue_micros": Field(integer_check(*INT64), _AD, (), ColumnKind.INTEGER),
    "cost_micros": Field(integer_check(*INT64), ("redirect",), (), ColumnKind.INTEGER),
    "currency": Field(_currency, (*_AD, "redirect")),
    "webdriver": Field(_boolean, EVENT_TYPES, (), ColumnKind.BOOLEAN),
    "properties": Field(_object, EVENT_TYPES),
}
"""The known fields, in the order in which faults are named and stored fields written."""

OF_SERVERS: Final[dict[str, Field]] = {
    "ip": Field(_address, EVENT_TYPES),
    "user_agent": Field(_any_string, EVENT_TYPES),
}
"""Fields that only a server key may send; from a browser key both are dropped."""
KNOWN_TO: Final[dict[KeyKind, dict[str, Field]]] = {"browser": FIELDS, "server": {**FIELDS, **OF_SERVERS}}

STORED_FIELDS: Final[dict[str, ColumnKind]] = {
    **{name: field.kind for name, field in FIELDS.items()},
    "received_at": ColumnKind.TIMESTAMP,
    "ip": ColumnKind.STRING,
    "user_agent": ColumnKind.STRING,
    "key_kind": ColumnKind.STRING,
    "invalid_fields": ColumnKind.STRING,
    "malformed": ColumnKind.STRING,
    "payload": ColumnKind.STRING,
    "payload_b64": ColumnKind.STRING,
}
"""Every field that a stored line can have; timestamps are integers, ms since the epoch."""
ADDED: Final = ("received_at", "key_kind", "invalid_fields")
"""Fields that the collector adds to a line and that have columns of their names."""

WITHOUT_COLUMN: Final = frozenset({"webdriver"})
"""Every type uses it, although no flow has its column: the pipeline reads it, and analysts find it in properties."""


class TypedField(NamedTuple):
    """A field that keeps its place in a stored event of one type."""

    name: str
    check: Check
    is_required: bool
    is_text: bool


def _typed_fields(event_type: str) -> tuple[TypedField, ...]:
    columns = {*FLOW_OF[event_type].names, *WITHOUT_COLUMN} - {"properties"}
    return tuple(
        TypedField(name, field.check, event_type in field.required_by, field.kind is ColumnKind.STRING)
        for name, field in FIELDS.items()
        if event_type in field.used_by and name in columns
    )


TYPED_FIELDS: Final = {event_type: _typed_fields(event_type) for event_type in EVENT_TYPES}
"""For each event type the fields with a place of their own, `event_type` and `properties` apart, in stored order."""


def is_absent(field: Field, value: object) -> bool:
    """Whether `value` counts as absent: null, or the empty string in a field of text."""
    return value is None or (value == "" and field.kind is ColumnKind.STRING and field.check is not _object)
