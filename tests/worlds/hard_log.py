"""A log with all that readers and joins find hard, decided by its seed: what no strategy draws together.

Malformed lines, texts that have broken loaders, escapes and UTF-8, odd URLs, resent events, several first events of a page
view, second events that are early, in time, extra or late, bots by each rule, tombstones, and blocks that are not canonical.
"""

import json
import random
import uuid
from typing import Any

from app.core.enrich.enrich import Enricher, Location
from app.core.events.parse import parse_line
from app.core.formats.source import SourceMessage
from app.core.formats.tombstone import tombstone
from app.local.traffic.content import BOTS, CAMPAIGNS, HUMANS, NASTY
from tests.builders.source_log import BASE_MS, block, enricher, log_of, tick

SECONDS = 200
A_SECOND = 12
GARBAGE = (
    b"{", b"nonsense", b"[1,2]", b'{"event_id":"a b","event_type":"page_view"}', b'\xff\xfe{"x":1}',
    b'{"event_id":"\\ud83d"}',
    b'{"ip":"203.0.113.77"}', b'{"event_id":"e","event_type":"page_view","occurred_at":5.0}',
)  # fmt: skip
ODD_URLS = (
    "//host/p", "no-scheme", "https:/one", "http://u:p@WWW.Example.COM:80/?utm_campaign", "?utm_campaign=q", "a\\b//c", "//",
    "https://sub.example.com", "https://www.example.com/a?utm_source=%41b&amp;utm_medium=m#utm_term=t",
    "/only/a/path?gclid=7",
)  # fmt: skip
REFERRERS = (
    "https://www.google.co.uk/", "https://t.co/x", "https://sub.example.com/y", "android-app://com.google.android.gm/",
    "mail", "https://[::1]:80/a", "google.com", "https://www-example-com.cdn.ampproject.org/v/s/www.example.com/a", "https://",
)  # fmt: skip
DELAYS_MS = (90_000, 90_000, 90_000, 119_990, 120_000, 120_001, 140_000, -5000, -10_000, -12_000, 300)
ARTICLES = {f"a-{n}": {"title": f"Title {n}", "author_id": "au", "section": "s"} for n in range(0, 40, 3)}


def hard_enricher() -> Enricher:
    """Look-ups that know some articles, campaigns and places."""

    def place(ip: str) -> Location:
        return Location("CH", None, "Zürich") if ip.endswith("7") else Location()

    return enricher(ARTICLES, {CAMPAIGNS[0]: {"name": "Autumn", "network": None}, "own": {"name": 5}}, None, place)


class _Writer:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some_id(self) -> str:
        rng = self.rng
        letters = "".join(rng.choices("ABCdef_-019", k=rng.randrange(1, 65)))
        return rng.choice([str(uuid.UUID(int=rng.getrandbits(128))), f"x{rng.getrandbits(60)}", letters])

    def text(self, usual: str) -> str:
        return self.rng.choice(NASTY) if self.rng.random() < 0.05 else usual

    def event(self, kind: str, at: int) -> dict[str, Any]:
        rng = self.rng
        event: dict[str, Any] = {
            "event_id": self.some_id(), "event_type": kind, "page_view_id": self.some_id(),
            "occurred_at": at - rng.randrange(3000), "visitor_id": self.text(self.some_id()),
        }  # fmt: skip
        if rng.random() < 0.02:
            event["webdriver"] = rng.choice([True, False])
        if rng.random() < 0.5:
            event["properties"] = {self.text("k"): self.text("v"), "n": rng.choice([1, 2.5, None, True, [1, {"a": 2}]])}
        if kind in ("page_view", "redirect"):
            campaign = rng.choice(["spring", "", "%41b+c", "ü", *CAMPAIGNS])
            event["url"] = self.text(
                f"https://www.example.com/a/{rng.randrange(9)}?utm_source=x&utm_campaign={campaign}#frag"
            )
            if rng.random() < 0.1:
                event["url"] = rng.choice(ODD_URLS)
            event["referrer"] = self.text(rng.choice(REFERRERS))
            event |= {"article_id": self.text(f"a-{rng.randrange(40)}")} if rng.random() < 0.5 else {}
            event |= {"campaign_id": self.text("own")} if rng.random() < 0.3 else {}
            event |= {"section": self.text("sport")} if rng.random() < 0.5 else {}
        if kind in ("ad_impression", "ad_click"):
            event |= {
                "ad_slot": rng.randrange(1, 4),
                "revenue_micros": rng.choice([0, -5, 2**63 - 1, 10**17]),
                "currency": "chf",
            }
        if kind == "redirect":
            event["cost_micros"] = rng.randrange(10**6)
            if rng.random() < 0.3:
                del event["page_view_id"]
        return event

    def second(self, view: str, at: int) -> bytes:
        rng = self.rng
        return json.dumps({
            "event_id": self.some_id(), "event_type": "engagement", "page_view_id": view, "occurred_at": at,
            "dwell_ms": rng.choice([0, 5, 2**62]), "scroll_pct": rng.randrange(101), "properties": {"p": self.text("q")},
        }).encode()  # fmt: skip


