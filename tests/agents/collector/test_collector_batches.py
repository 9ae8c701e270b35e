"""How requests become batches, in which order things happen, and what a failure of each leaves."""

import asyncio
import json
from collections import Counter

import pytest

from app.collector import clock_guard
from app.core.formats.batch import cut_again
from app.core.formats.block import decode_header
from app.errors import OutcomeUnknown, ServiceUnavailable
from tests.builders.events import event, text
from tests.worlds.collector import NDJSON, Answer, CollectorWorld
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import LoopTime, turns, until


def body(*ids: str) -> bytes:
    return b"\n".join(text(event(event_id=name, page_view_id=f"p-{name}")) for name in ids)


async def lingering(world: CollectorWorld, *bodies: bytes) -> "list[asyncio.Task[Answer]]":
    """Posts whose lines are all in the batch that lingers."""
    posts = [asyncio.create_task(world.post(each)) for each in bodies]
    lines = sum(each.count(b"\n") + 1 for each in bodies)
    await until(lambda: world.gathered_lines == lines)
    return posts


async def test_s3_comes_first_then_the_registry_then_kinesis_then_the_answer():
    world = CollectorWorld()
    gates = {call: asyncio.Event() for call in ("s3", "registry", "kinesis")}
    reached: list[str] = []

    def gate(name, calls):
        async def wait(call, _):
            if call in calls:
                reached.append(name)
                await gates[name].wait()

        return wait

    world.store.before = gate("s3", {"put"})
    world.registry.before = gate("registry", {"register"})
    world.stream.before = gate("kinesis", {"put"})
    async with world.running():
        answer = asyncio.create_task(world.post(body("a", "b")))
        for number, name in enumerate(gates, start=1):
            await until(lambda: len(reached) == number)  # noqa: B023
            assert reached[-1] == name
            assert not answer.done()
            gates[name].set()
        assert (await answer).status == 200
    assert world.calls == ["put", "register", "put"]


async def test_what_is_acknowledged_is_in_raw_and_registry_and_cuts_into_what_kinesis_has():
    async with CollectorWorld().running() as world:
        answer = await world.post(body(*"abcdefgh"))
        item = await world.registry.get(answer.body["batch_id"])
        assert item is not None
        raw = await world.store.get(item.raw_key)
        assert sorted(cut_again(raw, item, 0)) == sorted(await world.blocks())


async def test_requests_within_the_linger_share_a_batch_and_each_stays_whole(loop_time: LoopTime):
    async with CollectorWorld(linger_ms=150).running() as world:
        posts = await lingering(world, *(body(f"{n}a", f"{n}b") for n in range(20)))
        loop_time.pass_s(0.15)
        answers = await asyncio.gather(*posts)
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body["batch_id"] for answer in answers}) == 1
        [item] = await world.items()
        assert item.line_count == 40
        [post] = await lingering(world, body("z"))
        loop_time.pass_s(0.15)
        later = await post
        assert later.body["batch_id"] > item.batch_id


@pytest.mark.usefixtures("loop_time")
async def test_a_full_batch_does_not_wait_for_the_linger():
    async with CollectorWorld(linger_ms=1, batch_bytes=1000).running() as world:
        answer = await world.post(body(*(str(n) for n in range(20))))
        assert answer.body["accepted"] == 20


async def test_many_events_are_each_stored_once():
    async with CollectorWorld(batch_bytes=50_000).running() as world:
        answers = await asyncio.gather(*(world.post(body(*(f"{r}-{n}" for n in range(300)))) for r in range(8)))
        assert {answer.body["accepted"] for answer in answers} == {300}
        ids = Counter(line["event_id"] for line in await world.stored_lines())
        assert ids == Counter(f"{r}-{n}" for r in range(8) for n in range(300))
        assert world.buffered_bytes == 0


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


async def test_a_clock_far_off_s3s_is_refused_with_the_reason():
    async with CollectorWorld().running() as world:
        world.store.skew_ms = -5001
        answer = await world.post(body("a"))
        assert (answer.status, answer.body["error"]) == (503, "clock_skew")
        assert "-5.0 s" in answer.body["detail"]
        assert "Retry-After" in answer.headers
        world.store.skew_ms = 5000
        assert (await world.post(body("a"))).status == 200


async def test_a_refused_clock_is_measured_again_without_any_request(monkeypatch):
    monkeypatch.setattr(clock_guard, "MEASURE_INTERVAL_S", 0.02)
    world = CollectorWorld()
    measured = 0

    async def answer_with_date(call, _):
        nonlocal measured
        if call == "head":
            measured += 1
            if measured == 1:
                world.store.skew_ms = 60_000
            elif measured == 2:
                raise ServiceUnavailable("one measurement fails")
            else:
                world.store.skew_ms = 0 if is_repaired else 60_000

    is_repaired = False
    world.store.before = answer_with_date
    async with world.running():
        await until(lambda: measured > 3)
        assert (await world.post(body("a"))).body["error"] == "clock_skew"
        is_repaired = True

        async def is_ready():
            return (await world.call("GET", "/ready")).status == 200

        await until(is_ready)
        assert (await world.post(body("a"))).status == 200


async def test_a_wrong_clock_that_only_the_put_shows_is_never_registered():
    world = CollectorWorld()

    async def reveal(call, _):
        if call == "put":
            world.store.skew_ms = 60_000

    world.store.before = reveal
    async with world.running():
        assert (await world.post(body("a"))).body["error"] == "clock_skew"
        assert await world.items() == []


async def test_more_than_fits_in_memory_is_503_until_there_is_room():
    world = CollectorWorld(max_buffered_bytes=20_000, linger_ms=0)
    gate = asyncio.Event()
    reached = asyncio.Event()

    async def hold(call, _):
        if call == "put":
            reached.set()
            await gate.wait()

    world.store.before = hold
    async with world.running():
        heavy = body("x" * 20) + b"\n" + json.dumps({"noise": [hash(str(n)) for n in range(500)]}).encode()
        first = asyncio.create_task(world.post(heavy))
        await reached.wait()
        refused = await world.post(b"y" * 15_000)
        assert (refused.status, refused.body["error"]) == (503, "overloaded")
        assert "Retry-After" in refused.headers
        gate.set()
        assert (await first).status == 200
        assert (await world.post(b"y" * 5_000)).status == 200
        assert world.buffered_bytes == 0


async def test_a_client_that_leaves_does_not_take_the_others_answer_with_it(loop_time: LoopTime):
    async with CollectorWorld(linger_ms=200).running() as world:
        leaver, stays = await lingering(world, body("a"), body("b"))
        leaver.cancel()
        await asyncio.wait([leaver])
        await turns()
        loop_time.pass_s(0.2)
        answer = await stays
        assert answer.status == 200
        [item] = await world.items()
        assert item.line_count == 2


async def test_shutdown_stores_the_open_batch_answers_and_then_refuses():
    world = CollectorWorld(linger_ms=60_000)
    async with world.running():
        [waiting] = await lingering(world, body("a"))
        await world.runner.cleanup()
        assert (await waiting).status == 200
        assert len(await world.items()) == 1
        with pytest.raises(OSError, match="connect"):
            await world.post(body("b"), NDJSON)
