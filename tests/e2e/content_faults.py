"""Events with fields that break a rule, of which only these fields suffer, and the row that each must become."""

from collections.abc import Iterator

from tests.e2e.content_cases import Case, Event, case_of, clean, event, joined_pair, row_of

AS_RECEIVED = "as received_at"
"""In the place of a time that is the row's received_at."""
COSTLY: tuple[tuple[str, Event, str], ...] = (
    ("page_view", {"visitor_id": "v" * 65}, "visitor_id: longer than 64 bytes"),
    ("ad_click", {"creative_id": "\u00e9" * 65}, "creative_id: longer than 128 bytes"),
    ("page_view", {"section": 5}, "section: not a string"),
    ("page_view", {"article_id": ["a"]}, "article_id: not a string"),
    ("page_view", {"url": {"a": "\0"}}, "url: not a string"),
    ("engagement", {"dwell_ms": 2**63}, f"dwell_ms: not from 0 to {2**63 - 1}"),
    ("engagement", {"visible_ms": -1}, f"visible_ms: not from 0 to {2**63 - 1}"),
    ("engagement", {"scroll_pct": ""}, "scroll_pct: not an integer"),
    ("engagement", {"dwell_ms": True}, "dwell_ms: not an integer"),
    ("ad_click", {"ad_slot": 0}, "ad_slot: not from 1 to 3"), ("ad_impression", {"ad_slot": 4}, "ad_slot: not from 1 to 3"),
    ("ad_click", {"revenue_micros": 2**63}, f"revenue_micros: not from {-(2**63)} to {2**63 - 1}"),
    ("ad_click", {"revenue_micros": -(2**63) - 1}, f"revenue_micros: not from {-(2**63)} to {2**63 - 1}"),
    ("redirect", {"cost_micros": "5"}, "cost_micros: not an integer"),
    ("page_view", {"ad_slot": "1"}, "ad_slot: not an integer"),
    ("page_view", {"webdriver": "no"}, "webdriver: not a boolean"),
    ("page_view", {"properties": []}, "properties: not an object"),
    ("ad_click", {"currency": "EURO"}, "currency: not three letters"),
    ("redirect", {"currency": 978}, "currency: not a string"),
    ("page_view", {"title": "t" * 513}, "title: longer than 512 bytes"),
    ("page_view", {"screen_width": -1}, f"screen_width: not from 0 to {2**63 - 1}"),
    ("engagement", {"engaged_ms": -1}, f"engaged_ms: not from 0 to {2**63 - 1}"),
    ("redirect", {"page_view_id": "a b"}, "page_view_id: characters other than A-Za-z0-9_-"),
)  # fmt: skip
"""Type, the value that breaks a rule, the fault that the row names."""
MENDED: tuple[tuple[str, Event, Event, str | None], ...] = (
    ("page_view", {"url": "x" + "\u00e9" * 2048}, {"url": "x" + "\u00e9" * 2047}, "url: longer than 4096 bytes"),
    ("page_view", {"referrer": "r" * 4097}, {"referrer": "r" * 4096}, "referrer: longer than 4096 bytes"),
    ("redirect", {"url": "\ud800" * 1366}, {"url": "\ufffd" * 1365}, "url: longer than 4096 bytes"),
    ("engagement", {"dwell_ms": 5.0, "visible_ms": 2.5, "engaged_ms": 1.2},
     {"dwell_ms": 5, "visible_ms": 3, "engaged_ms": 1}, None),
    ("engagement", {"scroll_pct": 101}, {"scroll_pct": 100}, None),
    ("ad_click", {"revenue_micros": 1e3, "creative_id": 7}, {"revenue_micros": 1000, "creative_id": "7"}, None),
    ("ad_click", {"occurred_at": 1_700_000_000}, {"occurred_at": 1_700_000_000_000},
     "occurred_at: seconds, not milliseconds"),
    ("ad_click", {"occurred_at": "2023-11-14T22:13:20.5Z"}, {"occurred_at": 1_700_000_000_500},
     "occurred_at: ISO 8601, not milliseconds"),
)  # fmt: skip
"""Type, the value that breaks a rule, the value that is stored, the fault that the row names."""


def costly_cases() -> Iterator[Case]:
    """Events that break the rule of a field that they need not have: the rest of the event lives."""
    for event_type, change, fault in COSTLY:
        name = fault.partition(":")[0]
        sent = event(event_type, **change)
        whole = {field: value for field, value in sent.items() if field != name}
        kept = {**whole.get("properties", {}), **change} if name != "page_view_id" else change
        yield case_of(whole, properties=clean(kept), invalid_fields=fault)._replace(sent=sent)
    first, second = event("page_view"), event("engagement", dwell_ms="long", scroll_pct=5)
    second |= {"page_view_id": first["page_view_id"]}
    for case in joined_pair(first, second):
        faults = {"dwell_ms": None, "engagement_properties": {"dwell_ms": "long"},
                  "engagement_invalid_fields": "dwell_ms: not an integer"}  # fmt: skip
        yield case._replace(row=case.row and case.row | faults)


def mended_cases() -> Iterator[Case]:
    """Values that break a rule and whose meaning is plain; of some the row names the fault."""
    for event_type, change, meant, fault in MENDED:
        sent = event(event_type, **change)
        yield case_of(sent | meant, invalid_fields=fault)._replace(sent=sent)
    ahead = event("ad_click", occurred_at=4_133_980_799_999)
    row = row_of(ahead) | {"occurred_at": AS_RECEIVED, "properties": {"occurred_at": 4_133_980_799_999}}
    yield Case(ahead, "ad_clicks", row | {"invalid_fields": "occurred_at: more than a day ahead of received_at"})
