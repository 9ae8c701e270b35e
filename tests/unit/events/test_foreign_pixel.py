"""A pixel's query as a page view."""

import json
from typing import Any

import pytest

from app.core.events.foreign import pixel
from app.core.events.foreign.mapped import Arrival
from app.core.events.parse import parse_line
from tests.builders.foreign import AT_MS

ARRIVAL = Arrival(AT_MS, "made", "from-cookie")


def stored(query: dict[str, str], referer: str | None = None) -> dict[str, Any]:
    found = pixel.map_event(pixel.query_body(query, referer), 0, ARRIVAL)
    fields = json.loads(parse_line(found.line, "browser", AT_MS, None, None).data)
    if "properties" in fields:
        fields["properties"] = json.loads(fields["properties"])
    return fields


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"event_id": "made-0", "page_view_id": "made-0", "occurred_at": AT_MS, "visitor_id": "from-cookie"}),
        ({"page_view_id": "v"}, {"event_id": "v", "page_view_id": "v"}),
        ({"event_id": "e"}, {"event_id": "e", "page_view_id": "e"}),
        ({"event_id": "e", "page_view_id": "v"}, {"event_id": "e", "page_view_id": "v"}),
        ({"visitor_id": "amp-1"}, {"visitor_id": "amp-1"}),
        ({"occurred_at": str(AT_MS - 5)}, {"occurred_at": AT_MS - 5}),
        ({"url": "https://a.example/", "screen_width": "1920"}, {"url": "https://a.example/", "screen_width": 1920}),
        ({"event_type": "ad_click"}, {"event_type": "page_view"}),
        ({"article_id": "a", "section": "s", "plan": "gold"}, {"article_id": "a", "section": "s"}),
    ],
)
def test_parameters_are_fields(query, expected):
    found = stored(query)
    assert {"event_type": "page_view", **expected}.items() <= found.items()
    assert found["properties"]["pixel"] is True
    assert found["properties"].get("plan") == query.get("plan")


def test_the_page_s_address_is_the_referer_if_no_parameter_names_it():
    assert stored({}, "https://a.example/")["url"] == "https://a.example/"
    assert stored({"url": "https://b.example/"}, "https://a.example/")["url"] == "https://b.example/"


def test_a_parameter_that_breaks_a_rule_costs_only_itself():
    found = stored({"screen_width": "wide", "webdriver": "true"})
    assert found["invalid_fields"] == "screen_width: not an integer"
    assert found["webdriver"] is True


def test_an_id_that_we_cannot_store_has_a_digest_in_its_place():
    one, again, other = (stored({"page_view_id": text})["event_id"] for text in ("a.b", "a.b", "a.c"))
    assert one == again != other


def test_what_no_line_can_hold_is_replaced():
    assert stored({"title": "a\0b\udc80"})["title"] == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
