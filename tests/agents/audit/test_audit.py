"""The auditor over the twins: rules A1, A2 and what D2 says of held batches."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.core.formats.block import decode_header, frame_of
from app.core.formats.registry_item import BatchState
from app.errors import AccessDenied, ServiceUnavailable
from tests.worlds.audit import GRACE_MS, START_MS, World, counts


@pytest.fixture
def world() -> World:
    return World()


async def test_a_covered_batch_is_completed(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 1, 2)
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "completed": 1}
    assert report.still_open == 0
    assert (await world.item(sealed)).state is BatchState.COMPLETE
    assert await world.blocks() == []
    assert counts(await world.auditor.round()) == {}


async def test_a_young_batch_is_left_alone_unless_the_grace_says_so(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 1, 2)
    world.later(GRACE_MS / 1000 - 1)
    assert counts(await world.auditor.round()) == {}
    assert counts(await world.auditor.round(grace_s=0)) == {"judged": 1, "completed": 1}


async def test_a_missing_block_is_replayed_with_its_batch_as_it_was(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}
    put = await world.blocks()
    assert [decode_header(block).attempt for block in put] == [1, 1, 1]
    assert [frame_of(block) for block in put] == [frame_of(block) for block in sealed.blocks]
    item = await world.item(sealed)
    assert (item.attempts, item.next_attempt_at_ms) == (1, world.at_ms + GRACE_MS)
    world.later(10)
    assert counts(await world.auditor.round()) == {"judged": 1, "waiting": 1}
    world.ledger(sealed.item, 1)
    assert counts(await world.auditor.round()) == {"judged": 1, "completed": 1}


async def test_the_age_of_the_oldest_batch_that_is_not_complete_is_a_metric(world: World) -> None:
    missing = await world.batch()
    world.at_ms += 1
    covered = await world.batch()
    world.ledger(covered.item, 0, 1, 2)
    world.later(400)
    assert (await world.auditor.round()).oldest_uncovered_s == 400
    assert REGISTRY.get_sample_value("instream_oldest_uncovered_batch_seconds") == 400
    world.ledger(missing.item, 0, 1, 2)
    world.later(10)
    await world.auditor.round()
    assert REGISTRY.get_sample_value("instream_oldest_uncovered_batch_seconds") == 0


async def test_replays_go_on_for_ever_with_longer_pauses(world: World) -> None:
    sealed = await world.batch()
    pauses = []
    for attempt in range(1, 8):
        world.later(3601)
        assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}
        item = await world.item(sealed)
        assert item.attempts == attempt
        pauses.append((item.next_attempt_at_ms - world.at_ms) // 1000)
    assert pauses == [300, 600, 1200, 2400, 3600, 3600, 3600]


async def test_an_attempt_that_kinesis_took_in_part_does_not_count(world: World) -> None:
    sealed = await world.batch()
    world.later()
    world.stream.refuse = lambda index, _: "ProvisionedThroughputExceededException" if index == 1 else None
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "refused": 1}
    assert report.waits_for == ["Kinesis refused blocks: ProvisionedThroughputExceededException"]
    assert await world.item(sealed) == sealed.item
    world.stream.refuse = None
    assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}
    assert (await world.item(sealed)).attempts == 1
    assert {decode_header(block).attempt for block in await world.blocks()} == {1}


async def test_it_waits_for_what_lags_and_says_which(world: World) -> None:
    sealed = await world.batch()
    world.later(lagging=1)
    world.warehouse.load(1, 1, 5, START_MS)
    world.behind = {"etl": 0, "sink": 7}
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "waiting": 1}
    assert report.waits_for == ["partitions [1]: sink (7 behind)"]
    await world.commit(sealed.item, 1, 6)
    world.behind = {}
    assert (await world.auditor.round()).waits_for == ["partitions [1]: delivery (1 behind)"]
    world.warehouse.load(1, 1, 6, START_MS)
    assert (await world.auditor.round()).waits_for == ["partitions [1]: bridge"]
    assert await world.blocks() == []


async def test_what_is_committed_and_not_loaded_is_waited_for(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    record = await world.commit(sealed.item, 1, 6, staged=True)
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "waiting": 1}
    assert report.waits_for == [f"delivery has not loaded {record.txn_id}"]
    assert await world.blocks() == []


async def test_a_held_batch_is_never_replayed(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0)
    world.later()
    record = await world.commit(sealed.item, 1, 6)
    world.warehouse.quarantine(1, record.txn_id, record.partition, 6, world.at_ms)
    for _ in range(3):
        report = await world.auditor.round()
        assert counts(report) == {"judged": 1, "held": 1}
        assert (report.named, report.held_by) == ({"held": [sealed.item.batch_id]}, [record.txn_id])
        world.later(4000)
        world.warehouse.load(1, record.partition, 7, world.at_ms)
    assert await world.blocks() == []
    assert await world.item(sealed) == sealed.item


async def test_lost_is_alarmed_and_not_replayed_again(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    await world.auditor.round()
    world.later(3601)
    world.warehouse.add_replay(sealed.item.batch_id, 1, attempt=1)
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "lost": 1}
    assert (report.alarms, report.named) == (1, {"lost": [sealed.item.batch_id]})
    assert len(await world.blocks()) == 3
    await world.commit(sealed.item, 1, 6)
    assert counts(await world.auditor.round()) == {"judged": 1, "waiting": 1}, "a committed ledger has the lines"


async def test_a_batch_with_a_dead_letter_is_named_and_replayed_until_it_is_covered(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.warehouse.add_dead_letter(sealed.item.batch_id, 1, "FrameInvalid: garbage")
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "dead_lettered": 1, "replayed": 1}
    assert (report.named, report.alarms, report.still_open) == ({"dead_lettered": [sealed.item.batch_id]}, 0, 1)
    assert counts(await world.auditor.round()) == {"judged": 1, "dead_lettered": 1, "waiting": 1}
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "dead_lettered": 1, "replayed": 1}
    world.ledger(sealed.item, 1)
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "completed": 1}


async def test_a_dead_letter_of_a_block_that_is_covered_is_no_finding(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.warehouse.add_dead_letter(sealed.item.batch_id, 0, "FrameInvalid: garbage")
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}


async def test_a_ledger_file_that_is_gone_excuses_nothing(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.later()
    record = await world.commit(sealed.item, 1, 6)
    await world.store.delete([output.data_key for output in record.outputs if output.data_key is not None])
    world.warehouse.add_replay(sealed.item.batch_id, 1, attempt=1)
    assert counts(await world.auditor.round()) == {"judged": 1, "lost": 1}


async def test_copies_by_the_bridge_prove_no_loss(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 2)
    world.warehouse.add_replay(sealed.item.batch_id, 1, attempt=0)
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}


async def test_more_than_the_batch_is_alarmed_and_stays_open(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 1, 2, 2)
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 1, "excess": 1}
    assert (await world.item(sealed)).state is BatchState.OPEN


@pytest.mark.parametrize("damage", [b"", b"other"])
async def test_a_damaged_raw_file_is_alarmed_and_not_put(world: World, damage: bytes) -> None:
    sealed = await world.batch()
    await world.store.delete([sealed.item.raw_key])
    if damage:
        await world.store.put(sealed.item.raw_key, damage)
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "damaged": 1}
    assert report.alarms == 1
    assert await world.blocks() == []
    assert await world.item(sealed) == sealed.item


async def test_another_epochs_batch_is_refused(world: World) -> None:
    sealed = await world.batch(epoch=2)
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"other_epoch": 1}
    assert report.still_open == 1
    assert report.named == {"other_epoch": [sealed.item.batch_id]}
    assert await world.blocks() == []


@pytest.mark.parametrize("service", ["warehouse", "registry", "store", "stream"])
async def test_a_service_that_is_down_is_waited_for(world: World, service: str) -> None:
    sealed = await world.batch()
    world.later()
    down: Any = getattr(world, service)

    async def refuse(call: str, subject: str) -> None:
        raise ServiceUnavailable(f"{service} is down")

    down.before = refuse
    report = await world.auditor.round()
    assert len(report.waits_for) == 1
    assert "ServiceUnavailable" in report.waits_for[0]
    assert report.replayed == report.completed == report.alarms == 0
    down.before = None
    assert await world.item(sealed) == sealed.item
    assert counts(await world.auditor.round()) == {"judged": 1, "replayed": 1}


async def test_many_batches_are_judged_in_one_round(world: World) -> None:
    covered = []
    for n in range(450):
        world.at_ms += 1
        sealed = await world.batch(lines=3)
        if n % 3:
            world.ledger(sealed.item, *range(len(sealed.item.blocks)))
            covered.append(sealed.item.batch_id)
    world.later()
    assert counts(await world.auditor.round()) == {"judged": 450, "completed": 300, "replayed": 150}
    states = {item.batch_id: item.state async for item in world.registry.all_batches()}
    assert {batch_id for batch_id, state in states.items() if state is BatchState.COMPLETE} == set(covered)


async def test_a_missing_permission_ends_the_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0)
    world.later()

    async def denied(key: str) -> bytes:
        raise AccessDenied(f"GetObject {key}: 403")

    monkeypatch.setattr(world.store, "get", denied)
    with pytest.raises(AccessDenied):
        await world.auditor.round()
