"""The row that an event must have in the warehouse, field by field, from the line as it was sent."""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from app.local.traffic.send import SentEvent, SentMalformed

_EVERYWHERE: Final = ("event_id", "page_view_id", "visitor_id", "occurred_at")
_ENGAGED: Final = ("dwell_ms", "visible_ms", "scroll_pct")
_AD: Final = ("article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "page_view": (*_EVERYWHERE, "url", "referrer", "article_id", "author_id", "section", "campaign_id"),
    "engagement": (*_EVERYWHERE, *_ENGAGED),
    "ad_impression": (*_EVERYWHERE, *_AD),
    "ad_click": (*_EVERYWHERE, *_AD),
    "redirect": (*_EVERYWHERE, "url", "referrer", "article_id", "campaign_id", "cost_micros"),
}
"""Event type -> the fields that become columns of the same name."""
SELECTED: Final[dict[str, tuple[str, ...]]] = {
    "page_views": (
        *COLUMNS["page_view"], "properties", "browser", "device", "received_at", "joined", "engagement_id", "engaged_at",
        *_ENGAGED, "engagement_properties",
    ),
    "ad_impressions": (*COLUMNS["ad_impression"], "properties", "browser", "device", "received_at"),
    "ad_clicks": (*COLUMNS["ad_click"], "properties", "browser", "device", "received_at"),
    "redirects": (*COLUMNS["redirect"], "properties", "browser", "device", "received_at"),
    "engagements": (*COLUMNS["engagement"], "properties", "browser", "device", "received_at", "reason"),
    "rejected": ("event_id", "event_type", "kind", "reason", "payload", "received_at"),
}  # fmt: skip
"""Flow -> the columns that are compared."""
NOT_STORED: Final = frozenset({"event_type", "properties", "ip", "user_agent"})
PAYLOAD_BYTES: Final = 4096
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def row_of(event: SentEvent, second: SentEvent | None) -> dict[str, Any]:
    """The columns that an event's row must have; a page view has its second's columns too."""
    sent = storable(json.loads(event.body))
    row = _own_columns(sent) | {"browser": event.agent.browser, "device": event.agent.device}
    if "url" in row and row.get("campaign_id") is None:
        row["campaign_id"] = _utm_campaign(row["url"])
    if sent["event_type"] != "page_view":
        return row
    row["joined"] = second is not None
    engaged = _own_columns(storable(json.loads(second.body))) if second else {}
    row |= {name: engaged.get(name) for name in _ENGAGED}
    return row | {
        "engagement_id": engaged.get("event_id"),
        "engaged_at": engaged.get("occurred_at"),
        "engagement_properties": engaged.get("properties"),
    }


def payload_of(line: SentMalformed) -> str:
    """The text that a malformed line's row must keep."""
    text = line.body.decode(errors="replace").replace("\x00", "\ufffd")
    return text.encode()[:PAYLOAD_BYTES].decode(errors="ignore")


def storable(value: Any) -> Any:
    """A JSON value as it can be stored: U+0000 and lone surrogates replaced, keys included."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [storable(one) for one in value]
    if isinstance(value, dict):
        return {storable(key): storable(one) for key, one in value.items()}
    return value


def _own_columns(sent: dict[str, Any]) -> dict[str, Any]:
    columns = COLUMNS[sent["event_type"]]
    row = {name: None if sent.get(name) == "" else sent.get(name) for name in columns}
    others = {
        name: value
        for name, value in sent.items()
        if name not in columns and name not in NOT_STORED and value is not None and value != ""
    }
    row["properties"] = (others | (sent.get("properties") or {})) or None
    return row


def _utm_campaign(url: str | None) -> str | None:
    named = parse_qs(urlsplit(url).query).get("utm_campaign") if url else None
    return named[0] if named else None
