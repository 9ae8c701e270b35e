"""Stories: the acts of one visitor on one page, as events at offsets from its start.

Shares are of all lines: page views 30 %, seconds for 70 % of them, ad impressions and clicks ~30 %, redirects 5 %, bots 5 %,
malformed 2 %, resent 5 %. Of the seconds some are late, some come just before their first, some twice, some without a first.
"""

import json
import random
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from app.local.traffic import content

LINES_A_STORY: Final = 3.21
"""Average number of lines of a story, with its share of bots, noise and resent lines."""
SECOND_SHARE: Final = 0.70
LATE_SHARE: Final = 0.05
REORDERED_SHARE: Final = 0.04
EXTRA_SHARE: Final = 0.01
TWIN_SHARE: Final = 0.005
RESENT_SHARE: Final = 0.0538
"""Of the lines that are valid events, so that 5 % of all lines are second copies."""


class Timing(msgspec.Struct, frozen=True):
    """The join's rules on the stack that gets the traffic (seconds)."""

    window_s: float
    grace_s: float
    reorder_s: float
    slack_s: float

    @property
    def late_after_s(self) -> float:
        """A second that must be too late is sent so long after its first; no stall can make it early."""
        return self.window_s + self.grace_s + 4

    @property
    def longest_s(self) -> float:
        """The longest time from a story's first line to its last."""
        return self.late_after_s + 3


class Channel(Enum):
    """The key with which a line is sent."""

    SERVER = "server"
    BROWSER = "browser"


class EventFacts(msgspec.Struct):
    """The facts of a logical event that expectations need; the event may be sent several times."""

    event_id: str
    event_type: str
    page_view_id: str | None
    is_bot: bool


class Line(NamedTuple):
    """One line to send."""

    at_s: float
    """Seconds after the run's start."""
    channel: Channel
    agent: content.Browser
    body: bytes
    facts: EventFacts | None
    """None for a malformed line."""
    fault: str | None = None
    """The field that a malformed line's reason must name."""
    only_ndjson: bool = False
    """Its bytes are no JSON value, so they cannot be an element of an array."""
    once: bool = False
    """Never resent: if a later copy counted instead of the first, the expected result would be unsure."""


class Visitor(NamedTuple):
    """The visitor of a story."""

    visitor_id: str
    channel: Channel
    agent: content.Browser
    ip: str
    webdriver: bool


