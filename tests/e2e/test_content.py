"""Whatever a client may send comes out as the contract says: every column of every row of all six flows, and the ledger."""

import gzip
import json
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp
import aiokafka
import pytest

from tests.e2e.content_cases import (
    BROKEN,
    CHROME,
    FIREFOX,
    GOOGLEBOT,
    IPAD,
    IPHONE,
    NO_EVENTS,
    VERSIONS,
    Case,
    Event,
    case_of,
    engagements,
    event,
    joined_pair,
    longest_texts,
    nasty_texts,
    nothings,
    numbers,
    rejected,
    seen_by,
    sources,
)
from tests.e2e.content_faults import costly_cases, mended_cases
from tests.e2e.content_found import Answered, are_grouped, compare, raw_lines, rows_of
from tests.e2e.live_stack import LiveStack

pytestmark = pytest.mark.stack

SERVER_IPS = {"203.0.113.77": "203.0.113.0", "2001:db8:1:2:3:4:5:6": "2001:db8:1::"}
"""What a server's event names -> what may leave the ETL."""


class Request(NamedTuple):
    """Cases that travel together, and how."""

    cases: list[Case]
    media_type: str = "application/x-ndjson"
    key: str = "demo"
    user_agent: str | None = CHROME
    is_gzip: bool = False
    in_query: bool = False


