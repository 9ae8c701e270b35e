"""What each kind of Snowplow's events becomes."""

import base64
import json
from typing import Any

import pytest

from app.core.events.foreign import snowplow
from app.core.events.foreign.mapped import Arrival, Mapped, named
from app.core.events.parse import MAX_LINE_BYTES, parse_line
from app.errors import RequestRejected
from tests.builders.foreign import (
    AT_MS,
    PAGE_VIEW,
    SNOWPLOW,
    WEB_PAGE,
    base64url,
    contexts,
    payload_data,
    self_describing,
)
from tests.builders.foreign import snowplow as event

ARRIVAL = Arrival(AT_MS + 1000, "made")
AD = {"impressionId": "i1", "costModel": "cpm", "cost": 5.5, "bannerId": "b1", "zoneId": "2", "campaignId": "c1"}
OWN = "iglu:instream/event/jsonschema/1-0-0"
COMMON = {"event_id": "9c1b6f2e-0000-4000-8000-000000000001", "page_view_id": PAGE_VIEW, "occurred_at": AT_MS}


def mapped(sent: Any, arrival: Arrival = ARRIVAL) -> Mapped:
    return snowplow.map_event(json.dumps(sent).encode(), 0, arrival)


def stored(sent: Any, arrival: Arrival = ARRIVAL) -> dict[str, Any]:
    """The stored line of an event, as the collector makes it."""
    found = mapped(sent, arrival)
    line = parse_line(found.line, "browser", ARRIVAL.received_at_ms, None, None)
    if found.refusal is not None:
        line = named(line, found.refusal)
        assert not line.valid
    fields = json.loads(line.data)
    if "properties" in fields:
        fields["properties"] = json.loads(fields["properties"])
    return fields


def ad(kind: str, **changes: Any) -> dict[str, Any]:
    return event("ue", ue_px=base64url(self_describing(kind, {**AD, **changes})))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            event("pv"),
            {
                "event_type": "page_view", "visitor_id": "visitor-1", "url": "https://news.example/a", "title": "A",
                "referrer": "https://search.example/", "language": "de-DE", "time_zone": "Europe/Berlin",
                "session_id": "session-1", "screen_width": 1920, "viewport_width": 1200,
            },
        ),
        (event("pv", cx=None, co=json.dumps(contexts(WEB_PAGE))), {"event_type": "page_view", "page_view_id": PAGE_VIEW}),
        (event("pv", cx=None), {"event_type": "page_view", "page_view_id": COMMON["event_id"]}),
        (event("pv", cx="not base64"), {"event_type": "page_view", "page_view_id": COMMON["event_id"]}),
        (event("pv", ttm=str(AT_MS - 7)), {"occurred_at": AT_MS - 7}),
        (event("pv", dtm=None), {"occurred_at": ARRIVAL.received_at_ms}),
        (event("pv", {"schema": OWN, "data": {"article_id": "a1", "section": "s"}}), {"article_id": "a1", "section": "s"}),
        (event("pp", pp_miy="0", pp_may="1200"), {"event_type": "engagement", "visitor_id": "visitor-1", "scroll_pct": 50}),
        (event("pp"), {"event_type": "engagement", "scroll_pct": 20}),
        (event("pp", pp_may="9000"), {"scroll_pct": 100}),
        (
            event("pp", {"schema": OWN, "data": {"engaged_ms": 20_000, "dwell_ms": 30_100.4, "scroll_pct": 80}}),
            {"event_type": "engagement", "engaged_ms": 20_000, "dwell_ms": 30_100, "scroll_pct": 80},
        ),
        (
            ad("ad_impression"),
            {
                "event_type": "ad_impression", "creative_id": "b1", "campaign_id": "c1", "ad_slot": 2,
                "revenue_micros": 5500,
            },
        ),
        (ad("ad_click", costModel="cpc", cost=0.25), {"event_type": "ad_click", "revenue_micros": 250_000}),
        (
            event("ue", ue_pr=json.dumps(self_describing("ad_click", AD))),
            {"event_type": "ad_click", "creative_id": "b1"},
        ),
    ],
)  # fmt: skip
def test_a_known_kind_becomes_an_event_of_ours(sent, expected):
    found = stored(sent)
    assert "malformed" not in found
    assert expected.items() <= found.items()
    if "ttm" not in sent and "dtm" in sent:
        assert {**COMMON, **expected}.items() <= found.items()


