"""The loop of one ETL partition: order of effects, held ticks, steps that fail (rules E1 to E6)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest
from inbox_world import Source, until
from prometheus_client import REGISTRY

from agents.etl_partition import COMPANY_S, HOLD_S, SMALL_BYTES, WAITING_LIMIT, EtlPartition
from app.core.counting import Counted
from app.core.step import SourceMessage, StepDecision
from app.core.step_message import NO_PREDECESSOR, StepMessage, decode_step
from app.errors import DeadLettersExceeded, EpochMismatch, StepConflict

TICK = b"tick"


class TinyCore:
    """Takes three messages a step; ticks alone do not press; says `more` as often as it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], int, int, bool]] = []
        self.advanced: list[int] = []
        self.fails: Callable[[bool], None] = lambda careful: None
        self.letters: list[bytes] = []
        self.more = 0
        self.started = False
        self.next_source = 0

    @property
    def leftover(self) -> bool:
        return self.started and self.more > 0

    def take(self, waiting: Sequence[SourceMessage]) -> int:
        if self.leftover:
            return 0
        return min(3, len(waiting)) if any(m.value != TICK for m in waiting) else len(waiting)

    def decide(
        self, messages: Sequence[SourceMessage], number: int, predecessor: int, *, careful: bool = False
    ) -> StepDecision:
        self.asked.append(([m.offset for m in messages], number, predecessor, careful))
        self.fails(careful)
        pressing = not messages or any(m.value != TICK for m in messages)
        return self._decision(number, predecessor, self.next_source + len(messages) - 1, pressing=pressing)

    def declare_gap(self, first_available: int, number: int, predecessor: int) -> StepDecision:
        return self._decision(number, predecessor, first_available - 1, pressing=True, alarms=["gap"])

    def advance(self, step: StepMessage) -> None:
        self.advanced.append(step.number)
        self.next_source = step.source_last + 1
        self.more -= self.leftover
        self.started = True

    def _decision(
        self, number: int, predecessor: int, last: int, *, pressing: bool, alarms: list[str] | None = None
    ) -> StepDecision:
        step = StepMessage(1, 0, number, predecessor, self.next_source, last, 0, b"", {}, {}, [], [], [], alarms or [])
        return StepDecision(message=step, pressing=pressing, more=self.more > 0, letters=self.letters)


class MemoryJournal:
    """Topic `rows` as a list, and a store that only counts."""

    def __init__(self, source: Source) -> None:
        self.log: list[bytes] = []
        self.trace: list[str] = []
        self.position = Counted()
        self.buried: list[bytes] = []
        self.refuses = self.dies_after_bury = False
        self._source = source

    def counted(self) -> Counted:
        return self.position

    async def bury(self, letters: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        self.buried += letters
        self.trace.append("bury")
        if self.dies_after_bury:
            raise RuntimeError("dies")

    async def append(self, message: bytes) -> int:
        await asyncio.sleep(0)
        assert self._source.acked == [] or max(self._source.acked) < decode_step(message).source_first
        self.log.append(message)
        self.trace.append("append")
        return len(self.log) - 1

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        if self.refuses:
            raise StepConflict("somebody else wrote")
        self.trace.append("commit")
        self.position = self.position.advance(offset)

    def ranges(self) -> list[tuple[int, int]]:
        return [(step.source_first, step.source_last) for step in map(decode_step, self.log)]


class Partition:
    """An `EtlPartition` at work on what a test puts into its source."""

    def __init__(self) -> None:
        self.source = Source()
        self.core = TinyCore()
        self.journal = MemoryJournal(self.source)
        self.etl = EtlPartition(self.core, self.source.inbox, self.journal, self.source.clock)

    async def start(self) -> "asyncio.Future[None]":
        await self.source.inbox.start_at(0)
        return asyncio.ensure_future(self.etl.run())

    async def put(self, offsets: Sequence[int], value: bytes = b"block") -> None:
        for offset in offsets:
            await self.source.inbox.put(self.source.event(offset, value))

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition)

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
def partition() -> Partition:
    return Partition()


