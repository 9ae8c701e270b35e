"""The audit's Faust agent: who owns partition 0 goes round by round, nobody else does, and nothing fails unseen (A1)."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroaring import BitMap

from app.core.audit.reconcile import LedgerLines
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.registry_item import BatchState, RegistryItem
from app.core.formats.stored_line import StoredLine
from app.errors import ServiceUnavailable
from app.testing.memory import MemoryBlockStream, MemoryLoadedLedger, MemoryObjectStore, MemoryRegistry
from tests.worlds.agent import Member, new_member
from tests.worlds.waiting import until

TURNS = "audit-e1"
LOOPS = 2
"""Loops with a connection to the warehouse: the rounds, and the certificates."""


class Ledger(MemoryLoadedLedger):
    """The warehouse; whether a round's connection to it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class Audit(Member):
    """An auditor's process over registry, bucket, stream and warehouse in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("audit")
        self.registry = MemoryRegistry()
        self.ledger = Ledger()
        self.rounds = 0
        self.app.ports.objects, self.app.ports.registry = MemoryObjectStore(), self.registry
        self.app.ports.blocks = MemoryBlockStream()
        monkeypatch.setattr("agents.audit.ports.WarehouseLedger", lambda *_: self.ledger)
        self.registry.before = self._count

    async def _count(self, call: str, _: str) -> None:
        self.rounds += call == "open_batches"

    async def batch(self) -> RegistryItem:
        """A batch received long ago, all of it in the warehouse."""
        lines = [StoredLine(b'{"n":%d}' % n, b"k%d" % n, True, None, 1_000) for n in range(3)]
        item = seal(new_batch_id(1_000 + len(self.registry._items), bytes(10)), 1, 2, lines).item
        self.ledger.add_entry(
            item.batch_id, LedgerLines("page_views", 3, base64.b64encode(BitMap(range(3)).serialize()).decode())
        )
        await self.registry.register(item)
        return item

    async def goes_round(self) -> None:
        """Return after two more rounds have begun: one of them is whole."""
        wanted = self.rounds + 2
        await until(lambda: self.crashes or self.rounds >= wanted)

    def state(self, item: RegistryItem) -> BatchState:
        return self.registry._items[item.batch_id].state


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audit]:
    with new_member("audit", tmp_path, monkeypatch, partitions=2, audit_interval_s=0.005):
        yield Audit(monkeypatch)


async def test_the_owner_of_partition_0_judges_round_after_round(audit: Audit) -> None:
    batches = [await audit.batch()]
    await audit.assign(TURNS, 0)
    await audit.goes_round()
    batches.append(await audit.batch())
    await audit.goes_round()
    await audit.revoke()
    assert not audit.crashes
    assert [audit.state(batch) for batch in batches] == [BatchState.COMPLETE] * 2


@pytest.mark.parametrize(("topic", "partitions"), [(TURNS, ()), (TURNS, (1,)), ("rows-e1", (0,))])
async def test_a_spare_does_nothing_until_the_turn_is_its_own(audit: Audit, topic: str, partitions: tuple[int, ...]) -> None:
    batch = await audit.batch()
    await audit.assign(topic, *partitions)
    assert audit.module.rounds._task is None
    assert (audit.rounds, audit.state(batch)) == (0, BatchState.OPEN)
    await audit.assign(TURNS, 0)
    await audit.goes_round()
    await audit.revoke()
    assert audit.state(batch) is BatchState.COMPLETE


async def test_losing_the_partition_ends_the_rounds_and_closes_the_warehouse(audit: Audit) -> None:
    await audit.assign(TURNS, 0)
    await audit.goes_round()
    task = audit.module.rounds._task
    await audit.revoke()
    assert task.done()
    assert audit.ledger.closed == LOOPS
    assert not audit.crashes, "a lost turn is no failure"


async def test_a_partition_given_anew_is_audited_once(audit: Audit) -> None:
    await audit.assign(TURNS, 0)
    await audit.goes_round()
    first = audit.module.rounds._task
    await audit.assign(TURNS, 0)
    assert first.done()
    await audit.goes_round()
    await audit.revoke()
    assert audit.ledger.closed == 2 * LOOPS


@pytest.mark.parametrize(("failure", "ends"), [(RuntimeError("broken"), True), (ServiceUnavailable("away"), False)])
async def test_an_exception_ends_the_app_and_a_service_that_is_away_does_not(
    audit: Audit, failure: Exception, ends: bool
) -> None:
    async def fail(call: str, _: str) -> None:
        audit.rounds += call == "open_batches"
        raise failure

    audit.registry.before = fail
    await audit.assign(TURNS, 0)
    await audit.goes_round()
    await audit.revoke()
    assert set(audit.crashes) == ({failure} if ends else set())
    assert audit.ledger.closed == LOOPS


async def test_a_message_on_the_turns_is_acknowledged_and_moves_nothing(audit: Audit) -> None:
    async with audit.module.hold_the_turn.test_context() as agent:
        event = await agent.put(b"anything", partition=0)
        await until(lambda: event.message.acked)
    assert audit.rounds == 0
