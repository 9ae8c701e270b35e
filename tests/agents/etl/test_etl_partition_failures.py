"""Failed steps of an ETL partition, and dead letters: what is tried again, and what ends the work."""

import polars as pl
import pytest

from app.errors import DeadLettersExceeded, EpochMismatch, StepConflict
from tests.worlds.etl_partition import Partition


@pytest.fixture
def partition() -> Partition:
    return Partition()


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
