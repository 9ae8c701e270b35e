"""Bodies that take time to read: a short queue, a deadline, and batches that do not wait for either."""

import asyncio
import base64
import gzip
import random
import threading
import uuid

import pytest

from app.collector import parsing
from app.collector.budget import MemoryBudget
from app.collector.requests import BodyLimits, RequestBody, read_lines
from app.core.events.client_lines import LineReader
from app.errors import RequestRejected
from tests.builders.events import event, text
from tests.worlds.collector import NDJSON, CollectorWorld, body
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import until

GZIP = {**NDJSON, "Content-Encoding": "gzip"}
PACKED = gzip.compress(body("packed"))
MANY = body(*(str(uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128)) for n in range(5000)))
"""Ids that hardly compress, as real ones."""
LIMITS = BodyLimits(16 * 1024**2, 10_000)


@pytest.fixture(params=["kernels", "plain"])
def reader(request: pytest.FixtureRequest) -> LineReader | None:
    return LineReader(0) if request.param == "kernels" else None


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch):
    """The parser's thread stands until the event is set."""
    release, read = threading.Event(), parsing.read_lines

    def wait(*arguments, **more):
        release.wait()
        return read(*arguments, **more)

    for decides in ("_is_small", "_is_quick"):
        monkeypatch.setattr(parsing, decides, lambda sent: not sent.is_gzip)
    monkeypatch.setattr(parsing, "read_lines", wait)
    yield release
    release.set()


async def test_while_the_parser_stands_other_requests_are_stored_and_the_queue_is_short(stuck):
    async with CollectorWorld(batch_bytes=1, linger_ms=0).running() as world:
        waiting = [asyncio.create_task(world.post(PACKED, GZIP)) for _ in range(parsing.MOST_WAITING + 1)]
        await until(lambda: world.parsing == parsing.MOST_WAITING + 1)
        refused = await world.post(PACKED, GZIP)
        assert (refused.status, refused.body["error"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
        large = b"\n".join(text(event(event_id=f"e{n}", section="s" * 100)) for n in range(500))
        assert len(large) > 64 * 1024, "a batch of this size is sealed in a thread"
        assert (await world.post(large)).status == 200
        stuck.set()
        assert {(await each).status for each in waiting} == {200}
        assert world.buffered_bytes == 0


async def test_a_request_that_is_not_parsed_in_time_is_503_and_leaves_nothing(stuck):
    clock = StandingClock()
    async with CollectorWorld(clock, parse_timeout_s=10).running() as world:
        late = asyncio.create_task(world.post(PACKED, GZIP))
        await until(lambda: world.parsing == 1)
        clock.now_s += 10.1
        stuck.set()
        answer = await late
        assert (answer.status, answer.body["error"]) == (503, "overloaded")
        assert int(answer.headers["Retry-After"]) > 0
        assert await world.items() == []
        assert world.buffered_bytes == 0
        assert (await world.post(PACKED, GZIP)).status == 200


def sent(content: bytes, *, is_gzip: bool = False) -> RequestBody:
    packed = gzip.compress(content) if is_gzip else content
    return RequestBody(packed, "text/plain", "browser", 1_700_000_000_000, None, None)


def test_a_body_with_many_lines_is_not_read_on_the_event_loop():
    assert parsing._is_small(sent(body(*map(str, range(50)))))
    assert not parsing._is_small(sent(b"x\n" * 1000))
    assert not parsing._is_small(sent(b"[" * 10_000))
    assert not parsing._is_small(sent(b"x" * 20_000))
    assert not parsing._is_small(sent(b"x", is_gzip=True))


async def test_what_the_kernels_leave_of_a_large_body_is_not_read_on_the_event_loop(stuck):
    async with CollectorWorld(batch_bytes=1, linger_ms=0).running() as world:
        waiting = asyncio.create_task(world.post(PACKED, GZIP))
        await until(lambda: world.parsing == 1)
        assert (await world.post(body(*map(str, range(150))))).status == 200
        left = asyncio.create_task(world.post(b"\n".join([b"{" * 150] * 120)))
        await until(lambda: world.parsing == 2)
        stuck.set()
        assert [(await each).status for each in (waiting, left)] == [200, 200]


@pytest.mark.parametrize("is_gzip", [False, True])
def test_the_deadline_is_looked_at_all_the_time(is_gzip, reader):
    many = sent(MANY, is_gzip=is_gzip)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 6:
            raise RequestRejected(503, "overloaded", "late")

    with pytest.raises(RequestRejected, match="late"):
        read_lines(many, MemoryBudget(1 << 30).reserve(), LIMITS, look, reader)
    assert looks == 6


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_request_is_counted_as_often_as_it_is_in_memory(is_gzip, reader):
    budget = MemoryBudget(1 << 30)
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, budget.used_bytes)

    with budget.reserve() as held:
        lines = read_lines(sent(MANY, is_gzip=is_gzip), held, LIMITS, look, reader)
        assert lines.line_count == 5000
        assert len(lines.text) + 16 * 5000 < held.held_bytes < 1.15 * len(lines.text) + 32 * 5000
        assert most > len(lines.text) + len(MANY) * (1.8 if is_gzip else 0.8)
    assert budget.used_bytes == 0


def test_a_request_for_which_there_is_no_room_stops_while_it_is_read(reader):
    budget = MemoryBudget(2_000_000)
    with budget.reserve() as held, pytest.raises(RequestRejected) as caught:
        read_lines(sent(MANY, is_gzip=True), held, LIMITS, reader=reader)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert budget.used_bytes == 0


ISO_TIME = text(event(occurred_at="2026-11-28T00:00:00Z"))
PLAIN_TIME = text(event(occurred_at=1_699_999_999_000))


@pytest.mark.parametrize("line", [b"[", b"{}", ISO_TIME], ids=["text", "empty", "mended"])
def test_lines_that_break_a_rule_cost_what_they_take(line, reader):
    """Reading one of them takes several times as long: as many lines that keep every rule are within the limit."""
    most = 53_000 // 50
    held = MemoryBudget(1 << 30).reserve()
    assert read_lines(sent(_of_16_kb(line, most // 2)), held, LIMITS, reader=reader).line_count == most // 2 + 1
    plain = sent(_of_16_kb(PLAIN_TIME, 2 * most), is_gzip=True)
    assert read_lines(plain, held, LIMITS, reader=reader).line_count == 2 * most + 1
    with pytest.raises(RequestRejected) as refused:
        read_lines(sent(_of_16_kb(line, 2 * most), is_gzip=True), held, LIMITS, reader=reader)
    assert (refused.value.status, refused.value.code) == (413, "too_complex")


def _of_16_kb(line: bytes, count: int) -> bytes:
    """So many lines, and one that makes the compressed body 16 KB long."""
    noise = base64.b64encode(random.Random(1).randbytes(16 * 1024))
    return b"\n".join([line] * count) + b'\n"' + noise + b'"'
