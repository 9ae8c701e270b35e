"""The pixel, and the visitor's cookie: when it is set, used, left alone and removed."""

import json

import pytest

from tests.builders.events import event, text
from tests.builders.foreign import payload_data, segment, snowplow
from tests.worlds.collector import KEY, NDJSON, CollectorWorld

GIF = "/v1/p.gif?key=demo&url=https%3A%2F%2Fnews.example%2Fa"
SET = {"visitor_cookie": "vid", "visitor_cookie_domain": "news.example"}
REFUSALS = [({"Sec-GPC": "1"}, ""), ({"DNT": "1"}, ""), ({"SP-Anonymous": "*"}, ""), ({}, "&consent=0"), ({}, "&consent=No")]


@pytest.fixture
async def world():
    async with CollectorWorld(**SET).running() as running:
        yield running


async def get(world: CollectorWorld, path: str, **headers: str):
    async with world.session.get(world.url + path, headers=headers) as answer:
        assert answer.status == 200
        assert answer.content_type == "image/gif"
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.read() != b""
        return answer.headers.getall("Set-Cookie", [])


async def visitors(world: CollectorWorld) -> list[str | None]:
    return [line.get("visitor_id") for line in await world.stored_lines()]


async def test_a_pixel_is_a_page_view():
    async with CollectorWorld().running() as world:
        assert await get(world, f"{GIF}&page_view_id=v1&title=A", Referer="https://news.example/") == [], "off by default"
        assert await get(world, "/v1/p.gif?key=demo", Referer="https://news.example/b") == []
        lines = {line["url"]: line for line in await world.stored_lines()}
        line = lines["https://news.example/a"]
        assert (line["event_type"], line["event_id"], line["title"]) == ("page_view", "v1", "A")
        assert "key" not in json.loads(line["properties"])
        assert lines["https://news.example/b"]["event_id"] != lines["https://news.example/a"]["event_id"]
        assert all("visitor_id" not in line for line in lines.values())


async def test_a_first_answer_sets_the_cookie_and_its_event_has_the_id(world):
    [cookie] = await get(world, GIF)
    name, _, rest = cookie.partition("=")
    value, *attributes = rest.split("; ")
    assert name == "vid"
    assert set(attributes) == {"Domain=news.example", f"Max-Age={395 * 86_400}", "Path=/", "SameSite=Lax", "Secure"}
    assert await visitors(world) == [value]
    [other] = await get(world, GIF)
    assert other != cookie


async def test_a_known_visitor_keeps_the_cookie_as_it_is(world):
    assert await get(world, GIF, Cookie="a=b; vid=visitor-7") == []
    answer = await world.post(
        json.dumps(segment("page", anonymousId=None)).encode(), {"Cookie": "vid=visitor-7"}, "/v1/page"
    )
    assert "Set-Cookie" not in answer.headers
    await world.post(
        payload_data(snowplow("pv", duid=None)), {"Cookie": "vid=visitor-7"}, "/com.snowplowanalytics.snowplow/tp2"
    )
    assert await visitors(world) == ["visitor-7"] * 3


async def test_an_event_that_names_its_visitor_keeps_that_name(world):
    await get(world, f"{GIF}&visitor_id=own", Cookie="vid=visitor-7")
    assert await visitors(world) == ["own"]


@pytest.mark.parametrize("value", ["", "a.b", "x" * 65, "é", "a%20b"])
async def test_a_cookie_that_is_none_of_ours_is_replaced(world, value):
    [cookie] = await get(world, GIF, Cookie=f"vid={value}")
    assert "Max-Age=34128000" in cookie


@pytest.mark.parametrize(("headers", "query"), REFUSALS)
async def test_a_visitor_who_refuses_gets_no_id_and_loses_the_one_that_is_there(world, headers, query):
    assert await get(world, GIF + query, **headers) == []
    [cookie] = await get(world, GIF + query, Cookie="vid=visitor-7", **headers)
    assert cookie.startswith('vid="";')
    assert {"Max-Age=0", "Domain=news.example", "Path=/"} < set(cookie.split("; "))
    assert await visitors(world) == [None, None]
    assert all("consent" not in line.get("properties", "") for line in await world.stored_lines())


async def test_events_of_our_own_form_are_stored_as_sent_and_the_answer_sets_the_cookie(world):
    answer = await world.post(text(event()), {**NDJSON, "Cookie": "vid=visitor-7"})
    assert "Set-Cookie" not in answer.headers
    answer = await world.post(text(event(event_id="e2")), NDJSON)
    assert answer.headers["Set-Cookie"].startswith("vid=")
    assert "visitor-7" not in str(await world.stored_lines())


async def test_nothing_but_a_kept_event_sets_the_cookie(world):
    for method, path, body, headers in (
        ("POST", "/v1/events", b"", NDJSON), ("POST", "/v1/events", b"x", {}), ("OPTIONS", "/v1/events", None, {}),
        ("POST", "/v1/events?validate=1", text(event()), {**KEY, "Content-Type": "application/json"}),
        ("GET", "/v1/p.gif", None, {}), ("GET", "/health", None, {}),
    ):  # fmt: skip
        answer = await world.call(method, path, body, headers)
        assert "Set-Cookie" not in answer.headers
