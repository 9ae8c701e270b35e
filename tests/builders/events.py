"""Builders that keep a test to what it is about."""

import json
from typing import Any

from app.core.events.parse import parse_line
from app.core.formats.stored_line import StoredLine

NOW_MS = 1_750_000_000_000
IP = "203.0.113.9"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/127.0"


def event(event_type: str = "page_view", **changes: Any) -> dict[str, Any]:
    """A valid event of the type; a change to None leaves the field out."""
    fields: dict[str, Any] = {
        "event_id": "e1", "event_type": event_type, "page_view_id": "p1", "occurred_at": NOW_MS - 1000, **changes,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def text(fields: object) -> bytes:
    """The fields as a client would send them."""
    return json.dumps(fields).encode()


def parse(line: bytes, kind: Any = "browser", received_at_ms: int = NOW_MS) -> StoredLine:
    """The line as the collector stores it."""
    return parse_line(line, kind, received_at_ms, IP, AGENT)


def stored(fields: object, kind: Any = "browser") -> dict[str, Any]:
    """The stored form of the fields."""
    found: dict[str, Any] = json.loads(parse(text(fields), kind).data)
    return found


def reason(fields: object, kind: Any = "browser") -> str | None:
    """The reason why the fields are malformed, or None."""
    return parse(text(fields), kind).reason
