"""/ready names the service that does not answer a worker, or that failed its last call."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import ObjectMissing, OutcomeUnknown, ServiceUnavailable
from app.shell.outside_calls import ANSWER_S, ANSWERED_S, FORGET_S, OutsideCalls, noted, noted_sessions

LONG_S = 120.0


class Service:
    """A service whose calls wait for the test."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.fails: Exception | None = None
        self.bucket = "b"

    async def get(self, key: str) -> str:
        await self.answers.wait()
        if self.fails is not None:
            raise self.fails
        return key

    async def copy(self) -> None:
        await self.answers.wait()

    async def list(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            await self.answers.wait()
            yield number


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.calls = OutsideCalls(lambda: self.now_s)
        self.service = Service()
        self.adapter = noted(self.calls, "s3", self.service, {"copy": LONG_S})


@pytest.fixture
def world() -> World:
    return World()


async def begun(call: "asyncio.Future[object]") -> None:
    await asyncio.sleep(0)
    assert not call.done()


async def test_a_call_is_named_only_once_it_has_waited_too_long(world: World) -> None:
    call = asyncio.ensure_future(world.adapter.get("k"))
    await begun(call)
    world.now_s += ANSWER_S - 0.1
    assert world.calls.reason() is None
    world.now_s += 2.1
    assert world.calls.reason() == "s3 does not answer get for 7 s"
    world.service.answers.set()
    assert await call == "k"
    assert world.calls.reason() is None


async def test_a_long_call_has_its_own_limit(world: World) -> None:
    call = asyncio.ensure_future(world.adapter.copy())
    await begun(call)
    world.now_s += LONG_S - 1
    assert world.calls.reason() is None
    world.now_s += 1
    assert world.calls.reason() is not None
    call.cancel()
    await asyncio.wait([call])
    assert world.calls.reason() is None, "nobody waits any more"


@pytest.mark.parametrize("failure", [ServiceUnavailable("GetObject: 503"), OutcomeUnknown("GetObject: 503")])
async def test_a_failure_stays_until_the_service_answers(world: World, failure: Exception) -> None:
    world.service.answers.set()
    world.service.fails = failure
    with pytest.raises(type(failure)):
        await world.adapter.get("k")
    assert world.calls.reason() == "s3 fails: get: GetObject: 503"
    world.service.fails = ObjectMissing("k")
    with pytest.raises(ObjectMissing):
        await world.adapter.get("k")
    assert world.calls.reason() is None, "that was an answer"


async def test_a_call_that_keeps_failing_is_named_although_other_calls_have_answers(world: World) -> None:
    world.service.answers.set()
    for _ in range(20):
        world.service.fails = ServiceUnavailable("throttled")
        with pytest.raises(ServiceUnavailable):
            await world.adapter.get("k")
        world.now_s += 1
        await world.adapter.copy()
        assert world.calls.reason() == "s3 fails: get: throttled"
    world.now_s += ANSWERED_S
    await world.adapter.copy()
    assert world.calls.reason() is None, "nobody makes that call any more, and the service answers others"


async def test_a_failure_that_is_not_repeated_is_forgotten(world: World) -> None:
    world.service.answers.set()
    world.service.fails = ServiceUnavailable("gone")
    with pytest.raises(ServiceUnavailable):
        await world.adapter.get("k")
    world.now_s += FORGET_S - 1
    assert world.calls.reason() is not None
    world.now_s += 1
    assert world.calls.reason() is None


async def test_a_listing_waits_only_for_its_next_item(world: World) -> None:
    world.service.answers.set()
    found = []
    async for number in world.adapter.list(3):
        found.append(number)
        world.now_s += 60  # the caller works
        assert world.calls.reason() is None
    assert found == [0, 1, 2]
    assert world.adapter.bucket == "b"


async def test_an_append_is_followed_until_the_broker_answers(world: World) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    assert world.calls.follow("kafka", "append", answer) is answer
    world.now_s += 9
    assert world.calls.reason() == "kafka does not answer append for 9 s"
    answer.set_result(1)
    await asyncio.sleep(0)
    assert world.calls.reason() is None


async def test_a_connection_that_hangs_is_named_and_its_session_is_noted(world: World) -> None:
    opened = asyncio.Event()

    async def connect() -> Service:
        await opened.wait()
        return world.service

    call = asyncio.ensure_future(noted_sessions(world.calls, "warehouse", connect)())
    await begun(call)
    world.now_s += 6
    assert world.calls.reason() == "warehouse does not answer connect for 6 s"
    opened.set()
    session = await call
    asked = asyncio.ensure_future(session.get("k"))
    await begun(asked)
    world.now_s += 6
    assert world.calls.reason() == "warehouse does not answer get for 6 s"
    asked.cancel()
    await asyncio.wait([asked])
