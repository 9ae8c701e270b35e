"""Events of Segment's libraries (HTTP tracking API, v1): what they become, and which have no type of ours.

    page                              page_view
    track of a name in `TRACKS`       ad_impression, ad_click, engagement, redirect
    everything else                   refused by name: other tracks, identify, group, alias, screen

`event_id` is `messageId`; `occurred_at` is `timestamp`, else `originalTimestamp`. Segment knows no page view id:
`page_view_id` is taken from `properties` or `context`, where a page's middleware puts it; a page without one is a page view
by its own `messageId`. `sentAt` and `_metadata` are no part of the line, because they change with every attempt; `writeKey`
is none either.
"""

import re
from typing import Any, Final

import msgspec

from app.core.events.canonical_json import encode
from app.core.events.fields import FIELDS
from app.core.events.foreign.mapped import (
    UNREADABLE,
    Arrival,
    Envelope,
    Mapped,
    identifier,
    known_fields,
    open_json,
    own_id,
    present,
    read_object,
    refused,
    text_in,
)
from app.core.events.mends import moment

TAG: Final = "segment"
TRACKS: Final = {
    "ad_impression": "ad_impression",
    "ad_viewed": "ad_impression",
    "ad_click": "ad_click",
    "ad_clicked": "ad_click",
    "engagement": "engagement",
    "page_engagement": "engagement",
    "page_engaged": "engagement",
    "redirect": "redirect",
    "paid_redirect": "redirect",
}
"""Names of tracks, in lower case and with `_` between words, and the types that they become."""
TYPES: Final = ("page", "track", "identify", "group", "alias", "screen")
_UNKNOWN: Final = "unknown"
KINDS: Final = (*TYPES, _UNKNOWN, UNREADABLE)
_CHANGING: Final = frozenset({"sentAt", "_metadata", "writeKey"})
_MAPPED: Final = frozenset({"messageId", "timestamp", "originalTimestamp", "anonymousId", "properties", "context", "type"})
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_CONTEXT: Final = frozenset({"locale", "timezone", "ip", "userAgent"})
_MICROS: Final = 1_000_000


class _Batch(msgspec.Struct):
    batch: msgspec.Raw
    writeKey: str | None = None


class _Single(msgspec.Struct):
    writeKey: str | None = None


def open_batch(body: bytes) -> Envelope:
    """The events of a body of `/v1/batch`.

    Raises:
        RequestRejected: 400, it is no batch.
    """
    opened = open_json(body, _Batch)
    return Envelope(text_in(body, opened.batch), opened.writeKey or "")


def open_single(body: bytes) -> Envelope:
    """The one event of a body of `/v1/page`, `/v1/track` and so on.

    Raises:
        RequestRejected: 400, it is no object.
    """
    return Envelope(body, open_json(body, _Single).writeKey or "")


def map_event(text: bytes, number: int, arrival: Arrival, default_type: str | None = None) -> Mapped:
    """One event of a body as a line of ours; as `app.core.events.foreign.snowplow.map_event`.

    Args:
        text: its JSON.
        number: its place in the request.
        arrival: the request.
        default_type: the type of an event that does not name its own: the path of the request does.
    """
    event = read_object(text)
    if event is None:
        return Mapped(text, UNREADABLE)
    if default_type is not None:
        event.setdefault("type", default_type)
    key = event["writeKey"] if isinstance(event.get("writeKey"), str) else ""
    event = {name: value for name, value in event.items() if name not in _CHANGING}
    properties, context = _object(event, "properties"), _object(event, "context")
    fields = _common(event, properties, context, number, arrival)
    kind, name, event_type = _kind_of(event)
    if event_type is None:
        return refused(TAG, kind, name, {**fields, "properties": {TAG: event}})._replace(key=key)
    if event_type == "page_view":
        fields |= _page(properties, context)
        fields.setdefault("page_view_id", fields["event_id"])
    if event_type.startswith("ad_"):
        fields["revenue_micros"] = _micros(properties)
    for name, value in list(properties.items()):
        ours = _snake(name)
        if ours in known_fields({ours: value}, event_type):
            fields[ours] = value
            del properties[name]
    page = {name: value for name, value in _object(context, "page").items() if name not in {"url", "referrer", "title"}}
    left = {name: value for name, value in context.items() if name not in _CONTEXT} | {"page": page}
    rest = {name: value for name, value in event.items() if name not in _MAPPED}
    line = {
        "event_type": event_type,
        **present(fields),
        "properties": {**properties, TAG: present({**rest, "context": present(left)})},
    }
    return Mapped(encode(line), kind, None, key)


def _kind_of(event: dict[str, Any]) -> tuple[str, str, str | None]:
    """The event's kind, its full name, and our type for it."""
    kind = event.get("type")
    if kind not in TYPES:
        return _UNKNOWN, f"type {kind!r}", None
    if kind == "page":
        return kind, kind, "page_view"
    if kind == "track":
        name = event.get("event")
        return kind, f"track {name!r}", TRACKS.get(_snake(name)) if isinstance(name, str) else None
    return kind, kind, None


def _common(
    event: dict[str, Any], properties: dict[str, Any], context: dict[str, Any], number: int, arrival: Arrival
) -> dict[str, Any]:
    """Fields that every event may have."""
    time = event.get("timestamp") or event.get("originalTimestamp")
    read = moment(time) if time else None
    ids = (where.pop(name, None) for where in (properties, context) for name in ("page_view_id", "pageViewId"))
    return present(
        {
            "event_id": own_id(event.get("messageId"), event, number, arrival, is_timed=bool(time)),
            "page_view_id": next(filter(None, map(identifier, ids)), None),
            "occurred_at": read.value if read else time or arrival.received_at_ms,
            "visitor_id": event.get("anonymousId") or arrival.visitor_id,
            "ip": context.get("ip"),
            "user_agent": context.get("userAgent"),
        }
    )


def _page(properties: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The fields of a page view: what the call names, else what the library saw."""
    page, screen, campaign = _object(context, "page"), _object(context, "screen"), _object(context, "campaign")
    return {
        "url": page.get("url"),
        "referrer": page.get("referrer"),
        "title": page.get("title"),
        "section": properties.pop("category", None),
        "campaign_id": campaign.get("name"),
        "language": context.get("locale"),
        "time_zone": context.get("timezone"),
        "screen_width": screen.get("width"),
    }


def _micros(properties: dict[str, Any]) -> int | None:
    """`revenue`, in units of its currency, as our revenue; it stays where it is if it is no number."""
    revenue = properties.get("revenue")
    if isinstance(revenue, bool) or not isinstance(revenue, int | float) or abs(revenue) >= 1e9:
        return None
    del properties["revenue"]
    return round(revenue * _MICROS)


def _object(event: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of the object in a field; an empty one if there is none."""
    value = event.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _snake(name: str) -> str:
    """`Ad Viewed`, `adViewed` and `ad-viewed` as `ad_viewed`."""
    return name if name in FIELDS else "_".join(_WORDS.findall(name)).lower()