def _sent(write: _Writer) -> list[tuple[int, bytes, str, str]]:
    """(time, line, address, user agent) of everything that clients send, in order of time."""
    rng, sent = write.rng, []
    for n in range(SECONDS * A_SECOND):
        at = BASE_MS + n * 1000 // A_SECOND
        agent = (
            write.text(rng.choice(HUMANS).text) if rng.random() > 0.06 else rng.choice([*(b.text for b in BOTS), "", "   "])
        )
        ip = rng.choice([f"203.0.113.{rng.randrange(255)}", f"2001:db8::{rng.randrange(65536):x}", "198.51.100.7"])
        kinds = ["page_view", "ad_impression", "ad_click", "redirect", "engagement", ""]
        kind = rng.choices(kinds, [40, 30, 5, 8, 3, 4])[0]
        if not kind:
            sent.append((at, rng.choice(GARBAGE), ip, agent))
            continue
        event = write.event(kind, at)
        line = json.dumps(event, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        sent.append((at, line, ip, agent))
        if kind == "page_view":
            for _ in range(rng.choices([0, 1, 2], [30, 60, 10])[0]):
                sent.append((at + rng.choice(DELAYS_MS), write.second(event["page_view_id"], at), ip, agent))
            if rng.random() < 0.05:
                other = json.dumps({**event, "event_id": write.some_id()}).encode()
                sent.append((at + rng.choice([-3000, 50, 4000, 100_000, 125_000]), other, ip, agent))
        if rng.random() < 0.05:
            sent.append((at + rng.randrange(60_000), line, ip, agent))
    return sorted((one for one in sent if one[0] >= BASE_MS), key=lambda one: one[0])


def hard_log(seed: int) -> list[SourceMessage]:
    """The log; everything in it closes."""
    write = _Writer(seed)
    rng, sent, values, at, ticked = write.rng, _sent(write), [], 0, 1
    while at < len(sent):
        some = sent[at : at + rng.choice([1, 7, 60, 200])]
        at += len(some)
        first, last = some[0][0], some[-1][0]
        kinds = rng.choice([("server",), ("browser",), ("server", "browser")])
        lines = [parse_line(line, rng.choice(kinds), moment, ip, agent).data for moment, line, ip, agent in some]
        if rng.random() < 0.1:
            lines[rng.randrange(len(lines))] = rng.choice([
                b'{"received_at": %d}' % first, b"{}", b"not json", tombstone(0, 1, first), b'\xff"',
                b'{"received_at":%d,"event_id":"r%d","event_type":"redirect" ,"occurred_at":%d}' % (first, at, first),
            ])  # fmt: skip
        values.append(block(*lines, batch=at, first_line=rng.randrange(3) * 100, received_at_ms=first))
        while BASE_MS + 1000 * ticked <= last:
            values.append(tick(s0=ticked - 2))
            ticked += 1
    return log_of([*values, *(tick(s0=ticked + second) for second in range(0, 300, 9))])
