"""Targets: what clients and operators write: lines, bodies, keys, lists; and whole blocks through the etl's step."""

import codecs
import gzip
import json
from typing import Any

from app.collector.requests import RequestBody
from app.core.enrich.bot_agents import parse_agent_rules
from app.core.enrich.bots import parse_networks
from app.core.etl.decode import ANY_FAILURE
from app.core.events.canonical_json import decode, decode_fast
from app.core.events.client_lines import LineReader
from app.core.events.fields import KeyKind
from app.core.events.gzip_body import gunzip
from app.core.events.parse import parse_line
from app.core.events.read_stored import read_stored_line
from app.core.events.request_body import WorkLimit, split_body
from app.core.formats.source import SourceMessage
from app.errors import ConfigurationError, EpochMismatch, FormatInvalid, InstreamError, NewerFormat, RequestRejected
from app.setting_types import parse_write_keys
from tests.builders.source_log import BASE_MS, CHROME, block, enricher, etl_rules, log_of, malformed, second, tick
from tests.builders.source_log import event as stored_event
from tests.corpus import values
from tests.rig.fuzz.target import Target, Wrong
from tests.worlds.etl_run import Run
from tests.worlds.read_bodies import outcome

MIB = 1024 * 1024
_PAGE: dict[str, Any] = {
    "event_id": "e1", "event_type": "page_view", "page_view_id": "v1", "occurred_at": values.NOW_MS, "visitor_id": "u1",
    "url": "https://news.example/a?utm_source=x&utm_campaign=c1", "referrer": "https://www.google.com/search?q=x",
    "article_id": "a1", "author_id": "w1", "section": "s", "campaign_id": "c1",
    "properties": {"k": [1, "é", None, {"z": 1.5}]}, "unknown": True, "ip": "203.0.113.9", "user_agent": CHROME,
}  # fmt: skip
_EVENTS = (
    _PAGE,
    {"event_id": "e2", "event_type": "engagement", "page_view_id": "v1", "occurred_at": values.NOW_MS, "dwell_ms": 5,
     "scroll_pct": 50, "webdriver": False},
    {"event_id": "e3", "event_type": "ad_click", "page_view_id": "v1", "occurred_at": values.NOW_MS, "ad_slot": 1,
     "creative_id": "c", "revenue_micros": -5},
    {"event_id": "e4", "event_type": "redirect", "occurred_at": values.NOW_MS, "cost_micros": 9, "url": "https://x.example/"},
)  # fmt: skip
LINES = tuple(json.dumps(event, ensure_ascii=False).encode() for event in _EVENTS)
NDJSON = b"\n".join(LINES) + b"\r\n"
_READER = LineReader(0)
ARRAY = b"[" + b" , ".join(LINES) + b"]"


def _parse(kind: KeyKind, line: bytes) -> None:
    stored = parse_line(line, kind, values.NOW_MS, "203.0.113.9", CHROME)
    found = {name: value for name, value in read_stored_line(stored.data).items() if value is not None}
    if b"\n" in stored.data or found != json.loads(stored.data) or stored.valid == ("malformed" in found):
        raise Wrong(f"stored as {stored.data[:200]!r}, read as {found}")


def _split(content_type: str, data: bytes) -> None:
    limit = WorkLimit.of(len(data), MIB)
    lines = split_body(content_type, data, 10_000, limit.units)
    if content_type != "application/json" and b"\n".join(lines).split() != data.removeprefix(codecs.BOM_UTF8).split():
        raise Wrong(f"cut into {lines[:3]}")


def _both(content_type: str, kind: KeyKind, data: bytes) -> None:
    """A body as the kernels read it, beside the plain path."""
    sent = RequestBody(data, content_type, kind, values.NOW_MS, "203.0.113.9", CHROME)
    plain, found = outcome(sent, None), outcome(sent, _READER)
    if found != plain:
        raise Wrong(f"read as {found}, plainly as {plain}")


def _gunzip(data: bytes) -> None:
    content = gunzip(data, WorkLimit.of(len(data), MIB).content_bytes, lambda _: None)
    split_body("text/plain", content, 10_000, WorkLimit.of(len(data), MIB).units)


def _decide(message: bytes) -> None:
    """A whole step over one message of topic `blocks`, as an owner takes it, and the steps that close its window."""
    run = Run(etl_rules(), ENRICHER)
    run.step(log_of([tick(s0=0)], append_ms=BASE_MS))
    source = [SourceMessage(1, BASE_MS, message)]
    try:
        run.step(source)
    except (InstreamError, MemoryError):
        raise
    except ANY_FAILURE:  # its owner takes the step again, line by line (rule E6)
        run.step(source, careful=True)
    run.feed(log_of([tick(s0=100_000)], first=2, append_ms=BASE_MS + 100_000_000))  # no mark passes it (rule T4)


ENRICHER = enricher({"a1": {"title": "T", "author_id": "w1"}}, {"c1": {"name": "N"}})
_FIELDS = {name: value for name, value in _PAGE.items() if name not in {"event_id", "occurred_at", "unknown", "properties"}}
_BLOCKS = (
    block(
        stored_event("e1", **{name: value for name, value in _FIELDS.items() if name not in {"event_type", "page_view_id"}}),
        second("e2", at_s=9, dwell_ms=7, properties='{"y":2}'), malformed(), stored_event("e3", "ad_click", ad_slot=1),
        stored_event("e4", "redirect", view=None, cost_micros=3),
    ),
    block(stored_event("e9")),
    tick(s0=5, s1=7),
)  # fmt: skip

TARGETS = (
    Target("line.browser", LINES, lambda line: _parse("browser", line)),
    Target("line.server", LINES, lambda line: _parse("server", line)),
    Target("json", LINES, decode, (FormatInvalid,)),
    Target("json.fast", LINES, decode_fast),
    Target("body.json", (ARRAY, LINES[0]), lambda data: _split("application/json", data), (RequestRejected,)),
    Target("kernels.browser", (NDJSON,), lambda data: _both("application/x-ndjson", "browser", data), weight=3),
    Target("kernels.server", (NDJSON, *LINES), lambda data: _both("text/plain", "server", data), weight=3),
    Target("kernels.array", (ARRAY, LINES[0]), lambda data: _both("application/json", "browser", data), weight=2),
    Target("body.ndjson", (NDJSON,), lambda data: _split("text/plain", data), (RequestRejected,)),
    Target(
        "body.gzip", (gzip.compress(NDJSON, mtime=0), gzip.compress(LINES[0], mtime=0) * 2), _gunzip, (RequestRejected,)
    ),
    Target("etl", _BLOCKS, _decide, (NewerFormat, EpochMismatch), weight=4),
    Target(
        "write_keys", (b"demo:browser,back:server",), lambda data: parse_write_keys(_text(data).split(",")), (ValueError,)
    ),
    Target(
        "bot_agents", (b"bot jsdom  \\bjsdom/\npeople Mozilla/5\\.0 [a-z]+ # x\n",),
        lambda data: parse_agent_rules(_text(data)), (ConfigurationError,),
    ),
    Target(
        "networks", (b"66.249.64.0/19 googlebot\n2001:db8::/32 x # y\n",), lambda data: parse_networks(_text(data)),
        (ConfigurationError,),
    ),
)  # fmt: skip


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