class Author:
    """Writes stories; the same seed, run and start give the same lines."""

    def __init__(self, seed: int, run: str, started_at_ms: int, timing: Timing) -> None:
        """Write for one run.

        Args:
            seed: decides everything but the ids.
            run: the start of every id, so that two runs of one seed have no common ids in the dedup window.
            started_at_ms: client clock at offset 0, for occurred_at.
            timing: the join's rules on the stack.
        """
        self.rng = random.Random(seed)
        self._run = run
        self._started_at_ms = started_at_ms
        self._timing = timing
        self._count = 0

    def stories(self, at_s: float) -> Iterator[Line]:
        """A page view that starts at `at_s`, and its share of everything else, in no order of time."""
        yield from self._page_view(at_s)
        rng = self.rng
        if rng.random() < 0.167:
            yield self._redirect(at_s + rng.random())
        if rng.random() < 0.077:
            yield from self._bot(at_s + rng.random())
        if rng.random() < 0.067:
            yield self._malformed(at_s + rng.random())
        if rng.random() < 0.017:
            yield self._line(self._visitor(), self._second(self._id("p")), at_s + rng.random())

    # --- stories

    def _page_view(self, at_s: float) -> Iterator[Line]:
        rng, timing, visitor = self.rng, self._timing, self._visitor()
        page_view = self._id("p")
        first = self._first(page_view)
        has_second = rng.random() < SECOND_SHARE
        kind = rng.random() if has_second else 1.0
        first_at_s = at_s
        if kind < REORDERED_SHARE:
            first_at_s = at_s + timing.reorder_s * rng.uniform(0.15, 0.4)
            yield self._line(visitor, self._second(page_view), at_s)
        elif kind < REORDERED_SHARE + LATE_SHARE:
            yield self._line(visitor, self._second(page_view), at_s + timing.late_after_s + rng.random())
        elif kind < REORDERED_SHARE + LATE_SHARE + EXTRA_SHARE:
            early_s = at_s + timing.window_s * 0.8
            yield self._line(visitor, self._second(page_view), early_s)._replace(once=True)
            yield self._line(visitor, self._second(page_view), early_s + rng.uniform(1.6, 1.8))
        elif has_second:
            yield self._line(visitor, self._second(page_view), at_s + timing.window_s + rng.random() * timing.grace_s / 5)
        has_twin = rng.random() < TWIN_SHARE and kind >= REORDERED_SHARE
        yield self._line(visitor, first, first_at_s)._replace(once=has_twin or first_at_s > at_s)
        if has_twin:
            yield self._line(visitor, self._first(page_view), first_at_s + rng.uniform(1.6, 1.8))
        yield from self._ads(visitor, page_view, first_at_s, first.get("article_id"), shown=rng.choice((0, 0, 1, 1, 1, 2)))

    def _ads(self, visitor: Visitor, page_view: str, at_s: float, article_id: Any, shown: int) -> Iterator[Line]:
        rng = self.rng
        for slot in range(1, shown + 1):
            yield self._line(visitor, self._ad("ad_impression", page_view, article_id, slot), at_s + rng.random())
            if rng.random() < 0.12:
                yield self._line(visitor, self._ad("ad_click", page_view, article_id, slot), at_s + 1 + rng.random())

    def _redirect(self, at_s: float) -> Line:
        rng = self.rng
        url, _ = content.page_url(rng)
        event = self._event("redirect", self._id("p") if rng.random() < 0.5 else None) | {
            "url": url, "referrer": content.referrer(rng), "cost_micros": rng.randrange(150_000),
            **self._currency(),
        }  # fmt: skip
        if rng.random() < 0.8:
            event["campaign_id"] = rng.choice(content.CAMPAIGNS)
        return self._line(self._visitor(), event, at_s)

    def _bot(self, at_s: float) -> Iterator[Line]:
        """Two lines of a crawler, or of a driven browser that looks human."""
        rng = self.rng
        if rng.random() < 0.3:
            visitor = self._visitor()._replace(webdriver=True)
        else:
            visitor = self._visitor()._replace(agent=rng.choice(content.BOTS))
        page_view = self._id("p")
        yield self._line(visitor, self._first(page_view), at_s)
        follow = self._second(page_view) if rng.random() < 0.3 else self._ad("ad_impression", page_view, "article-1", 1)
        yield self._line(visitor, follow, at_s + rng.random())

    def _malformed(self, at_s: float) -> Line:
        """A line that is no valid event, with a mark in its text by which its row is found again.

        Only faults that every version rejects: while a stack is upgraded, collectors of two versions take these lines.
        """
        rng, visitor = self.rng, self._visitor()
        mark = self._id("m")
        occurred_at = self._started_at_ms + int(at_s * 1000)
        valid = {"visitor_id": mark, "occurred_at": occurred_at} | self._first(self._id("p"))
        broken: dict[str, tuple[object, str]] = {
            "event_id": (f"{mark} with spaces", "event_id"),
            "event_type": ("pageview", "event_type"),
            "occurred_at": (rng.choice((1e3, "today", 5, -1, True)), "occurred_at"),
            "page_view_id": (rng.choice(("", "p q", "p" * 65, None)), "page_view_id"),
        }
        field = rng.choice((*broken, "cut", "text", "bytes", "list", "huge"))
        if field in broken:
            value, fault = broken[field]
            if field == "event_id":
                valid.pop("visitor_id")
            return self._raw(visitor, at_s, json.dumps(valid | {field: value}).encode(), fault)
        texts: dict[str, bytes] = {
            "cut": json.dumps(valid)[:-7].encode(),
            "text": f"{mark} <html>\\N\t'\"</html>".encode(),
            "bytes": mark.encode() + b' "\xff\xfe\x80 \xc3("',
            "list": json.dumps([mark, 1]).encode(),
            "huge": json.dumps({"visitor_id": mark, "padding": "z" * 66_000}).encode(),
        }
        return self._raw(visitor, at_s, texts[field], "line", only_ndjson=field in {"cut", "text", "bytes"})

    # --- events

    def _id(self, letter: str) -> str:
        self._count += 1
        return f"{self._run}-{letter}{self._count}"

    def _visitor(self) -> Visitor:
        rng = self.rng
        return Visitor(
            f"v{rng.randrange(1_000_000)}", Channel.SERVER if rng.random() < 0.7 else Channel.BROWSER,
            rng.choice(content.HUMANS), content.address(rng), webdriver=False,
        )  # fmt: skip

    def _event(self, event_type: str, page_view: str | None) -> dict[str, Any]:
        event: dict[str, Any] = {"event_id": self._id("e"), "event_type": event_type}
        if page_view is not None:
            event["page_view_id"] = page_view
        if self.rng.random() < 0.5:
            event["properties"] = content.properties(self.rng)
        if self.rng.random() < 0.02:
            event["sdk_version"] = content.text_or_nasty(self.rng, "4.2.0", 0.5)
        return event

    def _first(self, page_view: str) -> dict[str, Any]:
        rng = self.rng
        url, _ = content.page_url(rng)
        event = self._event("page_view", page_view) | content.article(rng) | content.screen(rng)
        event |= {"url": url, "referrer": content.referrer(rng)}
        if rng.random() < 0.1:
            event["campaign_id"] = content.text_or_nasty(rng, rng.choice(content.CAMPAIGNS), 0.1)
        if rng.random() < 0.01:
            event["scroll_pct"] = 7  # no field of this type: it goes into properties
        return event

    def _second(self, page_view: str) -> dict[str, Any]:
        rng = self.rng
        event = self._event("engagement", page_view) | {"dwell_ms": rng.randrange(600_000), "scroll_pct": rng.randrange(101)}
        if rng.random() < 0.9:
            event["visible_ms"] = rng.randrange(event["dwell_ms"] + 1)
            event["engaged_ms"] = rng.randrange(event["visible_ms"] + 1)
        return event

    def _ad(self, event_type: str, page_view: str, article_id: Any, slot: int) -> dict[str, Any]:
        rng = self.rng
        event = self._event(event_type, page_view) | self._currency()
        return event | {
            "article_id": article_id, "ad_slot": slot, "creative_id": content.text_or_nasty(rng, f"cr-{rng.randrange(400)}"),
            "revenue_micros": rng.choice((rng.randrange(50_000), rng.randrange(50_000), rng.randrange(50_000), 0, -3)),
        }  # fmt: skip

    def _currency(self) -> dict[str, Any]:
        """The currency of an event's money; some clients name none."""
        return {"currency": self.rng.choice(content.CURRENCIES)} if self.rng.random() < 0.9 else {}

    def _line(self, visitor: Visitor, event: dict[str, Any], at_s: float) -> Line:
        sent = event | {
            "visitor_id": visitor.visitor_id,
            "occurred_at": self._started_at_ms + int(at_s * 1000) + self.rng.randrange(-2000, 500),
        }
        if visitor.webdriver or self.rng.random() < 0.2:
            sent["webdriver"] = visitor.webdriver
        if visitor.channel is Channel.SERVER:
            sent |= {"ip": visitor.ip, "user_agent": visitor.agent.text}
        facts = EventFacts(
            event["event_id"], event["event_type"], event.get("page_view_id"), visitor.agent.is_bot or visitor.webdriver
        )
        body = json.dumps(sent, ensure_ascii=True, separators=(",", ":")).encode()
        return Line(at_s, visitor.channel, visitor.agent, body, facts)

    def _raw(self, visitor: Visitor, at_s: float, body: bytes, fault: str, *, only_ndjson: bool = False) -> Line:
        return Line(at_s, visitor.channel, visitor.agent, body, None, fault, only_ndjson)
