"""The ETL's rules once more, in plain Python: one message after the other, one line after the other.

Written from the rules (T4, E7, J1 to J5), not from the code it judges: of `app.core` it knows only the envelopes.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from app.core.formats.block import End, decode_control, decode_header, frame_of, is_control, open_frame
from app.errors import FrameInvalid

COMMON = (
    "event_id", "page_view_id", "visitor_id", "occurred_at", "received_at", "properties", "invalid_fields", "key_kind",
)  # fmt: skip
AD = ("article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros", "currency")
PAGE = ("url", "referrer", "article_id", "author_id", "section", "campaign_id")
SCREEN = ("title", "language", "time_zone", "session_id", "screen_width", "viewport_width")
STAY = ("dwell_ms", "visible_ms", "scroll_pct", "engaged_ms")
OF_URL = (
    "host", "path", "utm_source", "utm_medium", "utm_term", "utm_content", "click_id", "click_id_source",
)  # fmt: skip
AT_ONCE = {
    "ad_impression": ("ad_impressions", AD),
    "ad_click": ("ad_clicks", AD),
    "redirect": (
        "redirects",
        (
            *(
                "url",
                "referrer",
                "article_id",
                "campaign_id",
                "cost_micros",
                "campaign_name",
                "campaign_network",
                "currency",
            ),
            *("referrer_medium", "referrer_source", *OF_URL),
        ),
    ),
}
"""Event type -> the flow and the columns of its row, of types that wait for no other event."""
CLICKS = {"gclid": "google", "fbclid": "facebook"}
"""The click ids in the tests' traffic."""


def parameters(fields: dict[str, Any]) -> dict[str, str]:
    """The first value of each parameter of a URL in the tests' traffic, the names in lower case."""
    found = parse_qsl(urlsplit(fields.get("url", "")).query)
    return {name.lower(): value.strip() for name, value in reversed(found) if value.strip()}


def click_of(fields: dict[str, Any]) -> tuple[str | None, str | None]:
    """A click id and its source; no URL of the tests' traffic has two."""
    named = [(value, CLICKS[name]) for name, value in parameters(fields).items() if name in CLICKS]
    return named[0] if named else (None, None)


def currency_of(fields: dict[str, Any]) -> str | None:
    """The currency of an event that names money."""
    return fields["currency"].upper() if "currency" in fields else None


ENRICHED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "host": lambda fields: urlsplit(fields.get("url", "")).hostname,
    "path": lambda fields: (urlsplit(fields["url"]).path or "/") if "url" in fields else None,
    "utm_source": lambda fields: parameters(fields).get("utm_source"),
    "utm_medium": lambda fields: parameters(fields).get("utm_medium"),
    "utm_term": lambda fields: parameters(fields).get("utm_term"),
    "utm_content": lambda fields: parameters(fields).get("utm_content"),
    "click_id": lambda fields: click_of(fields)[0],
    "click_id_source": lambda fields: click_of(fields)[1],
    "referrer_medium": lambda _: None,
    "referrer_source": lambda _: None,
    "article_title": lambda _: None,
    "campaign_name": lambda _: None,
    "campaign_network": lambda _: None,
}
"""The enrichment of a page view's own fields: no event names a referrer, and no articles are known."""


class Bounds(NamedTuple):
    """Milliseconds."""

    window: int
    grace: int
    reorder: int
    dedup: int


class Visitor(NamedTuple):
    """The enrichment of a user agent and an address; the rule if it is a bot."""

    bot: str | None
    browser: str | None
    os: str | None
    device: str | None
    country: str | None
    browser_version: str | None = None
    os_version: str | None = None


NOBODY = Visitor(None, None, None, None, None)


@dataclass(eq=False)
class Event:
    """A line on its way."""

    fields: dict[str, Any]
    batch: str
    line: int
    raw: str
    waits: bool = False

    @property
    def order(self) -> tuple[int, str]:
        return self.fields["received_at"], self.fields["event_id"]