@pytest.mark.parametrize(
    ("sent", "kind", "name"),
    [
        (event("ue", ue_px=base64url(self_describing("link_click", {"targetUrl": "x"}))), "link_click", "link_click"),
        (ad("ad_conversion"), "ad_conversion", "ad_conversion"),
        (event("se", se_ca="c", se_ac="a"), "struct", "struct"),
        (event("tr", tr_id="t"), "transaction", "transaction"),
        (event("ti", ti_id="t"), "transaction_item", "transaction_item"),
        (event("ue", ue_px=base64url(self_describing("iglu:com.acme/foo/jsonschema/2-0-0", {}))), "self_describing",
         "event com.acme/foo/jsonschema/2-0-0"),
        (event("ue", ue_px="@"), "self_describing", "event without a schema"),
        (event("ue"), "self_describing", "event without a schema"),
        (event("xx"), "unknown", "event e='xx'"),
        ({}, "unknown", "event e=None"),
    ],
)  # fmt: skip
def test_any_other_kind_is_refused_by_name_and_kept_whole(sent, kind, name):
    found = mapped(sent)
    assert found.kind == kind
    assert kind in snowplow.KINDS
    line = stored(sent)
    assert line["malformed"] == f"event_type: snowplow {name} is not taken"
    payload = json.loads(line["payload"])
    assert payload["event_type"] == f"snowplow:{kind}"
    kept = payload["properties"]["snowplow"]
    assert {k: v for k, v in sent.items() if k in {"e", "se_ca", "tr_id", "url", "aid"}}.items() <= kept.items()
    if sent:
        assert kept["contexts"] == [WEB_PAGE]
        assert payload["visitor_id"] == "visitor-1", "the erasure of a visitor finds the line"


@pytest.mark.parametrize(
    ("model", "cost", "kind", "micros"),
    [
        ("cpm", 2, "ad_impression", 2000), ("cpc", 2, "ad_impression", None), ("cpa", 2, "ad_impression", None),
        ("cpc", 2, "ad_click", 2_000_000), ("cpm", 2, "ad_click", None), ("cpm", "2", "ad_impression", None),
        ("cpm", True, "ad_impression", None), ("cpm", 1e300, "ad_impression", None), (None, 2, "ad_impression", None),
    ],
)  # fmt: skip
def test_a_cost_is_revenue_only_where_the_model_says_what_is_paid_for(model, cost, kind, micros):
    assert stored(ad(kind, costModel=model, cost=cost)).get("revenue_micros") == micros


@pytest.mark.parametrize("zone", ["4", "top", "2.0", True, 1.0, None])
def test_a_zone_that_is_no_slot_stays_in_the_properties(zone):
    found = stored(ad("ad_impression", zoneId=zone))
    assert "ad_slot" not in found
    assert found["properties"]["snowplow"]["ad"].get("zoneId") == zone


def test_what_has_no_place_is_kept_in_the_properties():
    user = {"schema": "iglu:com.acme/user/jsonschema/1-0-0", "data": {"plan": "gold"}}
    own = {"schema": OWN, "data": {"article_id": "a1", "plan": "gold", "event_id": "mine"}}
    found = stored(event("pv", user, own, uid="u-7"))
    assert found["event_id"] == COMMON["event_id"], "no context changes an id"
    kept = found["properties"]["snowplow"]
    assert kept["uid"] == "u-7"
    assert kept["tna"] == "sp"
    assert kept["contexts"] == [user, {"schema": OWN, "data": {"plan": "gold", "event_id": "mine"}}]
    assert not {"cx", "stm", "eid", "duid", "page"} & kept.keys()