async def test_steps_follow_each_other_and_acknowledge_when_durable(partition: Partition) -> None:
    await partition.put(range(7))
    running = await partition.start()
    await partition.until(lambda: len(partition.source.acked) == 7)
    assert partition.journal.ranges() == [(0, 2), (3, 5), (6, 6)]
    assert partition.journal.trace == ["append", "commit"] * 3
    assert partition.core.asked == [
        ([0, 1, 2], 1, NO_PREDECESSOR, False), ([3, 4, 5], 2, 0, False), ([6], 3, 1, False),
    ]  # fmt: skip
    assert partition.core.advanced == [1, 2, 3]
    partition.source.inbox.close()
    await running


async def test_more_makes_another_step_at_once_and_without_messages(partition: Partition) -> None:
    partition.core.more = 2
    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: len(partition.journal.log) == 3)
    assert [asked[0] for asked in partition.core.asked] == [[0], [], []]
    assert partition.journal.ranges() == [(0, 0), (1, 0), (1, 0)]
    assert partition.source.acked == [0]
    partition.source.inbox.close()
    await running


async def test_ticks_alone_are_held_until_time_is_up(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await partition.start()
    await partition.put([0], TICK)
    await partition.settle()
    partition.source.clock.now_s += HOLD_S - 0.1
    await partition.put([1], TICK)
    await partition.settle()
    assert partition.journal.log == []
    partition.source.clock.now_s += 0.2
    await partition.put([2], TICK)
    await partition.until(lambda: partition.source.acked == [0, 1, 2])
    assert partition.journal.ranges() == [(0, 2)]
    partition.source.inbox.close()
    await running


async def test_a_block_releases_the_ticks_that_are_held(partition: Partition) -> None:
    running = await partition.start()
    await partition.put([0], TICK)
    await partition.settle()
    await partition.put([1])
    await partition.until(lambda: partition.source.acked == [0, 1])
    assert partition.journal.ranges() == [(0, 1)]
    partition.source.inbox.close()
    await running


async def test_as_many_ticks_as_fit_are_not_held(partition: Partition) -> None:
    running = await partition.start()
    await partition.put(range(WAITING_LIMIT), TICK)
    await partition.until(lambda: len(partition.source.acked) == WAITING_LIMIT)
    partition.source.inbox.close()
    await running


async def test_small_messages_that_follow_hard_on_a_step_share_the_next(partition: Partition) -> None:
    running = await partition.start()
    await partition.put([0])
    await partition.until(lambda: partition.source.acked == [0])
    await partition.put([1])
    await partition.settle()
    await partition.put([2])
    await partition.until(lambda: partition.source.acked == [0, 1, 2])
    partition.source.clock.now_s += 2 * COMPANY_S
    await partition.put([3])
    await partition.settle()
    assert partition.journal.ranges() == [(0, 0), (1, 2), (3, 3)]
    partition.source.inbox.close()
    await running


@pytest.mark.parametrize("size", [SMALL_BYTES - 1, SMALL_BYTES])
async def test_a_large_message_waits_for_no_company(partition: Partition, size: int) -> None:
    running = await partition.start()
    await partition.put([0])
    await partition.until(lambda: partition.source.acked == [0])
    await partition.put([1], bytes(size))
    await partition.settle()
    assert partition.journal.ranges() == [(0, 0), (1, 1)][: 1 + (size == SMALL_BYTES)]
    await partition.until(lambda: partition.source.acked == [0, 1])
    partition.source.inbox.close()
    await running


async def test_a_step_that_fails_once_is_tried_again(partition: Partition) -> None:
    failures = iter([ValueError("once")])

    def fails(_: bool) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure

    partition.core.fails = fails
    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0])
    assert [asked[3] for asked in partition.core.asked] == [False, False]
    partition.source.inbox.close()
    await running


async def test_a_step_that_fails_twice_is_decided_line_by_line(partition: Partition) -> None:
    def fails(careful: bool) -> None:
        if not careful:
            raise ValueError("always")

    partition.core.fails = fails
    await partition.put([0, 1])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0, 1])
    assert [asked[3] for asked in partition.core.asked] == [False, False, True]
    partition.source.inbox.close()
    await running


