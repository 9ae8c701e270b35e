"""The row that an event must have in the warehouse, field by field, from the line as it was sent."""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from app.local.traffic.send import SentEvent, SentMalformed

_EVERYWHERE: Final = ("event_id", "page_view_id", "visitor_id", "occurred_at")
_ENGAGED: Final = ("dwell_ms", "visible_ms", "scroll_pct", "engaged_ms")
_AD: Final = ("article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros", "currency")
_PAGE: Final = ("title", "language", "time_zone", "session_id", "screen_width", "viewport_width")
_TAGS: Final = ("utm_source", "utm_medium", "utm_term", "utm_content")
_CLICK_IDS: Final = {"gclid": "google", "fbclid": "facebook", "msclkid": "microsoft", "ttclid": "tiktok"}
_OF_URL: Final = ("host", "path", *_TAGS, "click_id", "click_id_source")
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "page_view": (*_EVERYWHERE, "url", "referrer", "article_id", "author_id", "section", "campaign_id", *_PAGE),
    "engagement": (*_EVERYWHERE, *_ENGAGED),
    "ad_impression": (*_EVERYWHERE, *_AD),
    "ad_click": (*_EVERYWHERE, *_AD),
    "redirect": (*_EVERYWHERE, "url", "referrer", "article_id", "campaign_id", "cost_micros", "currency"),
}
"""Event type -> the fields that become columns of the same name."""
SELECTED: Final[dict[str, tuple[str, ...]]] = {
    "page_views": (
        *COLUMNS["page_view"], "properties", "browser", "device", "received_at", "joined", "engagement_id", "engaged_at",
        *_ENGAGED, "engagement_properties", *_OF_URL, "browser_version", "os_version", "user_agent",
    ),
    "ad_impressions": (*COLUMNS["ad_impression"], "properties", "browser", "device", "received_at"),
    "ad_clicks": (*COLUMNS["ad_click"], "properties", "browser", "device", "received_at"),
    "redirects": (*COLUMNS["redirect"], "properties", "browser", "device", "received_at", *_OF_URL),
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
    if "url" in row:
        of_url = _url_columns(row["url"])
        row["campaign_id"] = row["campaign_id"] or of_url["utm_campaign"]
        row |= {name: of_url[name] for name in _OF_URL}
    if row.get("currency"):
        row["currency"] = row["currency"].upper()
    if sent["event_type"] != "page_view":
        return row
    row |= {"browser_version": event.agent.version, "os_version": event.agent.os_version, "user_agent": event.agent.text}
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


def _url_columns(url: str | None) -> dict[str, Any]:
    """The columns that come from a URL of this traffic: it has no tag twice, and at most one id of a click."""
    address = urlsplit(url or "")
    named = {name.lower(): value.strip() for name, value in parse_qsl(address.query)}
    clicks = [(named[name], source) for name, source in _CLICK_IDS.items() if name in named]
    click_id, click_id_source = clicks[0] if clicks else (None, None)
    return {name: named.get(name) for name in ("utm_campaign", *_TAGS)} | {
        "host": address.hostname, "path": address.path or ("/" if address.netloc else None),
        "click_id": click_id, "click_id_source": click_id_source,
    }  # fmt: skip
