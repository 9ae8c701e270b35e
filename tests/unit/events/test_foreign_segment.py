"""What each kind of Segment's events becomes."""

import json
from typing import Any

import pytest

from app.core.events.fields import KeyKind
from app.core.events.foreign import segment
from app.core.events.foreign.mapped import Arrival, Mapped, named
from app.core.events.parse import parse_line
from app.errors import RequestRejected
from tests.builders.foreign import AT_MS
from tests.builders.foreign import segment as event

ARRIVAL = Arrival(AT_MS + 1000, "made")
ID = "ajs-next-1700000000000-9c1b6f2e"
COMMON = {"event_id": ID, "occurred_at": AT_MS, "visitor_id": "visitor-1"}
VIEW = {"page_view_id": "view-1"}


def stored(sent: Any, arrival: Arrival = ARRIVAL, kind: KeyKind = "browser") -> dict[str, Any]:
    """The stored line of an event, as the collector makes it."""
    found = segment.map_event(json.dumps(sent).encode(), 0, arrival)
    line = parse_line(found.line, kind, ARRIVAL.received_at_ms, None, None)
    if found.refusal is not None:
        line = named(line, found.refusal)
    fields = json.loads(line.data)
    if "properties" in fields:
        fields["properties"] = json.loads(fields["properties"])
    return fields


def page(**properties: Any) -> dict[str, Any]:
    return event("page", properties=properties)


def track(name: str, **properties: Any) -> dict[str, Any]:
    return event("track", event=name, properties={**VIEW, **properties})


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            page(),
            {
                "event_type": "page_view", "page_view_id": ID, "url": "https://news.example/a", "title": "A",
                "referrer": "https://search.example/", "language": "de-DE", "time_zone": "Europe/Berlin",
            },
        ),
        (page(url="https://other.example/", title="Own"), {"url": "https://other.example/", "title": "Own"}),
        (page(category="sport", articleId="a1", author_id="w"), {"section": "sport", "article_id": "a1", "author_id": "w"}),
        (page(pageViewId="view-1"), VIEW),
        (event("page", context={"page_view_id": "view-1", "campaign": {"name": "spring"}, "screen": {"width": 1920}}),
         {**VIEW, "campaign_id": "spring", "screen_width": 1920}),
        (track("Ad Viewed", adSlot=2, creative_id="c", revenue=0.0055, currency="EUR"),
         {"event_type": "ad_impression", **VIEW, "ad_slot": 2, "creative_id": "c", "revenue_micros": 5500,
          "currency": "EUR"}),
        (track("ad_impression", revenue_micros=7), {"event_type": "ad_impression", "revenue_micros": 7}),
        (track("Ad Clicked"), {"event_type": "ad_click", **VIEW}),
        (track("adClick"), {"event_type": "ad_click", **VIEW}),
        (track("Page Engagement", dwellMs=9000, engaged_ms=8000, scrollPct=71.6),
         {"event_type": "engagement", **VIEW, "dwell_ms": 9000, "engaged_ms": 8000, "scroll_pct": 72}),
        (event("track", event="Paid Redirect", properties={"cost_micros": 5, "url": "https://news.example/"}),
         {"event_type": "redirect", "cost_micros": 5, "url": "https://news.example/"}),
    ],
)  # fmt: skip
def test_a_known_kind_becomes_an_event_of_ours(sent, expected):
    found = stored(sent)
    assert {**COMMON, **expected}.items() <= found.items()
    assert "malformed" not in found
    assert "invalid_fields" not in found


@pytest.mark.parametrize(
    ("sent", "kind", "name"),
    [
        (track("Order Completed"), "track", "track 'Order Completed'"),
        (event("track", event=7), "track", "track 7"),
        (event("identify", traits={"plan": "gold"}), "identify", "identify"),
        (event("group", groupId="g"), "group", "group"),
        (event("alias", previousId="p"), "alias", "alias"),
        (event("screen", name="Home"), "screen", "screen"),
        (event("import"), "unknown", "type 'import'"),
        ({}, "unknown", "type None"),
        ({"type": []}, "unknown", "type []"),
    ],
)
def test_any_other_kind_is_refused_by_name_and_kept_whole(sent, kind, name):
    assert segment.map_event(json.dumps(sent).encode(), 0, ARRIVAL).kind == kind
    assert kind in segment.KINDS
    line = stored(sent)
    assert line["malformed"] == f"event_type: segment {name} is not taken"
    kept = json.loads(line["payload"])["properties"].get("segment", {})
    assert kept == {name: value for name, value in sent.items() if name not in {"writeKey", "sentAt", "_metadata"}}


