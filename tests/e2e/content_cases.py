"""Events with nasty content, and what the contract says must become of each, in plain Python of its own.

Nothing here comes from the pipeline: neither its catalogue of fields nor its columns, so that both are judged.
"""

import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

Event = dict[str, Any]

COMMON = (
    "event_id", "page_view_id", "visitor_id", "occurred_at", "received_at", "country", "region", "city", "browser", "os",
    "device", "properties", "invalid_fields", "key_kind",
)  # fmt: skip
AD = ("article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros", "currency")
STAY = ("dwell_ms", "visible_ms", "scroll_pct", "engaged_ms")
OF_URL = (
    "host", "path", "utm_source", "utm_medium", "utm_term", "utm_content", "click_id", "click_id_source",
)  # fmt: skip
VERSIONS = ("browser_version", "os_version", "user_agent")
COLUMNS: dict[str, tuple[str, ...]] = {
    "page_views": (
        *COMMON, "url", "referrer", "referrer_medium", "referrer_source", "article_id", "author_id", "section",
        "campaign_id", "joined", "engagement_id", "engaged_at", *STAY, "engagement_properties", "article_title",
        "campaign_name", "campaign_network", *OF_URL, "title", "language", "time_zone", "session_id", "screen_width",
        "viewport_width", *VERSIONS, "engagement_invalid_fields",
    ),
    "ad_impressions": (*COMMON, *AD),
    "ad_clicks": (*COMMON, *AD),
    "redirects": (
        *COMMON, "url", "referrer", "article_id", "campaign_id", "cost_micros", "campaign_name", "campaign_network",
        "currency", "referrer_medium", "referrer_source", *OF_URL,
    ),
    "engagements": (*COMMON, *STAY, "reason"),
    "rejected": ("event_id", "event_type", "kind", "reason", "user_agent", "ip", "payload", "received_at", "key_kind"),
}  # fmt: skip
"""Every column but batch_id, line, txn_id and loaded_at."""
FLOW_OF = {
    "page_view": "page_views", "ad_impression": "ad_impressions", "ad_click": "ad_clicks", "redirect": "redirects",
    "engagement": "engagements",
}  # fmt: skip
ENRICHED = frozenset({"country", "region", "city", "browser", "os", "device", "referrer_medium", "referrer_source",
                      "joined", "engagement_id", "engaged_at", "engagement_properties", "article_title", "campaign_name",
                      "campaign_network", "received_at", "reason", "invalid_fields", "engagement_invalid_fields",
                      "key_kind", *OF_URL, *VERSIONS})  # fmt: skip
"""Columns that no client fills: a field of such a name is an unknown one."""
TYPES = tuple(FLOW_OF)

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3"
    " Mobile/15E148 Safari/604.1"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
READ = {
    CHROME: ("Chrome", "Windows", "desktop", "141.0.0.0", "10"), IPHONE: ("Mobile Safari", "iOS", "mobile", "18.3", "18.3"),
    FIREFOX: ("Firefox", "Linux", "desktop", "140.0", None), IPAD: ("Mobile Safari", "iOS", "tablet", "17.5", "17.5"),
}  # fmt: skip
"""User agent -> browser, os, device, and the versions of browser and os."""

NASTY = (
    "tab\there", "line\nbreak", "cr\rhere", "crlf\r\nend", 'quo"te', '"', '""', '"all"', "back\\slash", "trailing\\",
    "nul\0byte", "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{PARTY POPPER}", "\u05e9\u05dc\u05d5\u05dd \u202eabc", "lone \ud83d high",
    "\udc00", "\ud800\ud800", "NULL", "null", "\\N", "\\.", "a\n\\.\nb", "\n\\.\n", " leading", "trailing ", " ", "\t", "\n",
    "'; DROP TABLE analytics.ledger; --", ",;|", "\u2028\u2029\x85", "\x01\x1f\x7f", "\ufeffbom", "e\u0301", "\\u0000", "{}",
    "true", "0", "%s %(x)s", "\U0010ffff",
)  # fmt: skip
"""Texts that some format, codec or database reads as something else."""

NOW_MS = 1_700_000_000_123
EDGES = (-(2**63), 2**63 - 1)


class Case(NamedTuple):
    """One line as sent, and its end."""

    sent: Event | bytes
    outcome: str
    """A flow's name, `joined` or `duplicate`."""
    row: Event | None = None
    """Every column of `COLUMNS` but received_at and key_kind; None where the line has no row of its own."""


RUN = uuid.uuid4().hex[:8]
_numbers = itertools.count()