def line_of(sent: Event | bytes) -> bytes:
    """A line as NDJSON; raw UTF-8 where that can say it, escapes where not."""
    if isinstance(sent, bytes):
        return sent
    try:
        return json.dumps(sent, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(sent).encode()


def pretty(sent: Event | bytes) -> str:
    """An element of an array, over several lines."""
    return json.dumps(sent, indent=1)


def body_of(request: Request) -> bytes:
    if request.media_type == "application/json":
        texts = [pretty(case.sent) for case in request.cases]
        body = (texts[0] if len(texts) == 1 else "[ " + "\n,\t".join(texts) + "\r\n]").encode()
    else:
        lines = [line_of(case.sent) + (b"\r" if number % 3 == 0 else b"") for number, case in enumerate(request.cases)]
        body = b"\n" + b"\n\r\n".join(lines)  # empty lines are skipped, and the last line needs no end
    return gzip.compress(body) if request.is_gzip else body


async def post(url: str, request: Request) -> Answered:
    headers = {"Content-Type": request.media_type}
    headers |= {} if request.in_query else {"X-Write-Key": request.key}
    headers |= {"Content-Encoding": "gzip"} if request.is_gzip else {}
    headers |= {} if request.user_agent is None else {"User-Agent": request.user_agent}
    query = {"key": request.key} if request.in_query else {}
    sent_ms = time.time_ns() // 10**6
    async with (
        aiohttp.ClientSession(skip_auto_headers=["User-Agent", "Content-Type"]) as session,
        session.post(f"{url}/v1/events", data=body_of(request), headers=headers, params=query) as answer,
    ):
        found = await answer.json()
        assert (answer.status, found.get("accepted")) == (200, len(request.cases)), found
        reasons = {n: case.row["reason"] for n, case in enumerate(request.cases) if is_malformed(case) and case.row}
        assert found["malformed"] == len(reasons)
        for told, (line, reason) in zip(found["reasons"], reasons.items(), strict=False):
            assert told["line"] == line
            assert told["reason"].startswith(reason)
        assert len(found["reasons"]) == min(10, len(reasons))
        kind = "server" if request.key == "demo-server" else "browser"
        return Answered(found["batch_id"], sent_ms, time.time_ns() // 10**6, kind)


def is_malformed(case: Case) -> bool:
    """Whether the answer must name the line."""
    return case.row is not None and case.row.get("kind") == "malformed"


# --- what is sent


def from_a_browser(cases: Iterable[Case], user_agent: str = CHROME) -> list[Case]:
    """Events that name an address and a user agent, which a browser's key has no say in."""
    named = {"ip": "no address", "user_agent": 5}
    return [case._replace(sent=_with(case.sent, named), row=case.row and seen_by(case.row, user_agent)) for case in cases]


def from_a_server(cases: Iterable[Case], user_agent: str = FIREFOX) -> list[Case]:
    """Events whose address and user agent a server names."""
    named = {"ip": "203.0.113.77", "user_agent": user_agent}
    return [case._replace(sent=_with(case.sent, named), row=case.row and seen_by(case.row, user_agent)) for case in cases]


def _with(sent: Event | bytes, named: Event) -> Event:
    assert isinstance(sent, dict)
    return sent | named


def broken_events(*, in_array: bool) -> list[Case]:
    """Events that break one rule, in an array as text of its own."""
    cases = []
    for event_type, change, field in BROKEN:
        sent = event(event_type, **change)
        text = pretty(sent) if in_array else line_of(sent).decode()
        kept = {"event_id": sent["event_id"], "event_type": event_type}
        valid = {name: value for name, value in kept.items() if name != field and value}
        cases.append(rejected(sent, f"{field}: ", text, **valid))
    return cases


def broken_from_servers() -> list[Case]:
    """Malformed lines that name an address: it is truncated in its column and in the payload."""
    cases = []
    for ip, truncated in SERVER_IPS.items():
        sent = event("page_view", ip=ip, user_agent=IPHONE, occurred_at="never", visitor_id=f"at {ip}")
        text = line_of(sent).decode().replace(ip, truncated)
        valid = {name: sent[name] for name in ("event_id", "event_type")}
        cases.append(rejected(sent, "occurred_at: ", text, user_agent=IPHONE, ip=truncated, **valid))
    return cases


def from_unknown_visitors() -> list[Case]:
    """A server names no visitor, or names one that is none: nothing is taken from the server itself."""
    nobody = dict.fromkeys(("browser", "os", "device"))
    cases = [case_of(event(event_type), **nobody) for event_type in ("engagement", "ad_click", "redirect")]
    page_view = case_of(event("page_view"), **nobody)
    cases.append(page_view._replace(row=page_view.row | dict.fromkeys(VERSIONS)))
    for ip, kept in (("no address: 7", "no address: 7"), ("at 203.0.113.77", "at 203.0.113.0")):
        row = case_of(event("redirect"), **nobody, invalid_fields="ip: not an IP address", properties={"ip": kept})
        cases.append(row._replace(sent=_with(row.sent, {"ip": ip})))
    return cases


def bots(kind: str, user_agent: str | None, **fields: Any) -> list[Case]:
    """Events of a bot, one of each type; payload apart, which is the stored line."""
    cases = []
    for event_type in ("page_view", "engagement", "ad_impression", "ad_click", "redirect"):
        sent = event(event_type, **fields)
        row = {"event_id": sent["event_id"], "event_type": event_type, "kind": "bot", "reason": kind}
        cases.append(Case(sent, "rejected", {**row, "user_agent": user_agent, "ip": "127.0.0.0", "payload": "{"}))
    return cases


def known_things() -> list[Case]:
    """A page view of an article and a campaign that the dimension topics know; its own author stays."""
    known = {"article_title": 'T\u00eftle\t"1"', "campaign_name": "Spring", "campaign_network": "net"}
    first = event("page_view", article_id="content-article", campaign_id="content-campaign", author_id="own")
    other = event("page_view", article_id="content-article", url="/?utm_campaign=content-campaign")
    return [
        *joined_pair(
            first, event("engagement", page_view_id=first["page_view_id"], dwell_ms=1), **known, section="of article"
        ),
        *joined_pair(
            other, event("engagement", page_view_id=other["page_view_id"]), **known, author_id="known",
            campaign_id="content-campaign", section="of article",
        ),
    ]  # fmt: skip


def all_requests() -> list[Request]:
    nothing_valid = [rejected(line, why, line.decode(errors="replace")) for line, why in NO_EVENTS]
    everything = [nasty_texts, longest_texts, numbers, nothings, sources]
    return [
        Request(from_a_browser(case for cases in everything for case in cases()), "application/json"),
        Request(from_a_server(case for cases in everything for case in cases()), key="demo-server", is_gzip=True),
        Request(from_a_browser(nasty_texts(), IPHONE), "text/plain;charset=UTF-8", in_query=True, user_agent=IPHONE),
        Request(from_a_browser(engagements(), IPAD), "application/json", is_gzip=True, user_agent=IPAD),
        Request([next(sources())], "application/json; charset=utf-8"),
        Request([*broken_events(in_array=False), *nothing_valid]),
        Request(broken_events(in_array=True), "application/json", is_gzip=True),
        Request(broken_from_servers(), key="demo-server", user_agent=GOOGLEBOT),
        Request(from_unknown_visitors(), key="demo-server", user_agent=GOOGLEBOT),
        Request([*costly_cases(), *mended_cases()], "application/json"),
        Request(bots("user_agent:Googlebot", GOOGLEBOT, visitor_id="tab\t\0"), user_agent=GOOGLEBOT),
        Request(bots("webdriver", CHROME, webdriver=True, url="x" * 4096), "application/json"),
        Request(bots("empty_user_agent", None), user_agent=None),
        Request(known_things()),
    ]


async def teach_dimensions(kafka: str) -> None:
    """One record on each of the two topics that anyone may feed."""
    article = {"title": 'T\u00eftle\t"1"', "author_id": "known", "section": "of article", "rank": 1}
    campaign = {"name": "Spring", "network": "net"}
    async with aiokafka.AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        await producer.send_and_wait("articles", json.dumps(article).encode(), b"content-article")
        await producer.send_and_wait("campaigns", json.dumps(campaign).encode(), b"content-campaign")


async def test_whatever_is_sent_comes_out_as_the_contract_says(stack: LiveStack) -> None:
    live = stack.stack
    await teach_dimensions(live.kafka)
    requests = all_requests()
    answers = [await post(live.collector_url, request) for request in requests]
    assert len({answer.batch_id for answer in answers}) == len(answers)
    waited = await stack.wait()
    assert waited.is_covered, waited
    rows, ledger = await rows_of(live.warehouse_url, [answer.batch_id for answer in answers])
    for request, answered in zip(requests, answers, strict=True):
        raw = raw_lines(live.bucket, answered.batch_id)
        own = [(flow, row) for flow, row in rows if row["batch_id"] == answered.batch_id]
        assert are_grouped(raw, int(live.environment["INSTREAM_PARTITIONS"]))
        compare(request.cases, answered, own, ledger[answered.batch_id], raw)
