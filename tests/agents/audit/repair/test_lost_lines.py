"""Lines that no ledger has come back as a transaction of their own, once (rules A2, R5)."""

from collections import Counter
from typing import Any

import pytest

from app.core.audit.differences import DifferenceKind
from app.core.formats.batch import SealedBatch, cut_again
from app.core.formats.flows import FLOWS
from app.core.formats.object_keys import record_key
from app.core.formats.step_history import Accepted
from app.core.sink.accept_gap import Acceptance, Resumption, bridge_record
from app.core.sink.chain import ChainId, chain_end_after, effects_of, encode_record
from tests.worlds.books import ALL_KINDS
from tests.worlds.repair import RepairedBooks


async def lose(world: RepairedBooks, events: list[dict[str, Any]]) -> SealedBatch:
    """A batch whose steps were gone from topic `rows` before the sink took them; an operator accepted the gap."""
    sealed = await world.batch(events)
    world.step()
    world.pass_s(30)
    world.step()
    rows = world.topics.rows.name
    _, end = await world.logs.bounds(rows, 0)
    world.logs.trim(rows, 0, end)
    last = (await world.records())[-1]
    behind = Resumption(end, Accepted(world._number, world._last), "")
    bridge = bridge_record(
        ChainId(1, 0), chain_end_after(last), behind, f"1-0-{last.number + 1}-ab", Acceptance("x", world.at_ms)
    )
    await world.store.put(record_key(1, 0, bridge.number), encode_record(bridge))
    effects = effects_of(bridge, world.store.bucket)
    for put in (*effects.manifests, effects.ready):
        await world.store.put(put.key, put.body)
    for block in cut_again(sealed.raw, sealed.item, 1):  # the audit sends it again: the etl knows its blocks
        world.logs.append(world.topics.blocks.name, 0, block)
    for _ in range(2):
        await world.through()
        world.pass_s(30)
    return sealed


def named(suffix: str) -> list[dict[str, Any]]:
    return [each | {name: f"{each[name]}{suffix}" for name in ("event_id", "page_view_id")} for each in ALL_KINDS]


async def with_lost(events: list[dict[str, Any]]) -> tuple[RepairedBooks, SealedBatch]:
    world = RepairedBooks()
    await world.settled(1)
    sealed = await lose(world, events)
    return world, sealed


def loaded(world: RepairedBooks, batch_id: str) -> dict[str, list[str]]:
    """Flow -> the rows of a batch, less how they came."""
    apart = {"txn_id", "loaded_at"}
    return {
        flow.name: sorted(
            str({name: value for name, value in row.items() if name not in apart})
            for row in world.warehouse.rows(flow.name) if row["batch_id"] == batch_id
        )
        for flow in FLOWS
    }  # fmt: skip


async def test_lost_lines_are_found_and_come_back_as_they_would_have_come() -> None:
    world, sealed = await with_lost(named("x"))
    found = await world.audit()
    (lost,) = found.differences
    assert (lost.kind, lost.batch_id, lost.lines) == (DifferenceKind.LINES_LOST, sealed.batch_id, list(range(9)))
    before = await world.everything()
    assert (await world.repair()).differences[0].action == "restore_lines"
    assert await world.everything() == before

    report = await world.repair(apply=True)
    assert [(each.kind, each.reason) for each in report.differences if not each.done] == []
    await world.deliver()
    assert (await world.audit()).is_clean
    unharmed = RepairedBooks()
    await unharmed.settled(1)
    other = await unharmed.batch(named("x"))
    await unharmed.through()
    unharmed.pass_s(30)
    await unharmed.through()
    assert other.batch_id == sealed.batch_id
    assert loaded(world, sealed.batch_id) == loaded(unharmed, sealed.batch_id)

    after = await world.everything()
    assert (await world.repair(apply=True)).differences == []
    assert await world.everything() == after
    await world.settled(1)  # the sink goes on behind the transaction of the repair
    assert (await world.audit()).is_clean


async def test_lost_copies_of_events_that_counted_are_duplicates() -> None:
    world, sealed = await with_lost([each for each in named("0") if each["event_id"] != "lone0"])
    assert (await world.repair(apply=True)).is_mended
    await world.deliver()
    entries = (await world.rows.ledger([sealed.batch_id]))[sealed.batch_id]
    outcomes: Counter[str] = Counter()
    for entry in entries:
        outcomes[entry.outcome] += entry.lines
    assert outcomes == {"duplicate": 7, "rejected": 1}
    assert (await world.audit()).is_clean


async def test_two_repairs_bring_lost_lines_back_once() -> None:
    world, sealed = await with_lost(named("x"))
    await world.both_repair()
    await world.deliver()
    assert (await world.audit()).is_clean
    entries = (await world.rows.ledger([sealed.batch_id]))[sealed.batch_id]
    assert sum(entry.lines for entry in entries) == 9


@pytest.mark.parametrize("missing", ["raw", "ledger"])
async def test_lost_lines_stay_lost_if_their_source_or_a_ledger_that_may_have_them_is_gone(missing: str) -> None:
    world, sealed = await with_lost(named("x"))
    if missing == "raw":
        await world.store.delete([sealed.item.raw_key])
        world.logs.trim(world.topics.blocks.name, 0, world._taken)
    else:
        record = await world.record_with("ledger")
        await world.store.delete([record.output("ledger").data_key or ""])
        world.change_rows("ledger", lambda rows: [row for row in rows if row["txn_id"] != record.txn_id])
    before = len(await world.records())
    report = await world.repair(apply=True)
    of_batch = [each for each in report.differences if each.batch_id == sealed.batch_id]
    (lost,) = [each for each in of_batch if each.kind is DifferenceKind.LINES_LOST]
    assert not lost.done
    assert "missing" in lost.reason
    assert len(await world.records()) == before


async def test_a_batch_that_was_completed_by_hand_is_none_with_lost_lines() -> None:
    """Its ledger lacks lines all the same: state alone proves nothing."""
    world, sealed = await with_lost(named("x"))
    world.complete(sealed)
    assert [each.kind for each in (await world.audit()).differences] == [DifferenceKind.LINES_LOST]
