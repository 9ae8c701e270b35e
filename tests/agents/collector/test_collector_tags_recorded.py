"""What the unmodified trackers sent from Chromium, once: each of their events is mapped or refused by name.

`python -m tests.rig.tags --record FILE` records the requests; it needs npm and a browser, and this test needs neither.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from app.clock import SystemClock
from tests.worlds.collector import CollectorWorld

RECORDED = Path(__file__).parents[2] / "data" / "tags" / "requests.jsonl"
SENT = [json.loads(line) for line in RECORDED.read_text().splitlines()]
RECORDED_AT_MS = 1_795_856_000_000
FATES = {
    "page_view": 5,
    "engagement": 14,
    "ad_impression": 5,
    "ad_click": 5,
    "event_type: snowplow struct is not taken": 4,
    "event_type: snowplow ad_conversion is not taken": 3,
    "event_type: snowplow link_click is not taken": 1,
    "event_type: snowplow event com.example/poll/jsonschema/1-0-0 is not taken": 1,
    "event_type: segment track 'Order Completed' is not taken": 2,
    "event_type: segment identify is not taken": 2,
    "event_type: segment group is not taken": 2,
    "event_type: segment alias is not taken": 2,
    "event_type: segment screen is not taken": 2,
}


class ClockOfTheRecord(SystemClock):
    """The wall clock of the day of the record: an event that is ahead of the clock would be mended."""

    def now_ms(self) -> int:
        return RECORDED_AT_MS


async def play() -> list[dict[str, Any]]:
    """The lines that a collector stores of the recorded requests; copies of one event are one line."""
    async with CollectorWorld(ClockOfTheRecord()).running() as world:
        for request in SENT:
            options: Any = {"data": request["body"] or None, "skip_auto_headers": ["Content-Type"]}
            url = world.url + request["path"]
            async with world.session.request(request["method"], url, headers=request["headers"], **options) as answer:
                assert answer.status == 200
                await answer.read()
        lines = await world.stored_lines()
    by_id: dict[str, dict[str, Any]] = {}
    for line in lines:
        line.pop("received_at")
        assert by_id.setdefault(line["event_id"], line) == line, "a retry is the same event"
    assert len(by_id) == len(lines) - 1, "one answer was lost, so one event was sent again"
    return list(by_id.values())


async def test_every_event_is_mapped_or_refused_by_name():
    lines = await play()
    assert Counter(line.get("malformed", line.get("event_type")) for line in lines) == FATES
    assert not [line["invalid_fields"] for line in lines if "invalid_fields" in line]


async def test_the_events_of_a_page_have_its_page_view_id_and_its_fields():
    mapped = [line for line in await play() if "malformed" not in line]
    views = {line["page_view_id"]: line for line in mapped if line["event_type"] == "page_view"}
    assert len(views) == 5
    kinds = {view: {line["event_type"] for line in mapped if line["page_view_id"] == view} for view in views}
    assert list(kinds.values()) == [{"page_view", "engagement", "ad_impression", "ad_click"}] * 5
    assert {line["page_view_id"] for line in mapped} == views.keys()
    for view in views.values():
        assert view["title"] == "An article"
        assert view["article_id"] == "a-7"
        assert view["url"].startswith("http://localhost:")
        assert view["visitor_id"]
        assert view["language"] == "en-US"
    assert {line["ad_slot"] for line in mapped if line["event_type"] == "ad_impression"} == {1, 2, 3}
    assert {line["revenue_micros"] for line in mapped if line["event_type"] == "ad_impression"} == {5500, 2000}


async def test_pings_carry_the_sums_that_their_page_made():
    pings: dict[str, list[tuple[int, int]]] = {}
    for line in await play():
        if line.get("event_type") == "engagement" and "snowplow" in line["properties"]:
            pings.setdefault(line["page_view_id"], []).append((line["occurred_at"], line["engaged_ms"]))
    assert sorted(map(len, pings.values())) == [4, 4, 4]
    for of_view in pings.values():
        assert [engaged_ms for _, engaged_ms in sorted(of_view)] == [1000 * n for n in range(1, len(of_view) + 1)]
