"""`instream audit --since --until`: states of batches with counts and history; nothing is changed."""

import pytest

from agents.audit.deep.report import Span
from agents.audit.states import AuditStates, read_states
from app.cli.audit_states import lines_of
from app.core.audit.reconcile import VerdictKind
from app.core.formats.registry_item import BatchState
from tests.worlds.audit import GRACE_MS, START_MS, World


async def states(world: World, span: Span | None = None) -> AuditStates:
    items, blocks = dict(world.registry._items), await world.blocks()
    found = await read_states(world.ports, world.settings, span or Span())
    assert (world.registry._items, await world.blocks()) == (items, blocks)
    return found


async def test_batches_are_counted_by_state_and_verdict():
    world = World()
    done = await world.batch()
    world.later()
    world.ledger(done.item, *range(len(done.item.blocks)))
    await world.auditor.round()
    covered = await world.batch()
    world.at_ms += 1
    missing = await world.batch()
    world.later()
    world.ledger(covered.item, *range(len(covered.item.blocks)))
    young = await world.batch()
    found = await states(world)
    assert (found.batches, found.complete, found.open, found.lines) == (4, 1, 3, 120)
    assert found.verdicts == {"complete": 1, "replay": 1, "wait": 1}
    assert (found.young, found.is_off) == (1, True)
    assert [(each.batch_id, each.verdict, each.missing) for each in found.shown] == [
        (missing.batch_id, VerdictKind.REPLAY, 30)
    ]
    assert young.batch_id not in {each.batch_id for each in found.shown}


async def test_the_history_says_when_why_and_with_which_result():
    world = World()
    sealed = await world.batch()
    world.later()
    first_ms = world.at_ms
    await world.auditor.round()
    world.ledger(sealed.item, 0)
    world.later(GRACE_MS / 1000 * 3)
    second_ms = world.at_ms
    await world.auditor.round()
    found = await states(world)
    (shown,) = found.shown
    left = 30 - sealed.item.blocks[0].lines
    assert [(each.number, each.at_ms, each.reason) for each in shown.history] == [
        (1, first_ms, "30 of 30 lines missing"), (2, second_ms, f"{left} of 30 lines missing"),
    ]  # fmt: skip
    assert [each.result for each in shown.history] == [
        f"not complete: {left} of 30 lines missing", f"{left} of 30 lines are missing until now",
    ]  # fmt: skip
    assert found.attempts == 2
    world.ledger(sealed.item, *range(1, len(sealed.item.blocks)))
    world.later(GRACE_MS / 1000 * 10)
    await world.auditor.round()
    found = await states(world)
    (shown,) = found.shown
    assert (shown.state, shown.completed_at_ms, shown.history[-1].result) == (BatchState.COMPLETE, world.at_ms, "complete")
    assert not found.is_off
    told = "\n".join(lines_of(found))
    assert "attempt 2 at" in told
    assert "1 complete, 0 open; sent again 2 times" in told


async def test_only_the_span_is_looked_at():
    world = World()
    await world.batch()
    world.later()
    second = await world.batch()
    world.later()
    found = await states(world, Span(START_MS + 1))
    assert [each.batch_id for each in found.shown] == [second.batch_id]
    assert (await states(world, Span(0, START_MS))).batches == 0


@pytest.mark.parametrize("epoch", [2])
async def test_batches_of_another_epoch_are_told(epoch):
    world = World()
    await world.batch(epoch=epoch)
    found = await states(world)
    assert (found.other_epoch, found.is_off) == (1, True)
