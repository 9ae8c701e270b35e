"""How far the warehouse is complete, and how old things before each stage are: asked of the services alone."""

import msgspec
import pytest

from agents.audit.stages.stages import StagePorts
from agents.audit.status import freshness
from agents.audit.status.freshness import FreshLook, FreshPorts
from app.core.status.seen import Freshness
from app.errors import ServiceUnavailable
from tests.worlds.pipeline import SETTINGS, Pipeline


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


def look_at(pipeline: Pipeline) -> FreshLook:
    ports = FreshPorts(StagePorts(pipeline.store, pipeline.ledger, pipeline.logs), pipeline.registry)
    return FreshLook(ports, SETTINGS, pipeline.clock.now_ms())


async def age_s(pipeline: Pipeline) -> tuple[float, float]:
    """The age of what is complete: of all rows, and of those that do not wait for the join."""
    found = await look_at(pipeline).freshness(with_stages=True)
    assert found.complete_up_to_ms is not None
    assert found.at_once_up_to_ms is not None
    now_ms = pipeline.clock.now_ms()
    return (now_ms - found.complete_up_to_ms) / 1000, (now_ms - found.at_once_up_to_ms) / 1000


async def test_an_idle_pipeline_is_fresh_however_long_nothing_came(pipeline: Pipeline) -> None:
    await pipeline.drain()
    pipeline.clock.pass_s(10_000)
    assert await age_s(pipeline) == (0, 0)


async def test_a_batch_that_only_the_join_holds_leaves_the_other_flows_complete(pipeline: Pipeline) -> None:
    await pipeline.collect(pipeline.event("p1", "page_view"), pipeline.event("a1", "ad_click", ad_slot=2))
    await pipeline.drain()
    assert await age_s(pipeline) == (0, 0)
    pipeline.clock.pass_s(40)
    await pipeline.drain()
    assert await age_s(pipeline) == (40, 0)
    found = await look_at(pipeline).freshness(with_stages=True)
    assert found.oldest is not None
    assert (found.oldest.stage, found.held) == ("join", None)
    pipeline.clock.pass_s(100)
    await pipeline.drain()
    assert await age_s(pipeline) == (0, 0)


async def test_a_stage_that_stands_still_makes_every_flow_late_and_is_named(pipeline: Pipeline) -> None:
    batch = await pipeline.collect(pipeline.event("p1", "page_view"), pipeline.event("a1", "ad_click", ad_slot=2))
    for stage, move in (("kinesis", pipeline.bridge), ("etl", pipeline.etl)):
        pipeline.clock.pass_s(20)
        found = await look_at(pipeline).freshness(with_stages=True)
        assert found.held is not None
        assert (found.held.batch_id, found.held.stage) == (batch.batch_id, stage)
        move()
    pipeline.clock.pass_s(20)
    found = await look_at(pipeline).freshness(with_stages=True)
    assert found.held is not None
    assert found.held.stage == "sink"
    assert await age_s(pipeline) == (60, 60)


async def test_each_stage_has_the_age_of_the_oldest_thing_that_it_has_not_passed(pipeline: Pipeline) -> None:
    await pipeline.drain()
    assert await look_at(pipeline).lags_s() == {"bridge": 0, "etl": 0, "sink": 0, "delivery": 0}
    await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.clock.pass_s(60)
    lags = await look_at(pipeline).lags_s()
    assert (lags["bridge"] > 40, lags["sink"], lags["delivery"]) == (True, 0, 0)
    pipeline.bridge()
    pipeline.clock.pass_s(7)
    assert (await look_at(pipeline).lags_s())["etl"] == 7
    pipeline.etl()
    pipeline.clock.pass_s(8)
    lags = await look_at(pipeline).lags_s()
    assert (lags["etl"], lags["sink"], lags["delivery"]) == (0, 8, 0)
    await pipeline.sink()
    pipeline.clock.pass_s(9)
    lags = await look_at(pipeline).lags_s()
    assert (lags["sink"], lags["delivery"]) == (0, 9)
    await pipeline.deliver()
    lags = await look_at(pipeline).lags_s()
    assert (lags["sink"], lags["delivery"]) == (0, 0)


async def test_watermarks_that_the_etl_does_not_take_count_once_they_are_old(pipeline: Pipeline) -> None:
    await pipeline.drain()
    pipeline.bridge()
    pipeline.clock.pass_s(9)
    pipeline.bridge()
    assert (await look_at(pipeline).lags_s())["etl"] == 0
    pipeline.clock.pass_s(9)
    assert (await look_at(pipeline).lags_s())["etl"] == 18


async def test_a_warehouse_that_does_not_answer_leaves_a_lower_bound(pipeline: Pipeline) -> None:
    batch = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    await pipeline.drain()
    pipeline.clock.pass_s(30)

    async def refuse(call: str, _: str) -> None:
        raise ServiceUnavailable("warehouse: gone")

    pipeline.ledger.before = refuse
    with pytest.raises(ServiceUnavailable):
        await look_at(pipeline).freshness(with_stages=True)
    found = await look_at(pipeline).bound()
    assert (found.complete_up_to_ms, found.is_bound) == (batch.received_at_ms, True)
    await pipeline.registry.complete(batch.batch_id)
    assert await look_at(pipeline).bound() == Freshness(
        complete_up_to_ms=pipeline.clock.now_ms(), at_once_up_to_ms=pipeline.clock.now_ms()
    )


async def test_a_load_that_holds_its_lock_hides_only_what_the_log_of_loads_tells(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "LOCKED_S", 0.01)
    batch = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.clock.pass_s(30)
    owner = object()
    await pipeline.warehouse.log_lock.acquire(owner, exclusive=True)
    look = look_at(pipeline)
    found = await look.freshness(with_stages=True)
    assert (found.complete_up_to_ms, found.is_bound) == (batch.received_at_ms, False)
    assert found.at_once_up_to_ms == batch.received_at_ms
    assert await look.lags_s() == {}
    pipeline.warehouse.log_lock.release(owner)
    assert (await look_at(pipeline).lags_s()).keys() == {"bridge", "etl", "sink", "delivery"}


async def test_lost_and_quarantined_lines_are_counted(pipeline: Pipeline) -> None:
    batch = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    await pipeline.drain()
    committed = pipeline.warehouse.committed
    pipeline.warehouse.committed = msgspec.structs.replace(committed, tables={**committed.tables, "ledger": ()})
    pipeline.clock.pass_s(200)
    await pipeline.drain()
    found = await look_at(pipeline).freshness(with_stages=True)
    assert found.lost == 1
    assert found.oldest is not None
    assert found.oldest.batch_id == batch.batch_id
    pipeline.ledger.quarantine(1, "1-0-9-ab", 0, 9, 0)
    assert (await look_at(pipeline).freshness(with_stages=False)).quarantined == ("1-0-9-ab",)