@dataclass
class Oracle:
    """One partition."""

    bounds: Bounds
    visitor_of: Callable[[dict[str, Any]], Visitor]
    """Of a stored line."""
    truncate: Callable[[str], str]
    now: int = 0
    watermarks: dict[str, int] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    blocks: dict[tuple[str, int], int] = field(default_factory=dict)
    views: dict[str, tuple[int, Event]] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    undecided: list[Event] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ledger: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    replays: list[tuple[str, int, int]] = field(default_factory=list)
    dead_letters: list[tuple[str, int, int]] = field(default_factory=list)
    refused: int = 0

    def run(self, log: Iterable[Any]) -> "Oracle":
        for message in log:
            if is_control(message.value):
                self.hear(decode_control(message.value), message.timestamp_ms)
            else:
                self.take(message.value)
            self.close()
        return self

    # --- T4, T5

    def hear(self, control: Any, appended: int) -> None:
        if isinstance(control, End):
            self.finished.add(control.shard)
            self.listed.pop(control.shard, None)
        else:
            for shard in control.finished:
                self.finished.add(shard)
                self.listed.pop(shard, None)
            for shard, parents in control.open_shards.items():
                if shard not in self.finished:
                    self.listed[shard] = parents
            for shard, watermark in control.watermarks.items():
                if shard not in self.finished:
                    self.listed.setdefault(shard, [])
                    self.watermarks[shard] = max(watermark, self.watermarks.get(shard, 0))
        floors = []
        for shard, parents in self.listed.items():
            if shard in self.watermarks:
                floors.append(self.watermarks[shard])
            elif parents and all(parent in self.watermarks for parent in parents):
                floors.append(min(self.watermarks[parent] for parent in parents))
            else:
                return
        if floors:
            self.now = max(self.now, min(*floors, appended))

    # --- E7, J1, J4

    def remembers(self, stored: int | None) -> bool:
        return stored is not None and stored + self.bounds.dedup >= self.now

    def take(self, message: bytes) -> None:
        header = decode_header(message)
        name = (header.batch_id, header.block)
        if self.remembers(self.blocks.get(name)):
            self.replays.append((*name, header.attempt))
            return
        if header.received_at_ms + self.bounds.dedup < self.now:
            self.refused += 1
            return
        try:
            text = open_frame(frame_of(message)).decode()
        except FrameInvalid:  # it is not remembered: another copy of it may be whole
            self.dead_letters.append((*name, header.attempt))
            return
        stored = max(self.now, header.received_at_ms)
        self.blocks[name] = stored
        self.take_lines([
            Event(json.loads(raw), header.batch_id, header.first_line + n, raw)
            for n, raw in enumerate(text.split("\n")[:-1])
        ], stored)  # fmt: skip

    def take_lines(self, lines: list[Event], stored: int) -> None:
        firsts, seconds = [], []
        for event in lines:
            fields = event.fields
            if fields.get("malformed") == "erased":  # a tombstone in the place of a line that was erased
                self.ledger[event.batch, event.line, "erased"] += 1
                continue
            if "malformed" in fields:
                self.reject(event, "malformed", fields["malformed"], fields["payload"])
                continue
            if self.remembers(self.seen.get(fields["event_id"])):
                self.ledger[event.batch, event.line, "duplicate"] += 1
                continue
            self.seen[fields["event_id"]] = stored
            bot = self.visitor_of(fields).bot
            if bot is not None:
                self.reject(event, "bot", bot, event.raw)
            elif fields["event_type"] == "page_view":
                firsts.append(event)
            elif fields["event_type"] == "engagement":
                seconds.append(event)
            else:
                flow, names = AT_ONCE[fields["event_type"]]
                made = {"currency": currency_of(fields)}
                made |= {name: expected(fields) for name, expected in ENRICHED.items() if name in names}
                self.emit(flow, event, names, **made)
        for event in firsts:
            self.meet_first(event, stored)
        for event in seconds:
            self.meet_second(event)

    # --- J2, J3: arrival

    def upper(self, first: Event) -> int:
        return int(first.fields["received_at"]) + self.bounds.window + self.bounds.grace

    def meet_first(self, event: Event, stored: int) -> None:
        self.pending.append(event)
        view = event.fields["page_view_id"]
        held = self.views.get(view)
        stored = max(stored, event.fields["received_at"])
        if held is None or not self.remembers(held[0]):
            self.views[view] = (stored, event)
        elif held[1] in self.pending and event.order < held[1].order:
            self.views[view] = (max(stored, held[0]), event)

    def meet_second(self, event: Event) -> None:
        held = self.views.get(event.fields["page_view_id"])
        if held is not None and self.remembers(held[0]):
            first = held[1]
            if first not in self.pending or event.fields["received_at"] > self.upper(first):
                self.engage(event, "late")
                return
        self.undecided.append(event)

    # --- J2, J3: closing

    def close(self) -> None:
        reorder = self.bounds.reorder
        due: list[tuple[int, int, str, Event]] = [(self.upper(e), 0, e.fields["event_id"], e) for e in self.pending]
        due += [(e.fields["received_at"] + reorder, 1, e.fields["event_id"], e) for e in self.undecided if not e.waits]
        for moment, kind, _, event in sorted(due, key=lambda found: found[:3]):
            if moment >= self.now:
                break
            held = self.views.get(event.fields["page_view_id"])
            if kind == 0:
                self.close_first(event, joins=held is not None and held[1] is event)
            elif event in self.undecided:
                open_first = held is not None and held[1] in self.pending
                if open_first and held is not None and held[1].fields["received_at"] <= moment:
                    event.waits = True
                else:
                    self.undecided.remove(event)
                    self.engage(event, "no_first")

    def close_first(self, first: Event, *, joins: bool) -> None:
        self.pending.remove(first)
        lower, upper = first.fields["received_at"] - self.bounds.reorder, self.upper(first)
        taken = None
        if joins:
            view = first.fields["page_view_id"]
            mine = sorted((s for s in self.undecided if s.fields["page_view_id"] == view), key=lambda s: s.order)
            for event in mine:
                received = event.fields["received_at"]
                if received < lower:
                    continue
                self.undecided.remove(event)
                if received > upper:
                    self.engage(event, "late")
                    continue
                if taken is not None:
                    self.engage(taken, "extra")
                taken = event
        of_second = ("engagement_id", "engaged_at", *STAY, "engagement_properties", "engagement_invalid_fields")
        extra: dict[str, Any] = dict.fromkeys(of_second)
        if taken is not None:
            self.ledger[taken.batch, taken.line, "joined"] += 1
            extra = {
                "engagement_id": taken.fields["event_id"], "engaged_at": taken.fields["occurred_at"],
                "engagement_properties": taken.fields.get("properties"),
                "engagement_invalid_fields": taken.fields.get("invalid_fields"),
                **{name: taken.fields.get(name) for name in STAY},
            }  # fmt: skip
        enriched = {name: expected(first.fields) for name, expected in ENRICHED.items()}
        is_new = first.fields.get("key_kind") is not None  # only lines of such collectors keep their agent
        seen = self.visitor_of(first.fields) if is_new else NOBODY
        agent = {
            "user_agent": first.fields.get("user_agent") if is_new else None,
            "browser_version": seen.browser_version, "os_version": seen.os_version,
        }  # fmt: skip
        self.emit("page_views", first, (*PAGE, *SCREEN), joined=taken is not None, **extra, **enriched, **agent)

    # --- rows

    def engage(self, event: Event, reason: str) -> None:
        self.emit("engagements", event, STAY, reason=reason)

    def emit(self, flow: str, event: Event, names: tuple[str, ...], **more: Any) -> None:
        seen = self.visitor_of(event.fields)
        place = {"browser": seen.browser, "os": seen.os, "device": seen.device, "country": seen.country, "region": None}
        own = {name: event.fields.get(name) for name in (*COMMON, *names)}
        self.put(flow, event, {**own, **place, "city": None, **more})

    def reject(self, event: Event, kind: str, reason: str, payload: str) -> None:
        ip = event.fields.get("ip")
        truncated = ip and self.truncate(ip)
        self.put("rejected", event, {
            "event_id": event.fields.get("event_id"), "event_type": event.fields.get("event_type"), "kind": kind,
            "reason": reason, "user_agent": event.fields.get("user_agent"), "ip": truncated,
            "payload": payload.replace(ip, truncated) if ip else payload, "received_at": event.fields["received_at"],
            "key_kind": event.fields.get("key_kind"),
        })  # fmt: skip

    def put(self, flow: str, event: Event, row: dict[str, Any]) -> None:
        self.rows.setdefault(flow, []).append({**row, "batch_id": event.batch, "line": event.line})
        self.ledger[event.batch, event.line, flow] += 1
