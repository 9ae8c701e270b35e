"""The paths of other tags: the bounds and answers of `POST /v1/events` hold there too."""

import base64
import gzip
import json
import logging

import pytest
from prometheus_client import REGISTRY

from app.collector.tags import GETS, POSTS
from tests.builders.foreign import PAGE_VIEW, base64url, payload_data, segment, self_describing, snowplow
from tests.worlds.collector import CollectorWorld

TP2 = "/com.snowplowanalytics.snowplow/tp2"
JSON = {"Content-Type": "application/json; charset=UTF-8"}
IN_THE_PAGE = {**JSON, "Origin": "https://news.example"}


@pytest.fixture
async def world():
    async with CollectorWorld(max_body_bytes=20_000, max_decompressed_bytes=60_000, max_lines=50).running() as running:
        yield running


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode()}


def told(tag: str, kind: str, verdict: str) -> float:
    labels = {"tag": tag, "kind": kind, "verdict": verdict}
    return REGISTRY.get_sample_value("instream_collector_tag_events_total", labels) or 0


async def test_what_is_taken_is_stored_and_what_is_not_is_refused_by_name(world):
    before = told("snowplow", "link_click", "refused"), told("snowplow", "page_view", "mapped")
    click = snowplow("ue", eid="e2", ue_px=base64url(self_describing("link_click", {"targetUrl": "https://a.example"})))
    ping = snowplow("pp", eid="e3", cx=None)
    answer = await world.post(payload_data(snowplow("pv", eid="e1"), click, ping), IN_THE_PAGE, TP2)
    assert answer.status == 200
    batch_id = answer.body.pop("batch_id")
    reasons = [
        {"line": 1, "reason": "event_type: snowplow link_click is not taken"},
        {"line": 2, "reason": "page_view_id: required"},
    ]
    assert answer.body == {"accepted": 3, "malformed": 2, "reasons": reasons}
    assert answer.headers["Access-Control-Allow-Origin"] == "https://news.example"
    item = await world.registry.get(batch_id)
    assert item is not None
    assert item.line_count == 3
    lines = {line.get("event_id"): line for line in await world.stored_lines()}
    assert lines["e1"]["event_type"] == "page_view"
    assert lines["e1"]["page_view_id"] == PAGE_VIEW
    assert lines["e1"]["ip"] == "127.0.0.1"
    assert lines["e2"]["malformed"] == reasons[0]["reason"]
    assert "https://a.example" in lines["e2"]["payload"]
    after = told("snowplow", "link_click", "refused"), told("snowplow", "page_view", "mapped")
    assert after == (before[0] + 1, before[1] + 1)
    assert told("snowplow", "page_ping", "malformed") >= 1


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (TP2, {"X-Write-Key": "demo"}, payload_data(snowplow("pv", aid=None))),
        (TP2 + "?key=demo", {}, payload_data(snowplow("pv", aid="site"))),
        (TP2, {}, payload_data(snowplow("pv", aid="demo"))),
        (TP2, {}, gzip.compress(payload_data(snowplow("pv", aid="demo")))),
        ("/v1/page", basic("demo"), json.dumps(segment("page", writeKey=None)).encode()),
        ("/v1/p", {}, json.dumps(segment("page")).encode()),
        ("/v1/batch", {}, json.dumps({"writeKey": "demo", "batch": [segment("page", writeKey=None)]}).encode()),
        ("/v1/b", {}, json.dumps({"batch": [segment("page")]}).encode()),
        ("/v1/batch", basic("back"), json.dumps({"batch": [segment("page")]}).encode()),
    ],
)
async def test_the_key_is_in_the_head_or_in_the_body(world, path, headers, body):
    answer = await world.post(body, headers, path)
    assert (answer.status, answer.body["accepted"], answer.body["malformed"]) == (200, 1, 0)


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (TP2, {}, payload_data(snowplow("pv", aid=None))),
        (TP2, {}, payload_data(snowplow("pv", aid="other"))),
        (TP2, {}, payload_data(snowplow("pv", aid="back"))),
        (TP2 + "?key=other", {}, payload_data(snowplow("pv", aid="demo"))),
        (TP2, basic("other"), payload_data(snowplow("pv", aid="demo"))),
        ("/v1/page", {}, json.dumps(segment("page", writeKey="other")).encode()),
        ("/v1/batch", {}, json.dumps({"writeKey": "back", "batch": [segment("page")]}).encode()),
    ],
)
async def test_no_key_of_ours_is_401_and_keeps_nothing(world, path, headers, body):
    answer = await world.post(body, headers, path)
    assert (answer.status, answer.body["error"]) == (401, "unauthorized")
    assert await world.items() == []
    assert world.buffered_bytes == 0


