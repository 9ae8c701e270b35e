"""What the collector answers to which request."""

import asyncio
import gzip
import json
import socket

import pytest

from app.collector.server import create_app
from app.errors import ConfigurationError
from tests.builders.events import event, text
from tests.worlds.collector import KEY, NDJSON, CollectorWorld
from tests.worlds.waiting import until

ONE = text(event())


@pytest.fixture
async def world():
    async with CollectorWorld(max_body_bytes=20_000, max_decompressed_bytes=60_000, max_lines=50).running() as running:
        yield running


@pytest.mark.parametrize(
    ("content_type", "body", "accepted", "reasons"),
    [
        ("application/json", ONE, 1, {}),
        ("application/json; charset=utf-8", b"[" + ONE + b"," + ONE + b"]", 2, {}),
        ("application/json", b'[{"a":"\\ud800"}]', 1, {0: "event_id: required"}),
        ("application/x-ndjson", ONE + b"\r\n\n" + ONE + b"\nbroken\xff", 3, {2: "line: not UTF-8"}),
        ("text/plain;charset=UTF-8", ONE + b"\n[", 2, {1: "line: not JSON"}),
        ("text/plain", b"[" + ONE + b",\n7," + ONE + b"]", 3, {1: "line: not an object"}),
        ("application/x-ndjson", b"\xef\xbb\xbf" + ONE, 1, {}),
        (None, b"\xef\xbb\xbf" + json.dumps(event(), indent=1).encode(), 1, {}),
        ("text/plain", b"\n".join([ONE, *[b"x"] * 12]), 13, dict.fromkeys(range(1, 11), "line: not JSON")),
    ],
)
@pytest.mark.parametrize("validates", [False, True])
async def test_events_are_accepted_and_malformed_lines_are_named(world, content_type, body, accepted, reasons, *, validates):
    headers = {**KEY, "Content-Type": content_type} if content_type else KEY
    answer = await world.post(body, headers, "/v1/events?validate=1" if validates else "/v1/events?validate=0")
    assert answer.status == 200
    malformed = 12 if accepted == 13 else len(reasons)
    found = {
        "accepted": accepted, "malformed": malformed, "reasons": [{"line": n, "reason": why} for n, why in reasons.items()]
    }  # fmt: skip
    if validates:
        assert answer.body == {**found, "batch_id": None}
        assert await world.items() == []
        assert world.buffered_bytes == 0
        return
    item = await world.registry.get(answer.body["batch_id"])
    assert item is not None
    assert answer.body == {**found, "batch_id": item.batch_id}
    lines = await world.stored_lines()
    assert item.line_count == accepted == len(lines)
    told = [line["malformed"] for line in lines if "malformed" in line]
    assert sorted(told)[:10] == sorted(reasons.values())
    assert len(told) == malformed


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, ONE, 401, "unauthorized"),
        ({**NDJSON, "X-Write-Key": "nobody"}, ONE, 401, "unauthorized"),
        ({**NDJSON, "X-Write-Key": "dém0\u20ac"}, ONE, 401, "unauthorized"),
        ({**KEY, "Content-Type": "text/html"}, ONE, 415, "unsupported_media_type"),
        ({**NDJSON, "Content-Encoding": "br"}, ONE, 415, "unsupported_encoding"),
        (NDJSON, gzip.compress(ONE) + b"x", 400, "invalid_gzip"),
        ({**NDJSON, "Content-Encoding": "gzip"}, gzip.compress(ONE)[:-3], 400, "invalid_gzip"),
        ({**NDJSON, "Content-Encoding": "gzip"}, gzip.compress(bytes(5_000_000)), 413, "too_large"),
        (NDJSON, b"x" * 20_001, 413, "too_large"),
        (NDJSON, b"x\n" * 51, 413, "too_many_lines"),
        (NDJSON, b"", 400, "empty"),
        ({**NDJSON, "Content-Encoding": "gzip"}, b"", 400, "empty"),
        ({**KEY, "Content-Type": "application/json"}, b"[{]", 400, "invalid_json"),
        ({**KEY, "Content-Type": "application/json"}, b"7", 400, "not_events"),
    ],
)
async def test_a_request_that_is_not_taken_leaves_nothing(world, headers, body, status, code):
    answer = await world.post(body, headers)
    assert (answer.status, answer.body["error"]) == (status, code)
    assert answer.body["detail"]
    assert await world.items() == []
    assert world.buffered_bytes == 0


async def test_a_body_without_length_is_bounded_while_it_arrives(world):
    async def endless():
        for _ in range(100):
            yield b"x" * 1000

    assert (await world.post(endless())).status == 413


async def test_the_key_may_be_in_the_query(world):
    headers = {"Content-Type": "text/plain"}
    assert (await world.post(ONE, headers, "/v1/events?key=demo")).status == 200
    assert (await world.post(ONE, headers, "/v1/events?key=demo2")).status == 401


async def test_a_wrong_key_is_told_from_a_missing_one(world):
    missing = await world.post(ONE, {"Content-Type": "text/plain"})
    wrong = await world.post(ONE, {"Content-Type": "text/plain", "X-Write-Key": "demo2"})
    assert missing.body["error"] == wrong.body["error"] == "unauthorized"
    assert missing.body["detail"].startswith("the request has no write key")
    assert wrong.body["detail"].startswith("the write key is not one of ours")
    assert "demo2" not in wrong.body["detail"]


async def test_a_validation_is_asked_for_in_one_way(world):
    answer = await world.post(ONE, NDJSON, "/v1/events?validate=true")
    assert (answer.status, answer.body["error"]) == (400, "invalid_query")
    assert await world.items() == []


