"""The loop of one ETL partition: order of effects, held ticks, steps that fail (rules E1 to E6)."""

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from agents.etl.partition import COMPANY_S, HOLD_S, SMALL_BYTES, WAITING_BYTES, WAITING_LIMIT
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import NO_PREDECESSOR, decode_step
from app.errors import NewerFormat
from app.shell.inbox import QUEUE_BYTES
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


async def test_what_comes_before_a_newer_message_is_stepped_and_it_is_named(partition: Partition) -> None:
    """Whatever message or line of a group it is: no step has it, none is careful, and nothing is acknowledged from it on."""

    def fail(_: bool) -> None:
        if newer in partition.core.asked[-1][0]:
            raise NewerFormat("block of version 2, this reader knows versions up to 1")

    newer = 7
    partition.core.fails = fail
    await partition.put(range(12))
    with pytest.raises(NewerFormat, match=r"^blocks-e1\[0\]@7: block of version 2"):
        await (await partition.start())
    assert partition.journal.ranges()[-1][1] == newer - 1
    assert not any(careful for *_, careful in partition.core.asked)
    assert max(partition.source.acked) == newer - 1


async def test_a_newer_state_is_no_messages_fault(partition: Partition) -> None:
    def fail(_: bool) -> None:
        raise NewerFormat("frame in table pending with column 'later'")

    partition.core.started, partition.core.more, partition.core.fails = True, 1, fail
    with pytest.raises(NewerFormat, match=r"^state of blocks-e1\[0\]: frame in table pending"):
        await (await partition.start())
    assert partition.journal.log == []


async def test_a_message_without_a_value_is_taken_for_one_that_cannot_be_read(partition: Partition) -> None:
    running = await partition.start()
    await partition.source.inbox.put(partition.source.event(0, None))  # type: ignore[arg-type]
    await partition.until(lambda: partition.source.acked == [0])
    partition.source.inbox.close()
    await running