def event(event_type: str, **fields: Any) -> Event:
    """An event with the required fields; ids are new and grow."""
    number = next(_numbers)
    own = {"event_id": f"{RUN}-e{number:05}", "event_type": event_type, "occurred_at": NOW_MS + number}
    return {**own, "page_view_id": f"{RUN}-v{number:05}", **fields}


def clean(value: Any) -> Any:
    """What is stored of a value: U+FFFD for U+0000 and lone surrogates, keys included."""
    if isinstance(value, str):
        return "".join("\ufffd" if char == "\0" or 0xD800 <= ord(char) < 0xE000 else char for char in value)
    if isinstance(value, dict):
        return {clean(key): clean(inner) for key, inner in value.items()}
    return [clean(inner) for inner in value] if isinstance(value, list) else value


def moment(milliseconds: int) -> datetime:
    """A timestamp as the warehouse has it: UTC, without a zone."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(tzinfo=None, microsecond=milliseconds % 1000 * 1000)


def own_columns(flow: str) -> set[str]:
    """The columns that an event of this flow fills itself; a page view's stay is its second's."""
    return {*COLUMNS[flow]} - ENRICHED - ({*STAY} if flow == "page_views" else set())


def folded(sent: Event, flow: str) -> Event | None:
    """The properties of an event: its own, and whatever has no column in its flow; None where nothing is left."""
    apart = {*own_columns(flow), "event_type", "ip", "user_agent", "properties"}
    rest = {name: value for name, value in sent.items() if name not in apart}
    return clean({**rest, **(sent.get("properties") or {})}) or None


def seen_by(row: Event, user_agent: str) -> Event:
    """The row with what its user agent tells; some columns are those of page views alone."""
    told = zip(("browser", "os", "device", "browser_version", "os_version"), READ[user_agent], strict=True)
    return row | {name: value for name, value in (*told, ("user_agent", user_agent)) if name in row}


def place_of(url: str | None) -> Event:
    """Host and path of a URL of these cases; a nasty text is no address."""
    if not url or not url.startswith(("https://", "/")):
        return {}
    host, _, rest = url.removeprefix("https://").partition("/")
    return {"host": host or None, "path": "/" + rest.partition("?")[0].partition("#")[0]}


def row_of(sent: Event, user_agent: str = CHROME, **enriched: Any) -> Event:
    """The row of a valid event that is no bot's."""
    flow = FLOW_OF[sent["event_type"]]
    row: Event = dict.fromkeys(COLUMNS[flow])
    row |= {name: None if sent.get(name) == "" else clean(sent.get(name)) for name in own_columns(flow)}
    row |= {"occurred_at": moment(sent["occurred_at"]), "properties": folded(sent, flow)}
    row = seen_by(row, user_agent)
    if flow == "page_views":
        row["joined"] = False
    if "referrer" in row:
        row |= place_of(sent.get("url"))
        if sent.get("referrer"):
            row["referrer_medium"] = "other"
    if row.get("currency"):
        row["currency"] = row["currency"].upper()
    if flow == "engagements":
        row["reason"] = "no_first"
    return row | enriched


def case_of(sent: Event, user_agent: str = CHROME, **enriched: Any) -> Case:
    """A valid event that becomes a row of its type's flow."""
    return Case(sent, FLOW_OF[sent["event_type"]], row_of(sent, user_agent, **enriched))


def joined_pair(first: Event, second: Event, user_agent: str = CHROME, **enriched: Any) -> list[Case]:
    """A page view and the engagement that it takes."""
    taken = {"joined": True, "engagement_id": second["event_id"], "engaged_at": moment(second["occurred_at"])}
    taken |= {name: second.get(name) for name in STAY} | {"engagement_properties": folded(second, "engagements")}
    return [case_of(first, user_agent, **taken, **enriched), Case(second, "joined")]


def rejected(sent: Event | bytes, reason: str, text: str, **known: str) -> Case:
    """A malformed line and its text; `known` is what else its row says (event_id and event_type where they are valid)."""
    payload = clean(text).encode()[:4096].decode(errors="ignore")
    nothing = {"event_id": None, "event_type": None, "user_agent": CHROME, "ip": "127.0.0.0"}
    return Case(sent, "rejected", {**nothing, "kind": "malformed", "reason": reason, "payload": payload, **known})


def nasty_texts() -> Iterator[Case]:
    """Every nasty text in every field of text of every type, as a key and as a value of properties."""
    for text in NASTY:
        for event_type in TYPES:
            texts = {name: text for name in ("visitor_id", "url", "referrer", "article_id", "author_id", "section")}
            texts |= dict.fromkeys(("title", "language", "time_zone", "session_id"), text)
            ids = {"campaign_id": text, "creative_id": text}
            properties = {text: text, "nested": {"list": [text, {text: [text]}], "n": None}}
            yield case_of(event(event_type, **texts, **ids, properties=properties, **{f"unknown{text}": [text]}))
        first, second = event("page_view", section=text), event("engagement", properties={"t": text}, scroll_pct=0)
        yield from joined_pair(first, second | {"page_view_id": first["page_view_id"]})