@pytest.mark.parametrize(
    ("encoding", "body"), [(None, gzip.compress(ONE)), ("gzip", ONE), ("identity", gzip.compress(ONE) + bytes(32))]
)
async def test_the_first_bytes_say_whether_a_body_is_gzip(world, encoding, body):
    headers = {**NDJSON, "Content-Encoding": encoding} if encoding else NDJSON
    answer = await world.post(body, headers)
    assert (answer.status, answer.body["malformed"]) == (200, 0)


async def test_gzip_bodies_and_big_bodies_are_read(world):
    many = b"\n".join(text(event(event_id=f"e{n}", section="s" * 100)) for n in range(50))
    answer = await world.post(gzip.compress(many), {**NDJSON, "Content-Encoding": "gzip"})
    assert (answer.status, answer.body["accepted"]) == (200, 50)
    assert {line["event_id"] for line in await world.stored_lines()} == {f"e{n}" for n in range(50)}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/events", 405, "method_not_allowed"),
        ("GET", "/metrics", 404, "not_found"),
    ],
)
async def test_the_frameworks_own_errors_have_the_same_form(world, method, path, status, code):
    answer = await world.call(method, path)
    assert (answer.status, answer.body["error"]) == (status, code)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_health_and_readiness(world):
    assert (await world.call("GET", "/health")).body == {"status": "ok"}
    assert (await world.call("GET", "/ready")).body == {"status": "ready"}
    world.store.skew_ms = None
    assert (await world.call("GET", "/ready")).status == 503


async def test_preflight_needs_no_key(world):
    answer = await world.call("OPTIONS", "/v1/events", headers={"Origin": "https://a.example"})
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"
    assert {"Content-Type", "X-Write-Key", "Content-Encoding"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize("origin", ["https://a.example", "http://[::1]:8000", "null", "https://xn--bcher-kva.example:8443"])
async def test_any_origin_may_send_with_credentials(world, origin):
    for status, payload in ((200, ONE), (400, b"")):
        answer = await world.post(payload, {**NDJSON, "Origin": origin})
        assert answer.status == status
        assert answer.headers.getall("Access-Control-Allow-Origin") == [origin]
        assert answer.headers.getall("Access-Control-Allow-Credentials") == ["true"]
        assert answer.headers.getall("Vary") == ["Origin"]


@pytest.mark.parametrize("origin", ["", "*", "https://a.example/path", "https://" + "a" * 300, "no origin", "https://\xe9"])
async def test_a_text_that_is_no_origin_is_not_answered(world, origin):
    answer = await world.post(ONE, {**NDJSON, "Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_only_allowed_origins_are_named():
    async with CollectorWorld(allowed_origins=("https://a.example",)).running() as world:
        named = await world.post(ONE, {**NDJSON, "Origin": "https://a.example"})
        assert named.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert named.headers["Access-Control-Allow-Credentials"] == "true"
        assert named.headers["Vary"] == "Origin"
        other = await world.post(b"", {**NDJSON, "Origin": "https://b.example"})
        assert other.status == 400
        assert "Access-Control-Allow-Origin" not in other.headers
        assert "Access-Control-Allow-Credentials" not in other.headers


@pytest.mark.parametrize(
    ("trusted", "forwarded", "ip"),
    [
        ((), "198.51.100.1", "127.0.0.1"),
        (("127.0.0.0/8",), "203.0.113.66, 198.51.100.1", "198.51.100.1"),
        (("127.0.0.0/8", "198.51.100.0/24"), "203.0.113.66:5000, 198.51.100.1", "203.0.113.66"),
        (("127.0.0.1/32",), "nonsense", "127.0.0.1"),
        (("127.0.0.1/32",), "[2001:db8::1]:443", "2001:db8::1"),
    ],
)
async def test_the_address_is_the_right_most_that_no_trusted_proxy_has(trusted, forwarded, ip):
    async with CollectorWorld(trusted_proxies=trusted).running() as world:
        headers = {**NDJSON, "X-Forwarded-For": forwarded, "User-Agent": "Test/1"}
        await world.post(text(event(ip="192.0.2.1", user_agent="Forged")), headers)
        await world.post(text(event(ip="192.0.2.1", user_agent="Named")), {**headers, "X-Write-Key": "back"})
        browser, server = await world.stored_lines()
        assert (browser["ip"], browser["user_agent"]) == (ip, "Test/1")
        assert (server["ip"], server["user_agent"]) == ("192.0.2.1", "Named")


async def test_a_body_that_does_not_come_is_503_and_one_that_breaks_off_leaves_nothing():
    async with CollectorWorld(request_timeout_s=0.2).running() as world:
        head = "POST /v1/events?key=demo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nabc"
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head.encode())
        status = await reader.readline()
        assert b"503" in status
        writer.close()
        with socket.create_connection(("127.0.0.1", world.port)) as broken:
            broken.sendall(head.encode())
        await until(lambda: world.buffered_bytes == 0)
        assert await world.items() == []


def test_a_collector_that_nobody_could_post_to_does_not_start():
    world = CollectorWorld(write_keys={})
    with pytest.raises(ConfigurationError, match="INSTREAM_WRITE_KEYS"):
        create_app(world.settings, world.ports)
    with pytest.raises(ConfigurationError, match="INSTREAM_TRUSTED_PROXIES: here is no network"):
        CollectorWorld(trusted_proxies=("here",))


async def test_the_stored_line_has_the_arrival_time(world):
    await world.post(json.dumps([event(received_at=1)]), {**KEY, "Content-Type": "application/json"})
    [line] = await world.stored_lines()
    assert line["received_at"] > 1_700_000_000_000
