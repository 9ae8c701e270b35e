"""The rules of an event's fields once more, in plain Python: the stored line of a line as it was sent.

Written from the README's section "Events", not from `app.core.events`. It takes lines that are objects of JSON; of numbers
it takes those that fit a double or 64 bits, and of texts those that need no replacement.
"""

import json
import re
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from ipaddress import ip_address
from typing import Any

from tests.oracle import AD, PAGE, SCREEN, STAY

ID = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
COLUMNS = {
    "page_view": (*PAGE, *SCREEN), "engagement": STAY, "ad_impression": AD, "ad_click": AD,
    "redirect": ("url", "referrer", "article_id", "campaign_id", "cost_micros", "currency"),
}  # fmt: skip
EVERYWHERE = ("event_id", "page_view_id", "occurred_at", "visitor_id")
TEXTS = {
    "visitor_id": 64, "url": 4096, "referrer": 4096, "article_id": 128, "author_id": 128, "section": 128,
    "campaign_id": 128, "creative_id": 128, "title": 512, "language": 35, "time_zone": 64, "session_id": 64,
}  # fmt: skip
NUMBERS = {
    "dwell_ms": (0, 2**63 - 1), "visible_ms": (0, 2**63 - 1), "engaged_ms": (0, 2**63 - 1),
    "screen_width": (0, 2**63 - 1), "viewport_width": (0, 2**63 - 1), "scroll_pct": (0, 100), "ad_slot": (1, 3),
    "revenue_micros": (-(2**63), 2**63 - 1), "cost_micros": (-(2**63), 2**63 - 1),
}  # fmt: skip
ORDER = (
    "event_id", "event_type", "page_view_id", "occurred_at", "visitor_id", "url", "referrer", "article_id", "author_id",
    "section", "campaign_id", "title", "language", "time_zone", "session_id", "screen_width", "viewport_width", "dwell_ms",
    "visible_ms", "engaged_ms", "scroll_pct", "ad_slot", "creative_id", "revenue_micros", "cost_micros", "currency",
    "webdriver", "properties", "ip", "user_agent",
)  # fmt: skip
"""In this order faults are named."""
DAY_MS = 24 * 60 * 60 * 1000


class Broken(Exception):
    """A value breaks the rule of its field, and nobody can tell what was meant."""


def stored_of(sent: dict[str, Any], kind: str, received_at: int) -> dict[str, Any]:
    """The stored line of an event, less the sender of a browser's; of a malformed line only the name of the broken field."""
    read: dict[str, Any] = {}
    faults: list[str] = []
    moved: dict[str, Any] = {}
    for name in ORDER:
        value = sent.get(name)
        if name in ("ip", "user_agent") and kind == "browser":
            continue
        if value is None or (value == "" and name not in NUMBERS and name not in ("occurred_at", "webdriver", "properties")):
            if needs(name, sent):
                return {"malformed": name}
            continue
        try:
            read[name], is_named = meaning(name, value)
            if is_named:
                faults.append(name)
        except Broken:
            if needs(name, sent):
                return {"malformed": name}
            faults.append(name)
            moved[name] = value
    if read["occurred_at"] > received_at + DAY_MS:
        read["occurred_at"] = received_at
        moved["occurred_at"] = sent["occurred_at"]
        faults += ["occurred_at"] * ("occurred_at" not in faults)
    placed = ("event_type", *EVERYWHERE, *COLUMNS[sent["event_type"]])
    line = {name: read[name] for name in (*placed, "webdriver") if name in read}
    others = {
        name: value
        for name, value in sent.items()
        if name in moved or (name in read and name not in (*placed, "properties", "ip", "user_agent")) or name not in ORDER
    }
    properties = {**others, **read.get("properties", {})}
    line |= {"properties": properties} if properties else {}
    line |= {name: read[name] for name in ("ip", "user_agent") if name in read}
    named = {"invalid_fields": sorted(faults, key=ORDER.index)} if faults else {}
    return {**line, **named, "received_at": received_at, "key_kind": kind}


def needs(name: str, sent: dict[str, Any]) -> bool:
    return name in ("event_id", "event_type", "occurred_at") or (
        name == "page_view_id" and sent.get("event_type") != "redirect"
    )


def meaning(name: str, value: Any) -> tuple[Any, bool]:  # noqa: PLR0911  (one a kind of field)
    """The value that is stored, and whether `invalid_fields` names it."""
    number = Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None
    is_whole = number is not None and number == number.to_integral_value()
    if name == "event_type":
        return expect(value, value in COLUMNS if isinstance(value, str) else False), False
    if name.endswith("_id"):
        text = str(int(value)) if is_whole else value
        is_plain = name not in ("event_id", "page_view_id") or (isinstance(text, str) and set(text) <= ID)
        longest = TEXTS.get(name, 64)
        return expect(text, isinstance(text, str) and is_plain and len(text.encode()) <= longest), False
    if name == "occurred_at":
        return moment(value, number)
    if name in ("url", "referrer"):
        expect(value, isinstance(value, str))
        cut = value
        while len(cut.encode()) > 4096:
            cut = cut[:-1]
        return cut, cut != value
    if name in TEXTS:
        return expect(value, isinstance(value, str) and len(value.encode()) <= TEXTS[name]), False
    if name == "currency":
        return expect(value, isinstance(value, str) and re.fullmatch("[a-zA-Z]{3}", value) is not None), False
    if name in NUMBERS:
        low, high = NUMBERS[name]
        if number is None or not (is_whole or name in STAY):
            raise Broken
        found = int((number + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
        if name == "scroll_pct":
            found = min(found, 100)
        return expect(found, low <= found <= high), False
    if name == "ip":
        return expect(address(value), address(value) is not None), False
    kinds = {"webdriver": bool, "properties": dict, "user_agent": str}
    return expect(value, isinstance(value, kinds[name])), False


def expect(value: Any, holds: bool) -> Any:
    if not holds:
        raise Broken
    return value


def moment(value: Any, number: Decimal | None) -> tuple[int, bool]:
    if number is not None:
        is_seconds = 10**9 <= number < 10**10
        found = int((number * (1000 if is_seconds else 1) + Decimal("0.5")).to_integral_value(ROUND_FLOOR))
        is_named = is_seconds
    else:
        expect(value, isinstance(value, str) and value[4:5] == "-")
        try:
            at = datetime.fromisoformat(value)
        except ValueError as exc:
            raise Broken from exc
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        found, is_named = round(at.timestamp() * 1000), True
    return expect(found, 946_684_800_000 <= found < 4_133_980_800_000), is_named


def address(value: Any) -> str | None:
    """The one address in a text; of a list the first that is not of a private network."""
    found = []
    for part in value.split(",") if isinstance(value, str) else []:
        text = part.strip()
        if text.startswith("["):
            text = text[1:].partition("]")[0]
        elif text.count(":") == 1:
            text = text.partition(":")[0]
        try:
            found.append(ip_address(text.partition("%")[0]))
        except ValueError:
            continue
    public = [one for one in found if not str(one).startswith(("10.", "192.168.", "127.", "fe80:", "fd"))]
    return str((public or found)[0]) if found else None


def plain(line: bytes) -> dict[str, Any]:
    """A stored line in the oracle's words: properties as an object, of faults the names of their fields."""
    stored = json.loads(line)
    if "malformed" in stored:
        return {"malformed": stored["malformed"].partition(":")[0]}
    if "properties" in stored:
        stored["properties"] = json.loads(stored["properties"])
    if "invalid_fields" in stored:
        stored["invalid_fields"] = [fault.partition(":")[0] for fault in stored["invalid_fields"].split("; ")]
    return stored
