"""Which stage holds a batch: told from the services alone, at every place where a line can stand."""

import msgspec
import pytest

from agents.audit.stages.block_search import BlockSearch, WantedBlock
from app.core.audit.stages import Stage
from app.core.formats.batch import cut_again
from app.core.formats.registry_item import RegistryItem
from tests.worlds.pipeline import BLOCKS, PARTITIONS, ROWS, Pipeline


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


async def mixed(pipeline: Pipeline) -> RegistryItem:
    """A page view, which the join holds, and a malformed line and an ad, which it does not; on both partitions."""
    views = [pipeline.event(f"p{n}", "page_view", f"view-{n}") for n in range(6)]
    ads = [pipeline.event(f"a{n}", "ad_impression", f"view-{n}", ad_slot=1) for n in range(6)]
    item = await pipeline.collect(*views, *ads, "{oops", "{ouch")
    assert {place.partition for place in item.blocks} == set(range(PARTITIONS))
    return item


async def stage_of(pipeline: Pipeline, item: RegistryItem) -> Stage:
    return (await pipeline.stages.of([item]))[item.batch_id].stage


async def test_a_batch_is_found_at_every_stage_of_its_way(pipeline: Pipeline) -> None:
    item = await mixed(pipeline)
    assert await stage_of(pipeline, item) is Stage.KINESIS
    pipeline.bridge()
    assert await stage_of(pipeline, item) is Stage.ETL
    pipeline.etl()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert found.counts == {Stage.SINK: 8, Stage.JOIN: 6}
    assert found.stage is Stage.SINK
    await pipeline.sink()
    assert (await pipeline.stages.of([item]))[item.batch_id].counts == {Stage.DELIVERY: 8, Stage.JOIN: 6}
    await pipeline.deliver()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert found.counts == {Stage.JOIN: 6, Stage.LOADED: 8}
    assert (found.stage, found.until_ms) == (Stage.JOIN, item.received_at_ms + 120_000)
    pipeline.clock.pass_s(121)
    pipeline.bridge()
    pipeline.etl()
    assert await stage_of(pipeline, item) is Stage.SINK
    await pipeline.sink()
    assert await stage_of(pipeline, item) is Stage.DELIVERY
    await pipeline.deliver()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert (found.stage, found.counts, found.detail) == (Stage.LOADED, {Stage.LOADED: 14}, "")


def lose_the_ledger(pipeline: Pipeline) -> None:
    """The warehouse loses rows that it had committed."""
    committed = pipeline.warehouse.committed
    pipeline.warehouse.committed = msgspec.structs.replace(committed, tables={**committed.tables, "ledger": ()})


