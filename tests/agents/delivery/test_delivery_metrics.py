"""The five-minute clock in metrics: how far flows are complete, and how old rows are when they become visible."""

from prometheus_client import REGISTRY

from app.core.formats import object_keys
from app.core.formats.flows import FLOWS
from tests.worlds.pipeline import PARTITIONS, SETTINGS, Pipeline


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def complete_up_to_ms(flow: str) -> float:
    return 1000 * sample("instream_complete_up_to_seconds", flow=flow)


async def test_rows_are_counted_by_their_age_when_they_become_visible() -> None:
    pipeline = Pipeline()
    before = {name: sample(f"instream_received_to_visible_seconds_{name}", flow="ad_clicks") for name in ("count", "sum")}
    await pipeline.collect(*(pipeline.event(f"a{n}", "ad_click", f"v{n}", ad_slot=2) for n in range(5)))
    pipeline.bridge()
    pipeline.etl()
    pipeline.clock.pass_s(12)
    await pipeline.sink()
    pipeline.clock.pass_s(3)
    await pipeline.deliver()
    count = sample("instream_received_to_visible_seconds_count", flow="ad_clicks") - before["count"]
    total_s = sample("instream_received_to_visible_seconds_sum", flow="ad_clicks") - before["sum"]
    assert count == 5
    assert total_s == 5 * 14.5  # they are counted as received in the middle of their second


async def test_the_wait_of_page_views_for_the_join_is_measured_apart() -> None:
    pipeline = Pipeline()
    before = {name: sample(f"instream_join_wait_seconds_{name}") for name in ("count", "sum")}
    await pipeline.collect(*(pipeline.event(f"p{n}", "page_view", f"v{n}") for n in range(4)))
    await pipeline.drain()
    pipeline.clock.pass_s(121)
    await pipeline.drain()
    assert sample("instream_join_wait_seconds_count") - before["count"] == 4
    assert sample("instream_join_wait_seconds_sum") - before["sum"] == 4 * 121


async def test_flows_are_complete_up_to_the_loaded_stream_time_and_the_gauge_stands_with_delivery() -> None:
    pipeline = Pipeline()
    for partition in range(PARTITIONS):  # something on each, so that each commits
        await pipeline.collect(*(pipeline.event(f"a{partition}{n}", "ad_click", f"v{n}", ad_slot=2) for n in range(8)))
    await pipeline.drain()
    loaded_ms = pipeline.clock.now_ms()
    assert complete_up_to_ms("ad_clicks") == loaded_ms
    assert complete_up_to_ms("page_views") == loaded_ms - SETTINGS.join.settle_ms
    pipeline.clock.pass_s(300)
    pipeline.bridge()
    pipeline.etl()
    await pipeline.sink()
    assert complete_up_to_ms("ad_clicks") == loaded_ms, "nothing was loaded since"
    pipeline.deliverer.forget()
    await pipeline.deliver()
    assert {complete_up_to_ms(flow.name) for flow in FLOWS} == {
        float(pipeline.clock.now_ms()), float(pipeline.clock.now_ms() - SETTINGS.join.settle_ms),
    }  # fmt: skip


async def test_a_deliverer_learns_the_time_of_what_others_have_loaded() -> None:
    pipeline = Pipeline()
    await pipeline.collect(*(pipeline.event(f"a{n}", "ad_click", f"v{n}", ad_slot=2) for n in range(8)))
    pipeline.bridge()
    pipeline.etl()
    await pipeline.sink()
    await pipeline.deliverer.round([0])
    known = dict(pipeline.deliverer._reached)
    assert known.keys() == {0}, "partition 1 is another owner's, and has loaded nothing"
    await pipeline.another_deliverer().round([1])
    pipeline.clock.pass_s(60)
    pipeline.bridge()
    pipeline.etl()
    await pipeline.sink()
    await pipeline.deliverer.round([0])
    assert pipeline.deliverer._reached[1][1] < pipeline.deliverer._reached[0][1]
    assert complete_up_to_ms("ad_clicks") == pipeline.deliverer._reached[1][1], "the slowest partition of all"


async def test_a_record_that_cannot_be_read_costs_only_the_gauge() -> None:
    pipeline = Pipeline()
    await pipeline.collect(*(pipeline.event(f"a{n}", "ad_click", f"v{n}", ad_slot=2) for n in range(8)))
    await pipeline.drain()
    for partition in range(PARTITIONS):
        await pipeline.store.put(object_keys.record_key(1, partition, 1), b"damaged")
    report = await pipeline.another_deliverer().round(range(PARTITIONS))
    assert report.deferred is None
