"""Each rule of the event contract, one row each."""

import base64
import json

import pytest

from app.core.events.fields import EVENT_TYPES, FIELDS, STORED_FIELDS
from app.core.events.parse import MAX_LINE_BYTES
from tests.builders.events import AGENT, IP, NOW_MS, event, parse, reason, stored, text

LONG = 2**63
OF_PAGES = {"title", "language", "time_zone", "session_id", "screen_width", "viewport_width"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"event_id": None}, "event_id: required"),
        ({"event_id": ""}, "event_id: required"),
        ({"event_id": 5.5}, "event_id: not a string"),
        ({"event_id": True}, "event_id: not a string"),
        ({"event_id": "a" * 65}, "event_id: longer than 64 bytes"),
        ({"event_id": "a b"}, "event_id: characters other than A-Za-z0-9_-"),
        ({"event_id": "a\n"}, "event_id: characters other than A-Za-z0-9_-"),
        ({"event_id": "é"}, "event_id: characters other than A-Za-z0-9_-"),
        ({"event_type": None}, "event_type: required"),
        ({"event_type": ""}, "event_type: required"),
        ({"event_type": "click"}, f"event_type: none of {', '.join(EVENT_TYPES)}"),
        ({"event_type": ["page_view"]}, "event_type: not a string"),
        ({"event_type": True}, "event_type: not a string"),
        ({"page_view_id": None}, "page_view_id: required"),
        ({"page_view_id": {}}, "page_view_id: not a string"),
        ({"occurred_at": None}, "occurred_at: required"),
        ({"occurred_at": ""}, "occurred_at: not an integer"),
        ({"occurred_at": "1750000000000"}, "occurred_at: not an integer"),
        ({"occurred_at": True}, "occurred_at: not an integer"),
        ({"occurred_at": "2025-06-31T00:00:00Z"}, "occurred_at: not an integer"),
        ({"occurred_at": "2025-06-15T14:00+99:00"}, "occurred_at: not an integer"),
        ({"occurred_at": "1999-12-31T23:59:59Z"}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"occurred_at": 999_999_999}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"occurred_at": 5_000_000_000}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"occurred_at": -1.5}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"occurred_at": 946_684_799_999}, "occurred_at: not from 946684800000 to 4133980799999"),
        ({"occurred_at": 4_133_980_800_000}, "occurred_at: not from 946684800000 to 4133980799999"),
    ],
)
@pytest.mark.parametrize("event_type", ["page_view", "engagement", "ad_impression", "ad_click", "redirect"])
def test_a_broken_rule_of_a_required_field_makes_the_line_malformed(event_type, change, why):
    if "page_view_id" in change and event_type == "redirect":
        why = None
    assert reason(event(**{"event_type": event_type, **change})) == why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "line: not JSON"),
        (b"   ", "line: not JSON"),
        (b"{} {}", "line: not JSON"),
        (b'{"a":NaN}', "line: not JSON"),
        (b'{"a":-Infinity}', "line: not JSON"),
        (b'{"a":"\x01"}', "line: not JSON"),
        (b"\xef\xbb\xbf{}", "line: not JSON"),
        (b"null", "line: not an object"),
        (b"[]", "line: not an object"),
        (b'"x"', "line: not an object"),
        (b"1" * 5000, "line: not an object"),
        (b'{"a":"\xff"}', "line: not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "line: not UTF-8"),
        (b"[" * 129 + b"]" * 129, "line: nested deeper than 128"),
        (b"[" * 30_000 + b"]" * 30_000, "line: nested deeper than 128"),
        (b'{"event_id":"e1","x":' + b'{"a":' * 128 + b"1" + b"}" * 129, "line: nested deeper than 128"),
        (b"x" * (MAX_LINE_BYTES + 1), "line: longer than 65536 bytes"),
    ],
)
def test_a_line_that_is_no_event_is_kept_with_its_reason_and_text(line, why):
    parsed = parse(line)
    assert (parsed.valid, parsed.reason, parsed.key) == (False, why, line)
    kept = json.loads(parsed.data)
    assert kept["malformed"] == why
    assert kept["payload"] == line.decode(errors="replace")[:MAX_LINE_BYTES]
    assert ("payload_b64" in kept) == (why == "line: not UTF-8")
    assert (kept["received_at"], kept["ip"], kept["user_agent"]) == (NOW_MS, IP, AGENT)


def test_bytes_that_are_no_text_are_kept_as_they_came():
    kept = json.loads(parse(b'{"a":"\xff\x00"}').data)
    assert kept["payload"] == '{"a":"\ufffd\ufffd"}'
    assert base64.b64decode(kept["payload_b64"]) == b'{"a":"\xff\x00"}'


def test_a_payload_is_cut_at_a_character():
    line = b"x" + "é".encode() * 40_000
    kept = json.loads(parse(line).data)["payload"]
    assert kept == "x" + "é" * 32_767
    assert len(kept.encode()) == MAX_LINE_BYTES - 1


def test_the_first_fault_in_the_catalogues_order_is_named_whatever_the_lines_order():
    faults = {"occurred_at": "x", "page_view_id": "a b", "url": 1}
    sent = event(event_id="e1")
    assert reason({**faults, **sent, **faults}) == "page_view_id: characters other than A-Za-z0-9_-"
    assert reason({**sent, **faults}) == "page_view_id: characters other than A-Za-z0-9_-"