async def test_every_line_has_the_stage_of_its_own_event(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("p1", "page_view"), pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.bridge()
    pipeline.etl()
    await pipeline.sink()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert sorted([found.stage_of(0), found.stage_of(1)]) == [Stage.DELIVERY, Stage.JOIN]
    (txn_id,) = found.holder.txn_ids[Stage.DELIVERY]
    assert txn_id.startswith(f"1-{item.blocks[0].partition}-1-")
    assert found.offsets == {0: 0}


async def test_a_block_that_was_not_copied_is_told_from_one_that_was(pipeline: Pipeline) -> None:
    item = await mixed(pipeline)
    kept = pipeline.kinesis.pop()
    pipeline.bridge()
    pipeline.etl()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert [block.stage for block in found.blocks] == [Stage.SINK, Stage.KINESIS]
    assert found.stage is Stage.KINESIS
    pipeline.kinesis.append(kept)
    pipeline.bridge()
    assert [block.stage for block in (await pipeline.stages.of([item]))[item.batch_id].blocks] == [Stage.SINK, Stage.ETL]


async def test_a_quarantined_transaction_is_named(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.bridge()
    pipeline.etl()
    await pipeline.sink()
    (txn_id,) = (await pipeline.stages.of([item]))[item.batch_id].holder.txn_ids[Stage.DELIVERY]
    pipeline.ledger.quarantine(1, txn_id, item.blocks[0].partition, 1, pipeline.clock.now_ms())
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert (found.stage, found.detail) == (Stage.QUARANTINED, f"transaction {txn_id}")


async def test_an_unreadable_block_is_a_dead_letter_before_and_after_its_report_is_loaded(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.kinesis[0] = pipeline.kinesis[0][:60] + b"garbage"
    pipeline.bridge()
    pipeline.etl()
    assert await stage_of(pipeline, item) is Stage.DEAD_LETTER
    await pipeline.sink()
    await pipeline.deliver()
    assert await stage_of(pipeline, item) is Stage.DEAD_LETTER
    pipeline.logs.append(BLOCKS, item.blocks[0].partition, (await replayed(pipeline, item))[0])
    assert await stage_of(pipeline, item) is Stage.ETL, "a readable copy is on its way"


async def replayed(pipeline: Pipeline, item: RegistryItem) -> list[bytes]:
    return cut_again(await pipeline.store.get(item.raw_key), item, 1)


async def test_a_sink_or_a_delivery_far_behind_is_named_without_reading_everything(pipeline: Pipeline) -> None:
    first = await mixed(pipeline)
    for _ in range(5):
        pipeline.clock.pass_s(30)
        pipeline.bridge()
        pipeline.etl()
        await pipeline.sink()
        await pipeline.collect(pipeline.event("x", "redirect", "v", cost_micros=1))
    pipeline.stages._most = 2
    found = (await pipeline.stages.of([first]))[first.batch_id]
    assert found.stage is Stage.DELIVERY
    assert found.counts == {Stage.DELIVERY: 14}


async def test_lines_that_no_stage_has_are_called_lost_only_when_delivery_is_past_them(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    await pipeline.drain()
    lose_the_ledger(pipeline)
    assert await stage_of(pipeline, item) is Stage.JOIN
    pipeline.clock.pass_s(140)
    pipeline.bridge()
    pipeline.etl()
    assert await stage_of(pipeline, item) is Stage.DELIVERY
    pipeline.clock.pass_s(70)
    await pipeline.drain()
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert found.stage is Stage.LOST
    assert "no ledger has its lines" in found.detail


async def test_messages_that_are_no_steps_and_steps_of_zombies_count_for_nothing(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    partition = item.blocks[0].partition
    pipeline.bridge()
    pipeline.etl()
    (step,) = pipeline.logs.messages[ROWS, partition]
    pipeline.logs.append(ROWS, partition, b"foreign")
    pipeline.logs.append(ROWS, partition, step)
    assert await stage_of(pipeline, item) is Stage.SINK
    found = (await pipeline.stages.of([item]))[item.batch_id]
    assert found.holder.step_offsets == (0,)


async def test_a_block_is_found_from_the_time_of_its_batch_on(pipeline: Pipeline) -> None:
    for n in range(30):
        await pipeline.collect(pipeline.event(f"a{n}", "ad_click", ad_slot=2))
        pipeline.bridge()
        pipeline.clock.pass_s(10)
    item = await pipeline.collect(pipeline.event("it", "ad_click", ad_slot=2))
    pipeline.bridge()
    partition = item.blocks[0].partition
    read = []

    async def count(call: str, _: str) -> None:
        read.append(call)

    pipeline.logs.before = count
    found = await BlockSearch(pipeline.logs, BLOCKS).find([WantedBlock(item, 0)])
    (copy,) = found[item.batch_id, 0].copies
    assert pipeline.logs.messages[BLOCKS, partition][copy.offset][5:21].hex() == item.batch_id.replace("-", "")
    bounded = await BlockSearch(pipeline.logs, BLOCKS, most=1).find([WantedBlock(item, 0)])
    assert (bounded[item.batch_id, 0].copies, bounded[item.batch_id, 0].is_whole) == ((), False)


async def test_a_block_that_retention_has_deleted_is_not_said_to_be_in_kinesis(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    await pipeline.drain()
    pipeline.clock.pass_s(1000)
    await pipeline.drain()
    partition = item.blocks[0].partition
    pipeline.logs.trim(BLOCKS, partition, 2)
    search = (await BlockSearch(pipeline.logs, BLOCKS).find([WantedBlock(item, 0)]))[item.batch_id, 0]
    assert search.is_expired
    lose_the_ledger(pipeline)
    assert await stage_of(pipeline, item) is not Stage.KINESIS


async def test_a_replayed_block_is_found_at_the_time_of_its_replay(pipeline: Pipeline) -> None:
    item = await pipeline.collect(pipeline.event("a1", "ad_click", ad_slot=2))
    pipeline.kinesis.clear()
    for _ in range(50):
        pipeline.clock.pass_s(10)
        pipeline.bridge()
    pipeline.kinesis += await replayed(pipeline, item)
    pipeline.bridge()
    search = BlockSearch(pipeline.logs, BLOCKS, most=10)
    assert not (await search.find([WantedBlock(item, 0)]))[item.batch_id, 0].copies
    found = await search.find([WantedBlock(item, 0, replayed_at_ms=pipeline.clock.now_ms())])
    assert [copy.attempt for copy in found[item.batch_id, 0].copies] == [1]
