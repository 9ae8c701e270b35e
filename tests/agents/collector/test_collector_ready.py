"""The page /ready and the answers 503 while storage refuses, fails or does not answer."""

import asyncio

import pytest

from app.collector import clock_guard, storage_health
from app.collector.storage_health import ANSWER_S, FORGET_S, StorageHealth
from app.errors import ServiceUnavailable
from tests.worlds.collector import CollectorWorld, body
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import LoopTime, until

DENIED = "AccessDenied (403)"


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_guard, "MEASURE_INTERVAL_S", 0.01)
    monkeypatch.setattr(storage_health, "PROBE_INTERVAL_S", 0.01)


async def reason(world: CollectorWorld) -> str:
    answer = await world.call("GET", "/ready")
    assert (answer.status == 200) == ("reason" not in answer.body)
    return answer.body.get("reason", "")


@pytest.mark.parametrize(
    ("twin", "call", "name"), [("store", "head", "the object store"), ("registry", "get", "the registry")]
)
async def test_a_service_that_refuses_or_hangs_is_seen_without_a_request(twin, call, name, quick_probes):
    clock = StandingClock()
    world = CollectorWorld(clock)
    gate = asyncio.Event()
    fault: list[str] = ["deny"]

    async def meddle(made, _):
        if made == call and fault[0] == "deny":
            raise ServiceUnavailable(f"{call} secret/key: {DENIED}", DENIED)
        if made == call and fault[0] == "hang":
            await gate.wait()

    async def says(expected):
        return await reason(world) == expected

    async with world.running():
        await until(lambda: says(""))
        getattr(world, twin).before = meddle
        await until(lambda: says(f"{name} fails to read: {DENIED}"))
        fault[0] = ""
        await until(lambda: says(""))
        fault[0] = "hang"
        await until(lambda: world.health._asked_s)
        clock.now_s += ANSWER_S
        await until(lambda: says(f"{name} does not answer a read for {ANSWER_S:.0f} s"))
        gate.set()
        await until(lambda: says(""))


@pytest.mark.parametrize(
    ("twin", "call", "name"), [("store", "put", "the object store"), ("registry", "register", "the registry")]
)
async def test_a_refused_write_is_named_to_the_client_and_on_ready(twin, call, name, loop_time: LoopTime):
    clock = StandingClock()
    world = CollectorWorld(clock, linger_ms=0, request_timeout_s=30)
    is_denied = [True]

    async def deny(made, _):
        if made == call and is_denied[0]:
            raise ServiceUnavailable(f"{call} secret/key: {DENIED}", DENIED)

    getattr(world, twin).before = deny
    async with world.running():
        post = asyncio.create_task(world.post(body("a")))
        await until(lambda: loop_time.pass_s(0.5) or post.done())
        answer = await post
        assert (answer.status, answer.body["error"]) == (503, "storage_unavailable")
        assert answer.body["detail"] == f"{name} fails: {DENIED}; send the same events again"
        assert await reason(world) == f"{name} fails to write: {DENIED}"
        clock.now_s += FORGET_S
        assert await reason(world) == "", "a load balancer sends requests again, and one of them finds out"
        is_denied[0] = False
        post = asyncio.create_task(world.post(body("a")))
        await until(lambda: loop_time.pass_s(0.01) or post.done())
        assert (await post).status == 200


async def test_a_write_without_an_answer_is_named(loop_time: LoopTime):
    world = CollectorWorld(linger_ms=0, request_timeout_s=30)

    async def hang(made, _):
        if made == "put":
            await asyncio.Event().wait()

    world.store.before = hang
    async with world.running():
        post = asyncio.create_task(world.post(body("a")))
        await until(lambda: world.calls or world.health._asked_s.get(("s3", "write")))
        await until(lambda: loop_time.pass_s(1) or post.done())
        assert (await post).body["detail"] == "the object store fails: no answer in time; send the same events again"
        assert await reason(world) == "the object store fails to write: no answer in time"


def test_a_write_that_is_given_up_has_its_last_failure_unless_it_hangs():
    now = [0.0]
    health = StorageHealth(lambda: now[0])
    health.asks("s3", "write")
    assert health.gives_up("s3") == "no answer in time"
    health.failed("s3", "write", DENIED)
    assert health.gives_up("s3") == DENIED
    health.asks("s3", "write")
    assert health.gives_up("s3") == DENIED, "the next try has only begun"
    health.asks("s3", "write")
    now[0] = ANSWER_S
    assert health.gives_up("s3") == "no answer in time"


async def test_an_unforeseen_error_of_a_probe_does_not_end_it(quick_probes):
    world = CollectorWorld()
    reads = 0

    async def fail_once(made, _):
        nonlocal reads
        if made == "get":
            reads += 1
            if reads == 1:
                raise RuntimeError("nobody thought of this")

    world.registry.before = fail_once
    async with world.running():
        await until(lambda: reads > 2)
        assert await reason(world) == ""


def test_a_write_makes_up_for_reads_and_a_read_not_for_writes():
    now = [0.0]
    health = StorageHealth(lambda: now[0])
    health.failed("s3", "read", DENIED)
    health.failed("registry", "write", "no answer")
    health.succeeded("s3", "write")
    assert health.fault() == "the registry fails to write: no answer"
    health.succeeded("registry", "read")
    assert health.fault() is not None
    health.succeeded("registry", "write")
    assert health.fault() is None
