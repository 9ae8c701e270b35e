"""How requests become batches, in which order things happen, and what a failure of each leaves."""

import asyncio
import json
from collections import Counter

import pytest

from app.collector import clock_guard
from app.core.formats.batch import cut_again
from app.errors import ServiceUnavailable
from tests.worlds.collector import NDJSON, CollectorWorld, body, lingering
from tests.worlds.waiting import LoopTime, turns, until


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
    world = CollectorWorld(max_buffered_bytes=60_000, linger_ms=0)
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
        refused = await world.post(b"y" * 40_000)
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