def test_a_long_name_of_a_track_is_cut():
    reason = stored(track("é" * 500))["malformed"]
    assert reason.startswith("event_type: segment track 'ééé")
    assert len(reason.encode()) <= 200


def test_what_has_no_place_is_kept_in_the_properties():
    found = stored(event("page", userId="u-7", name="Front", properties={"path": "/a", "plan": "gold", "revenue": "x"}))
    kept = found["properties"]
    assert (kept["path"], kept["plan"], kept["revenue"]) == ("/a", "gold", "x")
    assert kept["segment"]["userId"] == "u-7"
    assert kept["segment"]["name"] == "Front"
    assert kept["segment"]["context"]["library"]["name"] == "analytics.js"
    assert kept["segment"]["context"]["page"] == {"path": "/a", "search": ""}
    assert not {"writeKey", "sentAt", "_metadata"} & kept["segment"].keys()


def test_only_a_server_names_the_visitor_s_address_and_browser():
    context = {"ip": "203.0.113.9", "userAgent": "UA"}
    from_server = stored(event("page", context=context), kind="server")
    assert (from_server["ip"], from_server["user_agent"]) == ("203.0.113.9", "UA")
    from_browser = stored(event("page", context=context))
    assert not {"ip", "user_agent"} & from_browser.keys()
    assert "203.0.113.9" not in json.dumps(from_browser)


@pytest.mark.parametrize(
    ("time", "at_ms"),
    [
        ({"timestamp": "2023-11-14T22:13:20.5Z"}, AT_MS + 500),
        ({"timestamp": None, "originalTimestamp": "2023-11-14T22:13:20Z"}, AT_MS),
        ({"timestamp": None}, ARRIVAL.received_at_ms),
        ({"timestamp": AT_MS}, AT_MS),
    ],
)
def test_the_time_is_the_client_s(time, at_ms):
    assert stored(event("page", **time))["occurred_at"] == at_ms


def test_a_time_that_nobody_can_read_makes_the_line_malformed():
    assert stored(event("page", timestamp="yesterday"))["malformed"] == "occurred_at: not an integer"


def test_a_track_without_its_page_view_is_malformed():
    assert stored(event("track", event="Ad Viewed"))["malformed"] == "page_view_id: required"


def test_a_retry_is_the_same_line():
    for sent in (page(), track("Ad Viewed"), event("identify"), event("page", messageId=None)):
        again = {**sent, "sentAt": "2023-11-14T23:00:00Z", "_metadata": {"retryCount": 2}}
        one = segment.map_event(json.dumps(sent).encode(), 0, ARRIVAL)
        other = segment.map_event(json.dumps(again).encode(), 0, Arrival(AT_MS + 9000, "another"))
        assert one.line == other.line


def test_events_without_an_id_or_a_time_are_each_their_own():
    sent = json.dumps(event("page", messageId=None, timestamp=None)).encode()
    assert {json.loads(segment.map_event(sent, n, ARRIVAL).line)["event_id"] for n in range(2)} == {"made-0", "made-1"}


def test_a_path_names_the_type_of_an_event_that_does_not():
    text = json.dumps(event("page", type=None)).encode()
    assert json.loads(segment.map_event(text, 0, ARRIVAL, "page").line)["event_type"] == "page_view"
    assert segment.map_event(json.dumps(event("alias")).encode(), 0, ARRIVAL, "page").kind == "alias"


def test_what_is_no_event_stays_as_it_is():
    assert segment.map_event(b"7", 0, ARRIVAL) == Mapped(b"7", "unreadable")


def test_bodies_are_opened():
    assert segment.open_batch(b'{"batch": [1, {"a":"\\ud800"}], "writeKey": "k"}') == (b'[1, {"a":"\\ud800"}]', "k")
    assert segment.open_batch(b'{"batch":[]}') == (b"[]", "")
    assert segment.open_single(b'{"type":"page","writeKey":"k"}') == (b'{"type":"page","writeKey":"k"}', "k")


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"batch":', b'{"writeKey":7,"batch":[]}'])
@pytest.mark.parametrize("open_body", [segment.open_batch, segment.open_single])
def test_a_body_of_another_shape_is_refused_for_good(body, open_body):
    with pytest.raises(RequestRejected) as refused:
        open_body(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")