def test_a_retry_is_the_same_line():
    for sent in (event("pv"), event("pp", eid=None), event("se")):
        again = {**sent, "stm": str(AT_MS + 9000)}
        late = Arrival(AT_MS + 9001, "another")
        assert mapped(sent).line == mapped(again, late).line


def test_events_without_an_id_or_a_time_are_each_their_own():
    sent = json.dumps(event("pv", eid=None, dtm=None)).encode()
    ids = {json.loads(snowplow.map_event(sent, n, ARRIVAL).line)["event_id"] for n in range(2)}
    assert ids == {"made-0", "made-1"}


def test_pings_are_engagements_with_ids_of_their_own():
    pings = [stored(event("pp", eid=f"ping-{n}", dtm=str(AT_MS + n * 10_000))) for n in range(3)]
    assert {ping["event_id"] for ping in pings} == {"ping-0", "ping-1", "ping-2"}
    assert {ping["page_view_id"] for ping in pings} == {PAGE_VIEW}
    assert all("engaged_ms" not in ping for ping in pings), "a ping does not know how many came before it"


def test_an_id_that_we_cannot_store_has_a_digest_in_its_place():
    one, other = stored(event("pv", eid="a b")), stored(event("pv", eid="a c"))
    assert one["event_id"].startswith("x-")
    assert one["event_id"] != other["event_id"]
    assert stored(event("pv", eid="a b")) == one


def test_the_cookie_names_the_visitor_of_an_event_that_names_none():
    arrival = ARRIVAL._replace(visitor_id="from-cookie")
    assert stored(event("pv"), arrival)["visitor_id"] == "visitor-1"
    assert stored(event("pv", duid=None), arrival)["visitor_id"] == "from-cookie"


def test_a_ping_without_its_page_is_malformed():
    assert stored(event("pp", cx=None))["malformed"] == "page_view_id: required"


@pytest.mark.parametrize("text", [b"7", b"[]", b"x", b'{"e":"pv","page":"' + b"a" * MAX_LINE_BYTES + b'"}'])
def test_what_is_no_event_stays_as_it_is(text):
    assert snowplow.map_event(text, 0, ARRIVAL) == Mapped(text, "unreadable")


def test_hidden_values_are_counted():
    hidden = base64url(contexts(*[1] * 500))
    assert mapped(event("pv", cx=hidden)).hidden_values >= 500
    broken = base64.b64encode(b"[1," * 500).decode()
    assert mapped(event("pv", cx=broken)).hidden_values >= 400


def test_the_events_of_a_body_are_its_own_text():
    sent = payload_data({"e": "pv"}, 7)
    assert json.loads(snowplow.open_body(sent).events) == [{"e": "pv"}, 7]
    lone = b'{"schema":"%s/payload_data/jsonschema/1-0-4","data":[{"page":"\\ud800"}]}' % SNOWPLOW.encode()
    assert snowplow.open_body(lone).events == b'[{"page":"\\ud800"}]'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"), (b"[]", "invalid_json"), (b'{"schema":1,"data":[]}', "invalid_json"),
        (b'{"schema":"s"}', "invalid_json"), (b'{"schema":"iglu:x","data":[]}', "not_payload_data"),
        (b'{"schema":"\xff","data":[]}', "invalid_json"), (b'{"a":' * 100_000, "invalid_json"),
    ],
)  # fmt: skip
def test_a_body_of_another_shape_is_refused_for_good(body, code):
    with pytest.raises(RequestRejected) as refused:
        snowplow.open_body(body)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_a_query_is_a_body():
    body = snowplow.query_body({"e": "pv", "eid": "e1"})
    assert json.loads(snowplow.open_body(body).events) == [{"e": "pv", "eid": "e1"}]
