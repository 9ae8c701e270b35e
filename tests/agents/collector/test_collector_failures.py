"""Failures of S3, of the registry and of Kinesis: the answer, the retries, and the blocks that the audit must send."""

import asyncio

import pytest

from app.core.formats.block import decode_header
from app.errors import OutcomeUnknown, ServiceUnavailable
from tests.worlds.collector import CollectorWorld, body, lingering
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import LoopTime, turns, until


@pytest.mark.parametrize("service", ["store", "registry"])
@pytest.mark.parametrize("failure", [ServiceUnavailable, OutcomeUnknown])
async def test_a_short_failure_of_storage_is_retried_within_the_request(service, failure):
    world = CollectorWorld()
    left = [2]

    async def fail(call, _):
        if call in {"put", "register"} and left[0]:
            left[0] -= 1
            raise failure("for a moment")

    twin = getattr(world, service)
    if failure is OutcomeUnknown:
        twin.after = fail
    else:
        twin.before = fail
    async with world.running():
        answer = await world.post(body("a"))
        assert answer.status == 200
        assert left == [0]
        assert [item.batch_id for item in await world.items()] == [answer.body["batch_id"]]
        assert len(await world.blocks()) == 1


@pytest.mark.parametrize("service", ["store", "registry"])
async def test_a_lasting_failure_of_storage_is_503_to_every_waiting_request(service, loop_time: LoopTime):
    world = CollectorWorld(request_timeout_s=30, linger_ms=50)
    failed = 0

    async def fail(call, _):
        nonlocal failed
        if call in {"put", "register"}:
            failed += 1
            raise ServiceUnavailable("gone")

    getattr(world, service).before = fail
    async with world.running():
        posts = await lingering(world, body("a"), body("b"))
        loop_time.pass_s(0.05)
        for tries in range(1, 4):
            await until(lambda: failed == tries)  # noqa: B023
            await turns()  # to the pause before the next try
            loop_time.pass_s(1)
        assert not any(post.done() for post in posts)
        loop_time.pass_s(30)
        answers = await asyncio.gather(*posts)
        assert [(answer.status, answer.body["error"]) for answer in answers] == [(503, "storage_unavailable")] * 2
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
        assert await world.blocks() == []
        assert world.buffered_bytes == 0
        getattr(world, service).before = None
        [post] = await lingering(world, body("a", "b"))
        loop_time.pass_s(0.05)
        assert (await post).status == 200


async def test_storage_that_hangs_is_503_in_time(loop_time: LoopTime):
    world = CollectorWorld(request_timeout_s=30)
    hangs = asyncio.Event()

    async def hang(call, _):
        if call == "put":
            hangs.set()
            await asyncio.Event().wait()

    world.store.before = hang
    async with world.running():
        [post] = await lingering(world, body("a"))
        loop_time.pass_s(0.01)
        await hangs.wait()
        loop_time.pass_s(29.9)
        await turns()
        assert not post.done()
        loop_time.pass_s(0.1)
        assert (await post).status == 503
        assert await world.items() == []


async def test_an_unforeseen_error_of_storage_is_503_and_the_next_batch_goes_on():
    world = CollectorWorld()

    async def fail(call, _):
        if call == "put":
            raise RuntimeError("nobody thought of this")

    world.store.before = fail
    async with world.running():
        answer = await world.post(body("a"))
        assert (answer.status, answer.body["error"]) == (503, "internal")
        world.store.before = None
        assert (await world.post(body("a"))).status == 200


async def test_only_the_records_that_kinesis_refused_are_put_again_behind_the_answer(loop_time: LoopTime):
    world = CollectorWorld()
    puts: list[int] = []
    refusing = [True]

    async def note(call, _):
        if call == "put":
            puts.append(0)

    def refuse(index, _):
        puts[-1] += 1
        return "ProvisionedThroughputExceededException" if refusing[0] and index % 2 == 0 else None

    world.stream.before, world.stream.refuse = note, refuse
    async with world.running():
        [post] = await lingering(world, body(*map(str, range(40))))
        loop_time.pass_s(0.01)
        assert (await post).status == 200
        assert puts == [4]
        assert len(await world.blocks()) == 2
        refusing[0] = False
        loop_time.pass_s(1)
        await until(lambda: world.resend_bytes == 0)
        assert puts == [4, 2]
        assert len(await world.blocks()) == 4
        assert sorted(decode_header(block).block for block in await world.blocks()) == [0, 1, 2, 3]


async def test_what_is_refused_again_and_again_is_put_until_it_is_taken():
    world = CollectorWorld()
    puts: list[int] = []

    async def note(call, _):
        if call == "put":
            puts.append(0)

    def refuse(*_):
        puts[-1] += 1
        return "ProvisionedThroughputExceededException" if len(puts) < 4 or (len(puts) == 4 and puts[-1] > 1) else None

    world.stream.before, world.stream.refuse = note, refuse
    async with world.running():
        assert (await world.post(body(*map(str, range(40))))).status == 200
        await until(lambda: world.resend_bytes == 0)
        assert puts == [4, 4, 4, 4, 3], "what was taken is not put again"
        assert sorted(decode_header(block).block for block in await world.blocks()) == [0, 1, 2, 3]


async def test_kinesis_away_is_still_200_and_nothing_but_the_audit_is_left_after_the_bound():
    clock = StandingClock()
    world = CollectorWorld(clock, max_buffered_bytes=4000, audit_grace_s=300)

    async def away(call, _):
        if call == "put":
            raise ServiceUnavailable("away")

    world.stream.before = away
    async with world.running():
        statuses = [(await world.post(body(str(n)))).status for n in range(10)]
        assert statuses == [200] * 10
        assert 0 < world.resend_bytes <= 1000
        clock.now_s += 301
        await until(lambda: world.resend_bytes == 0)
        assert len(await world.items()) == 10


async def test_kinesis_that_hangs_does_not_hold_the_answer_beyond_the_timeout(loop_time: LoopTime):
    world = CollectorWorld(request_timeout_s=30)
    hangs, release = asyncio.Event(), asyncio.Event()

    async def hang(call, _):
        if call == "put":
            hangs.set()
            await release.wait()

    world.stream.before = hang
    async with world.running():
        [post] = await lingering(world, body("a"))
        loop_time.pass_s(0.01)
        await hangs.wait()
        await turns()
        assert not post.done()
        loop_time.pass_s(30)
        assert (await post).status == 200
        assert world.buffered_bytes > 0
        release.set()
        await until(lambda: world.buffered_bytes == 0)
        assert len(await world.blocks()) == 1
