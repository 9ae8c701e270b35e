"""An audit before what a newer version wrote: it judges what it can, replays nothing on half the evidence, says so (E10)."""

from pathlib import Path
from typing import Any

import pytest

from agents.audit.coverage import Uncovered
from agents.audit.replay import EVERY, replay
from app.core.formats.object_keys import record_key
from app.core.formats.registry_item import BatchState, encode_item
from tests.agents.audit.test_audit_agent import TURNS, Audit
from tests.builders.newer import newer_record, upgrade
from tests.worlds.agent import new_member, until
from tests.worlds.audit import World, counts


@pytest.fixture
def world() -> World:
    return World()


async def test_a_newer_batch_waits_alone(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 1, 2)
    newer = encode_item(sealed.item) | {"batch_id": {"S": "another"}, "version": {"N": "2"}}
    world.registry.stored.append(newer)
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "completed": 1}
    assert (await world.item(sealed)).state is BatchState.COMPLETE
    what = "registry item another of version 2, this reader knows versions up to 1"
    assert report.upgrade == what
    assert report.waits_for == [f"{what}: upgrade the audit first"]
    assert world.auditor.waits_for() == f"{what}: upgrade the audit first"
    world.registry.stored.clear()  # an audit that reads it finds nothing newer
    assert (await world.auditor.round()).upgrade == ""
    assert world.auditor.waits_for() is None


async def test_a_newer_transaction_behind_delivery_is_evidence_that_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger may have the lines: to call them missing, or lost, would be rash."""
    sealed = await world.batch()
    world.ledger(sealed.item, 1, 2)
    world.later()
    place = sealed.item.blocks[0]
    await world.commit(sealed.item, 0, 6)  # delivery is at 5
    key = record_key(1, place.partition, 6)
    await world.store.put(key, newer_record(await world.store.get(key)))
    report = await world.auditor.round()
    assert counts(report) == {}
    assert await world.blocks() == []
    assert world.auditor.waits_for() == (
        f"record 6 of partition {place.partition} of epoch 1 of version 2, this reader knows versions up to 1: "
        "upgrade the audit first"
    )
    upgrade(monkeypatch)
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "waiting": 1}
    assert world.auditor.waits_for() is None


async def test_an_item_that_is_no_batch_is_named_and_keeps_no_other_from_being_judged(world: World) -> None:
    sealed = await world.batch()
    world.ledger(sealed.item, 0, 1, 2)
    absurd = encode_item(sealed.item) | {"line_count": {"N": "0"}}
    world.registry.stored += [{"batch_id": {"S": "b"}, "state": {"S": "open"}}, absurd]
    world.later()
    report = await world.auditor.round()
    assert counts(report) == {"judged": 1, "completed": 1}
    assert ["registry item b cannot", f"registry item {sealed.item.batch_id} cannot"] == [
        reason.partition(" be read")[0] for reason in report.unreadable
    ]
    assert report.alarms == 2, "a replay mends none of them"
    assert (report.waits_for, report.upgrade, world.auditor.waits_for()) == ([], "", None)


async def test_a_replay_names_the_items_that_are_no_batch_and_sends_the_others(world: World) -> None:
    sealed = await world.batch()
    world.registry.stored.append({"batch_id": {"S": "b"}, "state": {"S": "banana"}})
    report = await replay(world.ports, world.settings, EVERY)
    assert [done.batch_id for done in report.replayed] == [sealed.item.batch_id]
    assert [reason.partition(" cannot")[0] for reason in report.unreadable] == ["registry item b"]


def test_what_waits_for_coverage_counts_an_item_that_is_no_batch_as_not_covered() -> None:
    waited = Uncovered([], ["registry item b cannot be read"]).result(0)
    assert (waited.is_covered, waited.unreadable) == (False, 1)
    assert waited.named == {"unreadable": ["registry item b cannot be read"]}


async def test_ready_says_what_to_upgrade_and_the_rounds_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_member("audit", tmp_path, monkeypatch, partitions=2, audit_interval_s=0.001, audit_grace_s=0):
        audit: Any = Audit(monkeypatch)
        item = await audit.batch()
        audit.registry.stored.append(encode_item(item) | {"version": {"N": "2"}})
        await audit.assign(TURNS, 0)
        await until(lambda: audit.crashes or "upgrade the audit first" in (audit.app.readiness() or ""))
        await audit.goes_round()
        assert audit.crashes == []
        await audit.revoke()
        assert audit.app.readiness() is None