async def test_dead_letters_are_at_their_topic_before_the_step_says_so(partition: Partition) -> None:
    partition.core.letters = [b"one", b"two"]
    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0])
    assert partition.journal.trace == ["bury", "append", "commit"]
    assert partition.journal.buried == [b"one", b"two"]
    partition.source.inbox.close()
    await running


async def test_who_dies_between_a_dead_letter_and_its_step_leaves_the_message_to_the_next(partition: Partition) -> None:
    partition.core.letters = [b"letter"]
    partition.journal.dies_after_bury = True
    await partition.put([0])
    with pytest.raises(RuntimeError, match="dies"):
        await (await partition.start())
    assert (partition.journal.log, partition.source.acked, partition.core.advanced) == ([], [], [])
    assert partition.journal.buried == [b"letter"]


async def test_too_many_dead_letters_are_not_tried_again(partition: Partition) -> None:
    def fails(_: bool) -> None:
        raise DeadLettersExceeded("4 of the last 7")

    partition.core.fails = fails
    await partition.put([0])
    with pytest.raises(DeadLettersExceeded):
        await (await partition.start())
    assert len(partition.core.asked) == 1
    assert (partition.journal.log, partition.source.acked) == ([], [])


async def test_a_panic_in_polars_is_a_failed_step_too(partition: Partition) -> None:
    def fails(careful: bool) -> None:
        if not careful:
            raise pl.exceptions.PanicException("index out of bounds")

    partition.core.fails = fails
    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0])
    assert [asked[3] for asked in partition.core.asked] == [False, False, True]
    partition.source.inbox.close()
    await running


async def test_running_out_of_memory_is_not_tried_again(partition: Partition) -> None:
    def fails(_: bool) -> None:
        raise MemoryError

    partition.core.fails = fails
    await partition.put([0])
    with pytest.raises(MemoryError):
        await (await partition.start())
    assert len(partition.core.asked) == 1


async def test_stream_time_is_told_by_the_owner_only(partition: Partition) -> None:
    def told() -> float | None:
        return REGISTRY.get_sample_value("instream_etl_stream_time_seconds", {"partition": "0"})

    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0])
    assert told() == 0
    partition.source.inbox.close()
    await running
    assert told() is None


async def test_what_fails_even_so_ends_the_work_unacknowledged(partition: Partition) -> None:
    def fails(_: bool) -> None:
        raise ValueError("always")

    partition.core.fails = fails
    await partition.put([0])
    with pytest.raises(ValueError, match="always"):
        await (await partition.start())
    assert (partition.journal.log, partition.source.acked) == ([], [])


async def test_a_broken_history_is_not_tried_again(partition: Partition) -> None:
    def fails(_: bool) -> None:
        raise EpochMismatch("block of epoch 2")

    partition.core.fails = fails
    await partition.put([0])
    with pytest.raises(EpochMismatch):
        await (await partition.start())
    assert len(partition.core.asked) == 1


async def test_a_conflict_ends_the_work_unacknowledged(partition: Partition) -> None:
    partition.journal.refuses = True
    await partition.put([0])
    with pytest.raises(StepConflict):
        await (await partition.start())
    assert (partition.core.advanced, partition.source.acked) == ([], [])


async def test_closing_lets_the_step_in_flight_finish_and_begins_no_other(partition: Partition) -> None:
    await partition.put(range(6))
    running = await partition.start()
    await partition.until(lambda: partition.core.asked)
    partition.source.inbox.close()
    await running
    assert partition.journal.trace == ["append", "commit"]
    assert partition.source.acked == [0, 1, 2]


async def test_a_declared_gap_is_a_step_of_its_own(partition: Partition) -> None:
    await partition.etl.declare_gap(10)
    assert partition.journal.ranges() == [(0, 9)]
    assert decode_step(partition.journal.log[0]).alarms == ["gap"]
    assert partition.journal.position == Counted(1, 0)
