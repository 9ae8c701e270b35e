"""The loop of one ETL partition: order of effects, held ticks, steps that fail (rules E1 to E6)."""

from collections.abc import Sequence

import polars as pl
import pytest
from prometheus_client import REGISTRY

from agents.etl.partition import COMPANY_S, HOLD_S, SMALL_BYTES, WAITING_BYTES, WAITING_LIMIT
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import NO_PREDECESSOR, decode_step
from app.errors import DeadLettersExceeded, EpochMismatch, StepConflict
from app.shell.runners import QUEUE_BYTES
from tests.worlds.etl_partition import TICK, Partition
from tests.worlds.waiting import LoopTime


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


async def test_ticks_of_as_many_bytes_as_fit_are_not_held(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.etl.partition.WAITING_BYTES", 2 * len(TICK))
    running = await partition.start()
    await partition.put([0, 1], TICK)
    await partition.until(lambda: partition.source.acked == [0, 1])
    partition.source.inbox.close()
    await running


async def test_small_messages_that_follow_hard_on_a_step_share_the_next(partition: Partition, loop_time: LoopTime) -> None:
    running = await partition.start()
    await partition.put([0])
    await partition.until(lambda: partition.source.acked == [0])
    await partition.put([1])
    await partition.settle()
    await partition.put([2])
    loop_time.pass_s(COMPANY_S)
    await partition.until(lambda: partition.source.acked == [0, 1, 2])
    partition.source.clock.now_s += 2 * COMPANY_S
    await partition.put([3])
    await partition.settle()
    assert partition.journal.ranges() == [(0, 0), (1, 2), (3, 3)]
    partition.source.inbox.close()
    await running


@pytest.mark.parametrize(("size", "steps"), [(SMALL_BYTES - 1, [(0, 0)]), (SMALL_BYTES, [(0, 0), (1, 1)])])
async def test_a_large_message_waits_for_no_company(
    partition: Partition, loop_time: LoopTime, size: int, steps: list[tuple[int, int]]
) -> None:
    running = await partition.start()
    await partition.put([0])
    await partition.until(lambda: partition.source.acked == [0])
    await partition.put([1], bytes(size))
    await partition.settle()
    assert partition.journal.ranges() == steps
    loop_time.pass_s(COMPANY_S)
    await partition.until(lambda: partition.source.acked == [0, 1])
    partition.source.inbox.close()
    await running


async def test_no_more_is_taken_in_hand_than_memory_allows(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    def take(waiting: Sequence[SourceMessage]) -> int:  # slower than they come
        nonlocal most
        most = max(most, sum(len(message.value) for message in waiting))
        return min(1, len(waiting))

    monkeypatch.setattr(partition.core, "take", take)
    running = await partition.start()
    await partition.put(range(40), bytes(WAITING_BYTES // 4))
    await partition.until(lambda: len(partition.source.acked) == 40)
    assert WAITING_BYTES <= most < WAITING_BYTES + QUEUE_BYTES
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
    def announced() -> float | None:
        return REGISTRY.get_sample_value("instream_etl_stream_time_seconds", {"partition": "0"})

    await partition.put([0])
    running = await partition.start()
    await partition.until(lambda: partition.source.acked == [0])
    assert announced() == 0
    partition.source.inbox.close()
    await running
    assert announced() is None


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
    assert partition.journal.accepted == Accepted(1, 0)
