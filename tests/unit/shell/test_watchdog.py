"""The watchdog: what stands still ends the worker, what moves or has nothing to do never does."""

from collections.abc import Hashable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import REGISTRY

from app.errors import ServiceUnavailable, WorkerStalled
from app.shell.watchdog import REBALANCE_S, Watchdog

TIMEOUT_S = 120.0
RECOVERY_S = TIMEOUT_S + REBALANCE_S
ONE, TWO = TP("watched", 1), TP("watched", 2)


class World:
    """What the watchdog asks of the app around it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ports = SimpleNamespace(clock=self)
        self.group = "instream-role-e1"
        self.in_worker = False
        self.positions: dict[TP, int] = {}
        self.ends: dict[TP, int] = {}
        self.acks: dict[TP, int] = {}
        self.prompt: set[TP] = set()
        self.firsts: dict[TP, int] = {}
        self.broker_has: dict[TP, int] = {}
        self.thread_answers = True
        self.thread_ended = False
        self.recovering: Hashable | None = None
        self.broker_answers = True
        self.crashes: list[BaseException] = []
        self.watchdog = Watchdog(self, TIMEOUT_S)
        self.watchdog.watch(lambda: self.positions)
        self.watchdog.watch_commits(lambda: self.prompt)

    def monotonic_s(self) -> float:
        return self.now_s

    def recovery_progress(self) -> Hashable | None:
        return self.recovering

    def readiness(self) -> str:
        return "rebalance"

    async def logs(self) -> "World":
        return self

    def acknowledged(self) -> dict[TP, int]:
        return self.acks

    def ask_consumer(self) -> "Future[None]":
        if self.thread_ended:
            raise RuntimeError("Event loop is closed")
        answer: Future[None] = Future()
        if self.thread_answers:
            answer.set_result(None)
        return answer

    async def end_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return self._of(self.ends, topic, partitions)

    async def first_offsets(self, topic: str, partitions: list[int]) -> dict[int, int]:
        return self._of({**dict.fromkeys(self.ends, 0), **self.firsts}, topic, partitions)

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        assert group == self.group
        return {(tp.topic, tp.partition): offset for tp, offset in self.broker_has.items()}

    def _of(self, offsets: dict[TP, int], topic: str, partitions: list[int]) -> dict[int, int]:
        if not self.broker_answers:
            raise ServiceUnavailable("no broker")
        return {partition: offsets[TP(topic, partition)] for partition in partitions}

    async def crash(self, exc: BaseException) -> None:
        self.crashes.append(exc)

    async def look(self, after_s: float = 0, **changes: Any) -> None:
        self.now_s += after_s
        for name, value in changes.items():
            setattr(self, name, value)
        await self.watchdog.look()


@pytest.fixture
def world() -> World:
    return World()


def lag(tp: TP) -> float | None:
    return REGISTRY.get_sample_value("instream_lag_messages", {"topic": tp.topic, "partition": str(tp.partition)})


async def test_a_position_that_stands_before_waiting_messages_ends_the_worker(world: World) -> None:
    await world.look(positions={ONE: 5, TWO: 7}, ends={ONE: 9, TWO: 7})
    await world.look(TIMEOUT_S - 1)
    assert world.crashes == []
    await world.look(1)
    [crash] = world.crashes
    assert isinstance(crash, WorkerStalled)
    assert "watched[1] stands at 5 with 4 waiting for 120 s" in str(crash)


async def test_a_position_that_moves_is_not_stalled(world: World) -> None:
    for position in range(5):
        await world.look(TIMEOUT_S - 1, positions={ONE: position}, ends={ONE: 100})
    assert world.crashes == []


async def test_nothing_to_do_is_not_stalled_however_long(world: World) -> None:
    await world.look(positions={ONE: 9}, ends={ONE: 9})
    await world.look(10 * TIMEOUT_S)
    await world.look(10, ends={ONE: 10})
    await world.look(TIMEOUT_S - 11)
    assert world.crashes == []  # its time began when a look last found nothing waiting
    await world.look(1)
    assert len(world.crashes) == 1


async def test_a_broker_that_does_not_answer_is_no_stall_of_ours(world: World) -> None:
    await world.look(positions={ONE: 5}, ends={ONE: 9})
    await world.look(TIMEOUT_S + 1, broker_answers=False)
    assert world.crashes == []
    await world.look(1, broker_answers=True)
    await world.look(TIMEOUT_S - 1)
    assert world.crashes == [], "its time begins when the broker is back"
    await world.look(1)
    assert len(world.crashes) == 1


async def test_lag_is_told_while_the_partition_is_owned_and_not_longer(world: World) -> None:
    await world.look(positions={ONE: 5, TWO: 7}, ends={ONE: 9, TWO: 7})
    assert (lag(ONE), lag(TWO)) == (4, 0)
    await world.look(positions={TWO: 7})
    assert (lag(ONE), lag(TWO)) == (None, 0)
    await world.look(positions={})
    assert lag(TWO) is None


async def test_a_recovery_without_progress_ends_the_worker(world: World) -> None:
    await world.look(recovering=(3, (("rows", 10),)))
    await world.look(RECOVERY_S - 1)
    await world.look(1, recovering=(3, (("rows", 11),)))
    await world.look(RECOVERY_S - 1)
    assert world.crashes == []
    await world.look(1)
    [crash] = world.crashes
    assert isinstance(crash, WorkerStalled)
    assert "rebalance without progress for 180 s" in str(crash)


async def test_two_short_recoveries_are_not_one_long(world: World) -> None:
    await world.look(recovering=(3, ()))
    await world.look(RECOVERY_S - 1, recovering=None)
    await world.look(1, recovering=(3, ()))
    await world.look(RECOVERY_S - 1)
    assert world.crashes == []


async def test_a_long_recovery_is_not_held_against_the_position_that_it_comes_back_to(world: World) -> None:
    await world.look(positions={ONE: 5}, ends={ONE: 9})
    await world.look(10, recovering=(4, (("rows", 1),)), positions={})
    await world.look(TIMEOUT_S, recovering=(4, (("rows", 2),)))
    await world.look(1, recovering=None, positions={ONE: 5})
    assert world.crashes == []


# --- what is acknowledged must reach the broker


async def test_acknowledgements_that_the_broker_does_not_hear_of_end_the_worker_although_its_position_moves(
    world: World,
) -> None:
    for second in range(0, 120, 10):
        at = 10 + second
        await world.look(10, positions={ONE: at}, ends={ONE: 1000}, acks={ONE: at}, broker_has={ONE: 9})
        assert world.crashes == []
    await world.look(10, positions={ONE: 990}, acks={ONE: 990})
    [crash] = world.crashes
    assert "watched[1] is committed up to 9 and not to 990 for 120 s" in str(crash)


async def test_commits_that_follow_slowly_are_not_stalled(world: World) -> None:
    for n in range(5):
        await world.look(TIMEOUT_S - 1, acks={ONE: 100}, broker_has={ONE: 10 + n})
    assert world.crashes == []


async def test_what_a_role_holds_back_on_purpose_need_not_be_committed(world: World) -> None:
    await world.look(positions={ONE: 50}, ends={ONE: 50}, acks={ONE: 10}, broker_has={ONE: 10})
    await world.look(10 * TIMEOUT_S)
    assert world.crashes == []


async def test_a_group_that_never_committed_is_stalled_as_well(world: World) -> None:
    await world.look(acks={ONE: 3})
    await world.look(TIMEOUT_S)
    assert "is committed up to 0 and not to 3" in str(world.crashes[0])


async def test_partitions_that_went_are_not_held_against_their_next_owner(world: World) -> None:
    await world.look(acks={ONE: 3}, broker_has={ONE: 1})
    await world.look(TIMEOUT_S - 1, acks={})
    await world.look(1, acks={ONE: 3})
    await world.look(TIMEOUT_S - 1)
    assert world.crashes == []


async def test_messages_that_wait_where_everything_is_acknowledged_at_once_end_the_worker(world: World) -> None:
    await world.look(prompt={ONE, TWO}, ends={ONE: 7, TWO: 7}, broker_has={ONE: 7, TWO: 5})
    await world.look(TIMEOUT_S - 1)
    assert world.crashes == []
    await world.look(1)
    assert "watched[2] is committed up to 5 and not to 7" in str(world.crashes[0])


async def test_an_empty_log_without_a_commit_is_nothing_to_do(world: World) -> None:
    await world.look(prompt={ONE}, firsts={ONE: 40}, ends={ONE: 40})
    await world.look(10 * TIMEOUT_S)
    assert world.crashes == []


# --- threads


async def test_a_consumers_thread_that_does_not_answer_ends_the_worker_whatever_else_it_does(world: World) -> None:
    await world.look(thread_answers=False)
    await world.look(TIMEOUT_S - 1, recovering=(1, ()))
    assert world.crashes == []
    await world.look(1)
    assert "the consumer's thread has not answered for 120 s" in str(world.crashes[0])


async def test_a_consumers_thread_that_answers_is_asked_again(world: World) -> None:
    for _ in range(5):
        await world.look(TIMEOUT_S)
    assert world.crashes == []
    await world.look(1, thread_ended=True)
    assert "the consumer's thread has ended" in str(world.crashes[0])
