"""The sink's Faust agent: messages put into it end as finished transactions, and are acknowledged only then (S1, S3, S5)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from app.core.sink.chain import ChainId
from app.shell.foreign import FOREIGN
from tests.worlds.agent import Member, new_member
from tests.worlds.sink import World
from tests.worlds.waiting import until

ROWS, MANIFESTS, P = "rows-e1", "manifests-e1", 1


class Sink(Member):
    """A sink over a log and a bucket in memory."""

    def __init__(self) -> None:
        super().__init__("sink")
        self.log = World(ChainId(1, P))
        self.app.ports.objects = self.log.store
        self.producer.logs.messages[ROWS, P] = self.log.messages
        self.module.POLL_S = 0.01

    def commit_behind(self, size: int) -> None:
        self.app.settings = self.app.settings.model_copy(update={"commit_bytes": size})

    async def put(self, agent: Any, first: int = 0) -> list[Any]:
        """Hand the agent the log from `first` on, as the consumer does."""
        agent.sent_offset = first
        return [await agent.put(value, partition=P, wait=False) for value in self.log.messages[first:]]

    def ready(self) -> list[bytes]:
        return [self.log.body(key) for key in self.log.keys("manifests/") if key.endswith("ready.json")]


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    with new_member("sink", tmp_path, monkeypatch, partitions=2, commit_bytes=1):
        yield Sink()


async def test_messages_end_as_announced_transactions_and_are_acknowledged(sink: Sink) -> None:
    sink.log.emit(page_views=2)
    sink.log.zombie()
    sink.log.emit(ad_clicks=1, redirects=1, replays=1)
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        events = await sink.put(agent)
        await until(lambda: sink.crashes or all(event.message.acked for event in events))
        await sink.revoke()
    assert not sink.crashes
    sink.log.check_complete()
    assert sink.producer.sent(MANIFESTS, P) == sink.ready() != []


async def test_nothing_is_acknowledged_before_its_transaction_is_ready_and_announced(sink: Sink) -> None:
    sink.log.emit(page_views=1)
    seen: list[tuple[str, bool]] = []
    events: list[Any] = []

    async def note(call: str, key: str) -> None:
        seen.append((f"{call} {key}", events[0].message.acked if events else False))

    sink.log.store.after = note
    sink.producer.silent = {MANIFESTS}
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        events += await sink.put(agent)
        await until(lambda: sink.producer.sent(MANIFESTS, P))
        assert sink.ready() == sink.producer.sent(MANIFESTS, P)
        assert not events[0].message.acked
        sink.producer.answer()
        await until(lambda: events[0].message.acked)
        await sink.revoke()
    changes = [(what, acked) for what, acked in seen if what.startswith(("put", "copy", "delete"))]
    assert any("ready.json" in what for what, _ in changes)
    assert not [what for what, acked in changes if acked], "acknowledged before the transaction was done with"


async def test_what_is_open_on_revoke_is_dropped_and_comes_again_to_the_next_owner(sink: Sink) -> None:
    sink.log.emit(page_views=1)
    sink.log.emit(page_views=1)
    sink.commit_behind(1 << 30)
    sink.app.ports.clock, sink.module.POLL_S = sink.log.clock, 60
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        before = await sink.put(agent)
        await until(lambda: sink.module.runners.positions() == {TP(ROWS, P): 2})
        sink.log.clock.pass_s(11)  # it is due, and the revoke comes first
        await sink.revoke()
        assert sink.log.records() == []
        assert sink.module.runners.positions() == {}
        sink.commit_behind(1)
        await sink.assign(ROWS, P)
        assert not [event for event in before if event.message.acked]
        await until(lambda: len(sink.seeks) == 2)
        assert sink.seeks == [(TP(ROWS, P), 0)] * 2, "the next owner reads from the chain's end"
        again = await sink.put(agent)
        await until(lambda: all(event.message.acked for event in again))
        await sink.revoke()
    sink.log.check_complete()


async def test_messages_of_a_rebalance_are_neither_taken_nor_acknowledged(sink: Sink) -> None:
    sink.log.emit(page_views=1)
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        sink.app.rebalancing = True
        late = await sink.put(agent)
        await until(lambda: agent.processed_offset == 1)
        sink.app.rebalancing = False
        await sink.put(agent)
        await until(lambda: sink.producer.sent(MANIFESTS, P))
        await sink.revoke()
    assert not late[0].message.acked


async def test_a_message_that_is_no_step_is_passed_over_and_counted(sink: Sink) -> None:
    before = FOREIGN.labels("rows")._value.get()
    sink.log.messages.append(b"no step")
    sink.log.emit(page_views=1)
    async with sink.module.write_transactions.test_context() as agent:
        await sink.assign(ROWS, P)
        events = await sink.put(agent)
        await until(lambda: all(event.message.acked for event in events))
        await sink.revoke()
    assert sink.crashes == []
    assert FOREIGN.labels("rows")._value.get() == before + 1
    sink.log.check_complete()


async def test_the_owner_of_partition_0_alone_sweeps_and_a_sweep_that_fails_ends_the_app(sink: Sink) -> None:
    async def refuse(call: str, subject: str) -> None:
        if (call, subject) == ("list", "jobdata/"):
            raise RuntimeError("sweep")

    sink.log.store.before = refuse
    await sink.assign(ROWS, P)
    await until(lambda: sink.seeks)
    await sink.revoke()
    assert not sink.crashes
    await sink.assign(ROWS, 0)
    await until(lambda: sink.crashes)
    await sink.revoke()
    assert [str(exc) for exc in sink.crashes] == ["sweep"]