def test_a_malformed_event_keeps_the_id_and_type_that_are_valid():
    assert stored(event(occurred_at=1))["event_id"] == "e1"
    assert stored(event(occurred_at=1))["event_type"] == "page_view"
    assert stored(event(occurred_at=1, event_id=7))["event_id"] == "7"
    assert "event_id" not in stored(event(event_id="a b"))
    assert "event_type" not in stored(event(event_type="click"))


@pytest.mark.parametrize(
    ("event_type", "own"),
    [
        ("page_view", {"url", "referrer", "article_id", "author_id", "section", "campaign_id"} | OF_PAGES),
        ("engagement", {"dwell_ms", "visible_ms", "scroll_pct", "engaged_ms"}),
        ("ad_impression", {"article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros", "currency"}),
        ("ad_click", {"article_id", "campaign_id", "ad_slot", "creative_id", "revenue_micros", "currency"}),
        ("redirect", {"url", "referrer", "article_id", "campaign_id", "cost_micros", "currency"}),
    ],
)
def test_a_field_without_a_place_in_its_type_goes_into_properties(event_type, own):
    everything = {
        "visitor_id": "v", "url": "u", "referrer": "r", "article_id": "a", "author_id": "au", "section": "s",
        "campaign_id": "c", "dwell_ms": 1, "visible_ms": 0, "scroll_pct": 100, "ad_slot": 3, "creative_id": "cr",
        "revenue_micros": -5, "cost_micros": 0, "webdriver": False,
        "title": "t", "language": "de", "time_zone": "UTC", "session_id": "se", "screen_width": 9, "viewport_width": 0,
        "engaged_ms": 1, "currency": "eur",
    }  # fmt: skip
    assert {*everything, *event(), "properties"} == set(FIELDS)
    kept = stored(event(event_type, **everything))
    common = {"visitor_id", "webdriver"}
    assert {name: kept.get(name) for name in own | common} == {name: everything[name] for name in own | common}
    rest = {name: value for name, value in everything.items() if name not in own | {"visitor_id"}}
    assert json.loads(kept["properties"]) == rest
    assert rest.keys() & kept.keys() == {"webdriver"}  # no flow has a column for it, but the pipeline reads it
    assert kept.keys() <= STORED_FIELDS.keys()


def test_page_view_id_is_optional_on_a_redirect_and_decides_the_partition_elsewhere():
    assert parse(text(event("redirect", page_view_id=None))).key == b"e1"
    assert parse(text(event("redirect"))).key == b"p1"
    assert parse(text(event("engagement"))).key == b"p1"


def test_own_properties_win_over_folded_fields():
    kept = stored(event(properties={"x": 1, "dwell_ms": "mine"}, x=2, dwell_ms=3, y=4))
    assert json.loads(kept["properties"]) == {"x": 1, "dwell_ms": "mine", "y": 4}


def test_null_and_empty_say_nothing():
    line = text(
        {**event(), "url": None, "referrer": "", "dwell_ms": None, "properties": {}, "webdriver": None, "section": ""}
    )
    assert set(json.loads(parse(line).data)) == {*event(), "received_at", "ip", "user_agent", "key_kind"}


def test_an_unknown_field_keeps_its_null_and_its_empty_string():
    line = text({**event(), "a": None, "b": ""})
    assert json.loads(json.loads(parse(line).data)["properties"]) == {"a": None, "b": ""}


def test_what_a_client_says_of_the_stored_form_is_an_unknown_field():
    forged = {"received_at": 1, "malformed": "no", "payload": "x", "payload_b64": "eA==", "batch_id": "b"}
    kept = stored(event(**forged))
    assert kept["received_at"] == NOW_MS
    assert "malformed" not in kept
    assert json.loads(kept["properties"]) == forged


def test_nul_and_lone_surrogates_become_replacement_characters_keys_included():
    line = text(event(url="a\x00b\ud800", properties={"k\x00": ["\udfff", {"\ud800": "😀"}]}))
    kept = json.loads(parse(line).data)
    assert kept["url"] == "a\ufffdb\ufffd"
    assert json.loads(kept["properties"]) == {"k\ufffd": ["\ufffd", {"\ufffd": "😀"}]}


def test_lengths_count_after_replacement():
    assert "invalid_fields" not in stored(event(visitor_id="\x00" * 21))
    assert stored(event(visitor_id="\x00" * 22))["invalid_fields"] == "visitor_id: longer than 64 bytes"


def test_a_browser_keys_ip_and_agent_are_dropped_whatever_they_are():
    kept = stored(event(ip=5, user_agent={"a": 1}))
    assert (kept["ip"], kept["user_agent"]) == (IP, AGENT)
    assert "properties" not in kept


def test_numbers_inside_properties_survive():
    digits = "9" * 6000
    line = text(event(properties={"n": 0})).replace(
        b'"n": 0', f'"n": [123456789012345678901, 1e400, -0.5, 1e22, {digits}]'.encode()
    )
    kept = json.loads(parse(line).data)["properties"]
    assert json.loads(kept, parse_int=str)["n"] == ["123456789012345678901", float("inf"), -0.5, 1e22, digits]
    line = text(event(properties={"n": 2**64, "f": 0.1}))
    assert json.loads(json.loads(parse(line).data)["properties"]) == {"n": 2**64, "f": 0.1}