def longest_texts() -> Iterator[Case]:
    """Texts of exactly the longest length, in bytes as stored."""
    for filler in ("x", "\u00e9", "\ufffd", "\ud800", "\0", "\N{PARTY POPPER}", '"', "\\", "\t"):
        size = len(clean(filler).encode())

        def text(length: int, filler: str = filler, size: int = size) -> str:
            return filler * (length // size) + "y" * (length % size)

        sizes = {"visitor_id": 64, "url": 4096, "referrer": 4096, "article_id": 128, "author_id": 128, "section": 128}
        sizes |= {"campaign_id": 128, "creative_id": 128, "title": 512, "language": 35, "time_zone": 64, "session_id": 64}
        for event_type in TYPES:
            yield case_of(event(event_type, **{name: text(length) for name, length in sizes.items()}))
    longest = event("redirect")
    yield case_of(longest | {name: longest[name].ljust(64, "_") for name in ("event_id", "page_view_id")})
    yield case_of(event("ad_click", properties={"k": "x" * (32 * 1024 - len('{"k":""}'))}))


def numbers() -> Iterator[Case]:
    """Integers at their bounds, and whatever numbers properties hold."""
    for low, high in (EDGES, (0, 0)):
        yield case_of(event("ad_impression", ad_slot=1, revenue_micros=low, currency="EUR"))
        yield case_of(event("ad_click", ad_slot=3, revenue_micros=high, currency="usd"))
        yield case_of(event("redirect", cost_micros=low, currency="gBp"))
        yield case_of(event("redirect", cost_micros=high))
        yield case_of(event("engagement", dwell_ms=high, visible_ms=0, scroll_pct=100, engaged_ms=high))
        first = event("page_view", screen_width=high, viewport_width=0)
        second = event("engagement", dwell_ms=high, visible_ms=high, scroll_pct=0, engaged_ms=0)
        yield from joined_pair(first, second | {"page_view_id": first["page_view_id"]})
    for occurred_at in (946_684_800_000, 1_709_164_800_001):
        yield case_of(event("ad_click", occurred_at=occurred_at))
    kinds = {"big": 2**70, "small": -(2**63), "float": 0.1, "whole": 5.0, "tiny": 1e-300, "t": True, "f": False, "n": None}
    deep: Any = "end"
    for depth in range(60):
        deep = {"d": deep} if depth % 2 else [deep]
    yield case_of(event("ad_impression", properties={**kinds, "deep": deep, "": "", "empty": {}, "none": []}))


def nothings() -> Iterator[Case]:
    """What says nothing is NULL; what has no place is folded, and the event's own keys win."""
    for event_type in TYPES:
        texts = dict.fromkeys(("visitor_id", "url", "referrer", "article_id", "section", "campaign_id"), "")
        yield Case(
            sent := event(event_type, **texts, dwell_ms=None, ad_slot=None, properties={}, webdriver=None),
            FLOW_OF[event_type],
            row_of({name: sent[name] for name in ("event_id", "event_type", "occurred_at", "page_view_id")}),
        )
        everything = {"author_id": "a", "section": "s", "scroll_pct": 7, "ad_slot": 2, "cost_micros": 3, "url": "u"}
        strangers = {"received_at": 5, "batch_id": "b", "txn_id": "t", "country": "xx", "malformed": "m", "joined": True}
        strangers |= {"utm_source": "u", "host": ["h"], "browser_version": 5}
        own = {"section": "own", "scroll_pct": "own", "batch_id": [1], "ip": "1.2.3.4"}
        yield case_of(event(event_type, **everything, **strangers, properties=own, webdriver=False))
    without_view = event("redirect")
    del without_view["page_view_id"]
    yield case_of(without_view)


def engagements() -> Iterator[Case]:
    """Of two seconds received together the greater id joins, the other is extra; a copy is a duplicate, whatever it says."""
    first = event("page_view")
    view = first["page_view_id"]
    extra, taken = event("engagement", page_view_id=view), event("engagement", page_view_id=view)
    yield case_of(extra, reason="extra")
    yield from joined_pair(first, taken)
    for event_type in TYPES:
        once = case_of(event(event_type, visitor_id="first"))
        yield once
        yield Case({**row_sent(once), "visitor_id": "second", "properties": {"x": 1}}, "duplicate")


def row_sent(case: Case) -> Event:
    """The event of a case that was sent as one."""
    assert isinstance(case.sent, dict)
    return case.sent


def sources() -> Iterator[Case]:
    """Campaign and place of origin, from the addresses."""
    base = "https://www.example.com/story"
    for url, own, campaign in (
        (f"{base}?utm_campaign=spring", None, "spring"), (f"{base}?a=1&utm_campaign=a%20b+c%C3%A9&x", None, "a b cé"),
        (f"{base}?utm_campaign=spring", "own", "own"), (f"{base}#utm_campaign=behind", None, "behind"),
        (f"{base}?utm_campaign=", None, None), (f"{base}?xutm_campaign=no", None, None),
    ):  # fmt: skip
        for event_type in ("page_view", "redirect"):
            yield case_of(event(event_type, url=url, campaign_id=own), campaign_id=campaign)
    for query, tags in (
        ("?utm_source=mail&utm_medium=e-mail&utm_term=red+shoes&utm_content=top",
         {"utm_source": "mail", "utm_medium": "e-mail", "utm_term": "red shoes", "utm_content": "top"}),
        ("?UTM_SOURCE=A%20&utm_source=b&utm_term=%20&utm_content=", {"utm_source": "A"}),
        ("?a=1&amp;utm_medium=m#utm_source=behind&utm_medium=no", {"utm_source": "behind", "utm_medium": "m"}),
        ("?gclid=Cj0K_-", {"click_id": "Cj0K_-", "click_id_source": "google"}),
        ("?utm_source=fb&FBCLID=IwAR", {"utm_source": "fb", "click_id": "IwAR", "click_id_source": "facebook"}),
        ("?gclid=&xgclid=no", {}),
    ):  # fmt: skip
        for event_type in ("page_view", "redirect"):
            yield case_of(event(event_type, url=base + query), **tags)
    yield case_of(event("redirect", url="https://shop.example"), host="shop.example", path="/")
    for referrer, medium, source in (
        ("https://www.google.co.uk/search?q=x", "search", "Google"), ("https://duckduckgo.com/", "search", "DuckDuckGo"),
        ("https://l.facebook.com/l.php", "social", "Facebook"), ("https://t.co/abc", "social", "X"),
        ("https://mail.google.com/mail", "email", "Gmail"), ("https://example.com/", "internal", "example.com"),
        ("https://blog.elsewhere.org/a", "other", "blog.elsewhere.org"), (None, None, None), ("", None, None),
    ):  # fmt: skip
        for event_type in ("page_view", "redirect"):
            sent = event(event_type, url=base, referrer=referrer)
            yield case_of(sent, referrer_medium=medium, referrer_source=source)


BROKEN: tuple[tuple[str, Event, str], ...] = (
    ("page_view", {"occurred_at": 946_684_799_999}, "occurred_at"),
    ("page_view", {"occurred_at": 4_133_980_800_000}, "occurred_at"),
    ("page_view", {"occurred_at": None}, "occurred_at"), ("page_view", {"occurred_at": "1700000000000"}, "occurred_at"),
    ("page_view", {"page_view_id": ""}, "page_view_id"), ("engagement", {"page_view_id": None}, "page_view_id"),
    ("page_view", {"page_view_id": "p" * 65}, "page_view_id"),
    ("page_view", {"event_id": ""}, "event_id"), ("page_view", {"event_id": "a\0b"}, "event_id"),
    ("page_view", {"event_id": 7.5}, "event_id"), ("page_view", {"event_id": "e" * 65}, "event_id"),
    ("Page_View", {}, "event_type"), ("", {}, "event_type"),
)  # fmt: skip
"""Type, what breaks it, the field that the reason names."""
NO_EVENTS: tuple[tuple[bytes, str], ...] = (
    (b'{"content": "bad utf-8 \xff\xc3(\xed\xa0\x80"}', "line: not UTF-8"), (b"content, not JSON\t\"", "line: not JSON"),
    (b'{"content": "cut', "line: not JSON"), (b'{"content": NaN}', "line: not JSON"),
    (b'["content"]', "line: not an object"),
    (b'"content"', "line: not an object"), (b"content \x00 and\r more", "line: not JSON"), (b" ", "line: not JSON"),
    (b"\xf0\x9f\x8e\x89" * 1500 + b"content", "line: not JSON"), (b"\xff" * 5000 + b"content", "line: not UTF-8"),
    (b'{"content": "' + b"x" * (64 * 1024) + b'"}', "line: longer than 65536 bytes"),
)  # fmt: skip
"""Lines of NDJSON that hold no event."""
