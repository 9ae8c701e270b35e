"""What a client may do to a connection before it is a request: how long, how much, how many."""

import asyncio
import json
import logging
import resource
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from aiohttp.web_protocol import RequestHandler
from prometheus_client import REGISTRY

from app.collector import descriptors
from app.collector.client_connection import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED
from tests.builders.events import event, text
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import LoopTime, turns, until

ONE = text(event())


def request(payload: bytes = ONE, *headers: str) -> bytes:
    lines = [
        "POST /v1/events?key=demo HTTP/1.1", "Host: x", "Content-Type: text/plain", f"Content-Length: {len(payload)}"
    ]  # fmt: skip
    return "\r\n".join([*lines, *headers, "", ""]).encode() + payload


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> "Client":
        self.writer.write(data)
        return self

    async def answer(self) -> tuple[int, dict, dict]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        payload = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(head[0].split()[1]), json.loads(payload), headers

    async def answer_in(self, loop_time: LoopTime) -> tuple[int, dict, dict]:
        """The answer, with the time that the batch lingers."""
        answer = asyncio.create_task(self.answer())
        await turns()
        await until(lambda: loop_time.pass_s(0.001) or answer.done())
        return await answer

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


async def connect(world: CollectorWorld) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", world.port))


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """Every log line from here on, warnings too."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(wrapper_class=before)


def closed(reason: str) -> float:
    return REGISTRY.get_sample_value("instream_collector_connections_closed_total", {"reason": reason}) or 0


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01secret\r\n\r\n", "bad_request"),
        (b"GET / HTTP/9.9\r\n\r\n", "bad_request"),
        (b"POST /v1/events?key=secret HTTP/1.1\r\nContent-Length: 1\r\n\r\n{", "bad_request"),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: secret\r\n\r\n", "bad_request"),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Write-Key secret\r\n\r\n", "bad_request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: 1\r\n" * MAX_HEADERS + b"\r\n", "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: %s\r\n" % (n, b"a" * 4000) for n in range(5)) + b"\r\n",
         "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * (MAX_HEAD_BYTES + 1), "headers_too_large"),
    ],
)  # fmt: skip
async def test_a_request_that_cannot_be_read_is_400_in_our_form_and_one_line_in_the_log(sent, code, logs, capfd):
    async with CollectorWorld().running() as world:
        for _ in range(5):
            client = (await connect(world)).send(sent)
            status, body, headers = await client.answer()
            assert (status, body["error"]) == (400, code)
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert await client.is_closed()
        assert await world.items() == []
    [line] = [line for line in logs if line["event"] == "clients are refused"]
    assert (line["kind"], line["count"]) == (code, 1)
    assert "secret" not in str(logs) + "".join(capfd.readouterr())


async def test_the_log_counts_what_it_did_not_say(logs):
    async with CollectorWorld().running() as world:
        faults = world.app_faults
        now = [0.0]
        faults._now_s = lambda: now[0]
        for _ in range(3):
            faults.note("bad_request", "")
        now[0] = 10.0
        faults.note("bad_request", "")
    assert [line["count"] for line in logs if line["event"] == "clients are refused"] == [1, 3]


async def test_heads_that_together_fit_are_read():
    async with CollectorWorld().running() as world:
        client = (await connect(world)).send(request(ONE, "Cookie: " + "c" * 8000, "Referer: " + "r" * 7000))
        assert (await client.answer())[0] == 200


async def test_pipelined_requests_are_answered_in_turn_and_bounded():
    async with CollectorWorld().running() as world:
        client = (await connect(world)).send(request() * MAX_PIPELINED)
        assert [(await client.answer())[0] for _ in range(MAX_PIPELINED)] == [200] * MAX_PIPELINED
        client.send(request() * 500)
        statuses = []
        while not statuses or statuses[-1] == 200:
            statuses.append((await client.answer())[0])
        assert statuses[-1] == 400
        assert len(statuses) <= 2 * MAX_PIPELINED + 2
        assert await client.is_closed()


async def test_a_head_that_does_not_end_is_closed_at_its_deadline(loop_time: LoopTime):
    async with CollectorWorld(head_timeout_s=10).running() as world:
        before = closed("slow_head"), closed("silent")
        silent, half, later = [await connect(world) for _ in range(3)]
        assert (await later.send(request()).answer_in(loop_time))[0] == 200
        half.send(b"POST /v1/events HTTP/1.1\r\nX: ")
        later.send(b"POST /v1/")
        await until(lambda: sum(one._head_bytes > 0 for one in world.connections._open) == 2)
        for _ in range(9):
            loop_time.pass_s(1)
            half.send(b"a")
        await until(lambda: any(one._head_bytes > 36 for one in world.connections._open))
        assert len(world.connections) == 3
        loop_time.pass_s(1)
        assert [await client.is_closed() for client in (silent, half, later)] == [True] * 3
        assert (closed("slow_head"), closed("silent")) == (before[0] + 2, before[1] + 1)
        await until(lambda: len(world.connections) == 0)


async def test_an_idle_connection_is_closed_after_the_keep_alive_timeout(loop_time: LoopTime):
    async with CollectorWorld(keepalive_timeout_s=75).running() as world:
        client = await connect(world)
        assert (await client.send(request()).answer_in(loop_time))[0] == 200
        loop_time.pass_s(74)
        assert (await client.send(request()).answer_in(loop_time))[0] == 200
        loop_time.pass_s(76)
        assert await client.is_closed()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_with_bad_chunks_is_answered_without_a_wait(at_once, loop_time: LoopTime):
    head = b"POST /v1/events?key=demo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with CollectorWorld().running() as world:
        client = (await connect(world)).send(head + b"zz\r\n" if at_once else head)
        if not at_once:
            await until(lambda: world.buffered_bytes > 0)
            client.send(b"zz\r\n")
        status, body, _ = await client.answer()
        assert (status, body["error"]) == (400, "bad_request" if at_once else "incomplete_body")
        await until(lambda: world.buffered_bytes == 0)


async def test_a_client_that_does_not_read_is_cut_off(loop_time: LoopTime):
    async with CollectorWorld(request_timeout_s=30, head_timeout_s=3600).running() as world:
        before = closed("unread")
        await connect(world)
        await until(lambda: len(world.connections) == 1)
        [one] = world.connections._open
        one.pause_writing()
        loop_time.pass_s(29)
        one.resume_writing()
        one.pause_writing()
        loop_time.pass_s(29)
        await asyncio.sleep(0)
        assert closed("unread") == before
        loop_time.pass_s(1)
        await until(lambda: closed("unread") == before + 1)
        await until(lambda: len(world.connections) == 0)


async def test_at_the_limit_the_oldest_idle_connection_makes_room():
    async with CollectorWorld(max_connections=3).running() as world:
        idle = [await connect(world) for _ in range(3)]
        await until(lambda: len(world.connections) == 3)
        client = (await connect(world)).send(request())
        assert (await client.answer())[0] == 200
        assert await idle[0].is_closed()
        assert len(world.connections) == 3
        idle[1].send(request())
        assert (await idle[1].answer())[0] == 200


async def test_a_body_that_does_not_end_makes_room_but_a_request_in_hand_does_not():
    world = CollectorWorld(max_connections=2)
    gate = asyncio.Event()

    async def hold(call, _):
        if call == "put":
            await gate.wait()

    world.store.before = hold
    async with world.running():
        sending = (await connect(world)).send(request()[:-3])
        await until(lambda: len(world.connections._sending) == 1)
        handled = [(await connect(world)).send(request())]
        await until(lambda: world.buffered_bytes > 0 and len(world.connections._idle) == 0)
        handled.append((await connect(world)).send(request()))
        assert await sending.is_closed()
        await until(lambda: not world.connections._idle and not world.connections._sending)
        refused = await connect(world)
        status, body, headers = await refused.answer()
        assert (status, body["error"], headers["Access-Control-Allow-Origin"]) == (503, "overloaded", "*")
        assert int(headers["Retry-After"]) > 0
        assert await refused.is_closed()
        gate.set()
        assert [(await client.answer())[0] for client in handled] == [200, 200]
    assert len(await world.items()) >= 1


@pytest.mark.parametrize(
    ("limits", "wanted", "limit", "raised"),
    [
        ((20_000, 20_000), 2000, 2000, None),
        ((1024, 524_288), 2000, 2000, 3200),
        ((1024, 1024), 2000, 512, None),
        ((1024, 2048), 2000, 1024, 2048),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 2000, 2000, None),
        ((64, 64), 10, 10, None),
    ],
)
def test_the_limit_of_connections_follows_from_the_descriptors(monkeypatch, limits, wanted, limit, raised):
    limits, soft = list(limits), limits[0]
    sets: list[int] = []
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: tuple(limits))

    def set_limit(_, new):
        limits[0] = new[0]
        if new[0] != soft:
            sets.append(new[0])

    monkeypatch.setattr(descriptors.resource, "setrlimit", set_limit)
    assert descriptors.connection_limit(wanted) == limit
    assert sets == ([] if raised is None else [raised])


def test_our_connection_uses_what_aiohttp_has():
    """The connection overrides private parts of aiohttp: another version may have others."""
    for name in ("_handle_request", "log_exception", "handle_error", "pause_writing", "resume_writing", "force_close"):
        assert callable(getattr(RequestHandler, name))
    for name in ("_messages", "_waiter", "_request_count", "_force_close"):
        assert name in RequestHandler.__slots__