FOR_EVER = {400, 401, 403, 410, 422}
"""Statuses after which a Snowplow tracker gives up; after any other but 2xx it sends the same events again, for ever."""


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({}, b"not JSON", 400, "invalid_json"),
        ({}, b'{"schema":"iglu:com.acme/x/jsonschema/1-0-0","data":[]}', 400, "not_payload_data"),
        ({}, payload_data(), 400, "empty"),
        ({}, b"x" * 20_001, 422, "too_large"),
        ({}, gzip.compress(payload_data(snowplow("pv", page="a" * 60_000))), 422, "too_large"),
        ({"Content-Encoding": "br"}, payload_data(snowplow("pv")), 422, "unsupported_encoding"),
        ({}, payload_data(*[snowplow("pv", cx=None, url=None, refr=None)] * 51), 422, "too_many_lines"),
        ({}, gzip.compress(payload_data(*[[[]] * 120] * 50)), 422, "too_complex"),
    ],
)
async def test_what_is_never_taken_is_refused_so_that_a_tracker_gives_up(world, headers, body, status, code):
    answer = await world.post(body, {**JSON, "X-Write-Key": "demo", **headers}, TP2)
    assert (answer.status, answer.body["error"]) == (status, code)
    assert status in FOR_EVER
    assert await world.items() == []
    assert world.buffered_bytes == 0


async def test_values_inside_texts_count_as_work():
    async with CollectorWorld().running() as world:
        nested = base64.b64encode(b"[1," * 10_000).decode()
        body = gzip.compress(payload_data(*[snowplow("pv", cx=nested)] * 10))
        answer = await world.post(body, {"X-Write-Key": "demo"}, TP2)
        assert (answer.status, answer.body["error"]) == (422, "too_complex")
        assert await world.items() == []


async def test_the_events_of_a_body_count_as_memory():
    body = payload_data(*[snowplow("pv", eid=f"e{n}") for n in range(20)])
    for times, status in ((2.5, 503), (5, 200)):
        async with CollectorWorld(max_buffered_bytes=int(times * len(body))).running() as world:
            answer = await world.post(body, JSON, TP2)
            assert answer.status == status, "the body, its content and its events are in memory together"
            assert ("Retry-After" in answer.headers) == (status == 503)
            assert (await world.items() == []) == (status == 503)
            assert world.buffered_bytes == 0


async def test_rates_hold_for_keys_in_the_body_and_for_addresses():
    async with CollectorWorld(key_requests_per_s=0.5).running() as world:
        answers = [await world.post(payload_data(snowplow("pv", eid=f"e{n}")), JSON, TP2) for n in range(3)]
        assert [answer.status for answer in answers] == [200, 429, 429]
        assert int(answers[2].headers["Retry-After"]) >= 1
    async with CollectorWorld(address_requests_per_s=0.5).running() as world:
        statuses = [(await world.post(b"x", JSON, TP2)).status for _ in range(3)]
        assert statuses == [400, 429, 429]


async def test_a_get_carries_one_event_and_is_answered_by_a_picture(world):
    query = "&".join(f"{k}={v}" for k, v in snowplow("pv", eid="e1", url="https%3A%2F%2Fa.example%2F").items())
    async with world.session.get(f"{world.url}/i?{query}", headers={"Origin": "https://news.example"}) as answer:
        assert answer.status == 200
        assert answer.content_type == "image/gif"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert (await answer.read()).startswith(b"GIF89a")
    assert [line["event_id"] for line in await world.stored_lines()] == ["e1"]
    shown = await world.call("GET", "/i?e=se&eid=e2&aid=demo&validate=1", headers={})
    assert shown.body["reasons"] == [{"line": 0, "reason": "event_type: snowplow struct is not taken"}]


async def test_a_get_without_a_known_key_or_with_a_long_address_keeps_nothing(world):
    for method, query, status in (
        ("GET", "e=pv&aid=other", 401), ("GET", "e=pv", 401), ("GET", "key=other&e=pv&aid=demo", 401),
        ("GET", "aid=demo&e=pv&page=" + "a" * 9000, 400), ("HEAD", "aid=demo&e=pv", 405),
    ):  # fmt: skip
        assert (await world.call(method, f"/i?{query}", headers={})).status == status
    assert await world.items() == []


async def test_the_anonymous_mode_keeps_no_address(world):
    await world.post(payload_data(snowplow("pv")), {**JSON, "SP-Anonymous": "*", "User-Agent": "UA"}, TP2)
    [line] = await world.stored_lines()
    assert "ip" not in line
    assert line["user_agent"] == "UA"


@pytest.mark.parametrize("path", [*POSTS, *GETS])
async def test_a_preflight_permits_what_the_trackers_send(world, path):
    answer = await world.call("OPTIONS", path, headers={"Origin": "https://news.example"})
    assert answer.status == 204
    permitted = answer.headers["Access-Control-Allow-Headers"].lower()
    for name in ("content-type", "x-write-key", "authorization", "sp-anonymous", "x-retry-count"):
        assert name in permitted
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"


async def test_a_retry_is_the_same_event(world):
    """An answer was lost: the tracker sends the event again, with another `stm`."""
    for attempt in range(2):
        await world.post(payload_data(snowplow("pv", stm=str(attempt))), JSON, TP2)
    first, second = await world.stored_lines()
    first.pop("received_at"), second.pop("received_at")
    assert first == second


async def test_no_log_shows_what_a_query_or_a_body_says(world, caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        async with world.session.get(f"{world.url}/i?e=pv&aid=demo&duid=secret&url=https%3A%2F%2Fsecret.example") as answer:
            assert answer.status == 200
        await world.call("GET", "/i?e=pv&aid=secret-key", headers={})
        await world.call("GET", "/i?e=pv&page=secret" + "a" * 9000, headers={})
        await world.post(b"secret", {}, TP2)
    assert "secret" not in caplog.text + capsys.readouterr().out
