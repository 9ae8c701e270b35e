"""The bridge's worker and pumps as they run, over the stream's twin: no Faust, no Kafka."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agents.bridge.bridge import BridgeWorker, Share
from agents.bridge.shard_reader import BlockScope, ReaderPorts
from app.clock import SystemClock
from app.core.bridge.shards import ShardBook
from app.core.formats.block import (
    BlockHeader,
    End,
    WatermarkMessage,
    decode_control,
    decode_refused,
    encode_block,
    encode_control,
    is_control,
)
from app.core.formats.checkpoint import Checkpoint, home_of
from app.errors import EpochMismatch, IteratorExpired, OutcomeUnknown, ServiceUnavailable, WrongPartitionCount
from app.testing.memory.kinesis import MemoryBlockStream
from tests.worlds.waiting import until

FIRST = "shardId-000000000000"
HOMES = 2


def block(number: int, *, partition: int = 0, epoch: int = 1) -> bytes:
    return encode_block(BlockHeader(epoch, str(uuid.UUID(int=number)), 0, 1, 0, 1, partition, 0, 1000), b"frame %d" % number)


class Bridge:
    """A worker over a stream of one shard and two partitions; what it sent, and a way to wait for it."""

    def __init__(self, stream: MemoryBlockStream | None = None, known: tuple[Checkpoint, ...] = ()) -> None:
        self.stream = stream or MemoryBlockStream(shards=1)
        self.sent: list[tuple[int, bytes]] = []
        self.recorded: list[tuple[int, Checkpoint]] = []
        self.broker_answers = asyncio.Event()
        self.broker_answers.set()
        book = ShardBook(range(HOMES), HOMES, slack_ms=0)
        for checkpoint in known:
            book.learn(checkpoint)
        share = Share(BlockScope(epoch=1, partitions=2), HOMES, tick_interval_s=0.02)
        self.worker = BridgeWorker(share, book, ReaderPorts(self.stream, self.append, self.record, SystemClock()))

    async def append(self, partition: int, value: bytes) -> Awaitable[Any]:
        self.sent.append((partition, value))
        return asyncio.ensure_future(self.broker_answers.wait())

    async def record(self, home: int, checkpoint: Checkpoint) -> None:
        self.recorded.append((home, checkpoint))

    def blocks(self) -> list[tuple[int, bytes]]:
        return [(partition, value) for partition, value in self.sent if not is_control(value)]

    def controls(self, partition: int = 0) -> list[WatermarkMessage | End]:
        return [decode_control(value) for at, value in self.sent if at == partition and is_control(value)]

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Bridge"]:
        task = asyncio.ensure_future(self.worker.run())
        try:
            yield self
        finally:
            self.worker.stop()
            await task


async def test_records_reach_the_partition_that_their_envelope_names_byte_for_byte() -> None:
    sent = [block(1), block(2, partition=1), block(3)]
    async with Bridge().running() as bridge:
        await bridge.stream.put(sent)
        await bridge.until(lambda: len(bridge.blocks()) == 3)
    assert bridge.blocks() == [(0, sent[0]), (1, sent[1]), (0, sent[2])]


async def test_a_checkpoint_follows_the_brokers_answer_and_stop_leaves_the_last_one() -> None:
    bridge = Bridge()
    async with bridge.running():
        await bridge.until(lambda: len(bridge.controls()) > 1)
        bridge.broker_answers.clear()
        await bridge.stream.put([block(1), block(2)])
        await bridge.until(lambda: len(bridge.blocks()) == 2)
        assert {checkpoint.sequence for _, checkpoint in bridge.recorded} == {None}
        bridge.broker_answers.set()
    assert bridge.recorded[-1] == (home_of(FIRST, HOMES), bridge.recorded[-1][1])
    assert bridge.recorded[-1][1].sequence == "2"


async def test_a_new_owner_goes_on_behind_the_checkpoint() -> None:
    stream = MemoryBlockStream(shards=1)
    await stream.put([block(1), block(2), block(3)])
    async with Bridge(stream, (Checkpoint(FIRST, "2", 5),)).running() as bridge:
        await bridge.until(bridge.blocks)
    assert [value for _, value in bridge.blocks()] == [block(3)]


async def test_ticks_go_to_every_partition_and_their_marks_follow_the_clock_of_an_idle_shard() -> None:
    def mark() -> int:
        ticks = [control for control in bridge.controls(1) if isinstance(control, WatermarkMessage)]
        return max((tick.watermarks.get(FIRST, 0) for tick in ticks), default=0)

    async with Bridge().running() as bridge:
        await bridge.until(mark)
        first = mark()
        await bridge.until(lambda: mark() > first)
    assert first <= mark() <= SystemClock().now_ms()
    assert abs(len(bridge.controls(0)) - len(bridge.controls(1))) <= 1


async def test_a_split_shard_is_ended_everywhere_then_finished_everywhere_then_its_children_run() -> None:
    events: list[str] = []
    bridge = Bridge()
    append, record = bridge.append, bridge.record

    async def logged_append(partition: int, value: bytes) -> Awaitable[Any]:
        if is_control(value) and isinstance(decode_control(value), End):
            events.append(f"end in {partition}")
        elif not is_control(value):
            events.append("block")
        return await append(partition, value)

    async def logged_record(home: int, checkpoint: Checkpoint) -> None:
        if checkpoint.finished:
            events.append("home" if home == home_of(checkpoint.shard, HOMES) else "other home")
            assert checkpoint.announced == (events[-1] == "home"), "others hear a rumour until its home has it"
        await record(home, checkpoint)

    outside = ReaderPorts(bridge.stream, logged_append, logged_record, SystemClock())
    bridge.worker = BridgeWorker(Share(BlockScope(1, 2), HOMES, 0.02), bridge.worker.book, outside)
    await bridge.stream.put([block(1)])
    bridge.stream.split(FIRST)
    await bridge.stream.put([block(2), block(3)])
    async with bridge.running():
        await bridge.until(lambda: len(bridge.blocks()) == 3)
    assert events == ["block", "end in 0", "end in 1", "other home", "home", "block", "block"]
    children_listed = next(
        n for n, c in enumerate(bridge.controls()) if isinstance(c, WatermarkMessage) and len(c.open_shards) == 3
    )
    assert children_listed < bridge.controls().index(End(FIRST))


async def test_an_empty_answer_on_its_way_while_the_shard_fills_and_closes_is_not_its_end() -> None:
    """The list may show the shard closed before the answer arrives; what counts is what was known when it was asked."""
    bridge = Bridge()

    async def fill_and_close(call: str, _: str) -> None:
        if call == "records":
            bridge.stream.after = None
            await bridge.stream.put([block(1), block(2)])
            bridge.stream.split(FIRST)
            await bridge.until(lambda: bridge.worker.book.known_closed(FIRST))

    bridge.stream.after = fill_and_close
    async with bridge.running():
        await bridge.until(lambda: len(bridge.blocks()) == 2)
    assert [value for _, value in bridge.blocks()] == [block(1), block(2)]


async def test_a_shard_that_kinesis_forgot_is_ended() -> None:
    stream = MemoryBlockStream(shards=1)
    stream.split(FIRST)
    stream.forget(FIRST)
    async with Bridge(stream, (Checkpoint(FIRST, "7"),)).running() as bridge:
        await bridge.until(lambda: End(FIRST) in bridge.controls(1))
        await bridge.until(lambda: bridge.worker.book.reading() == ["shardId-000000000001", "shardId-000000000002"])


@pytest.mark.parametrize("failure", [ServiceUnavailable("throttled"), OutcomeUnknown("gone"), IteratorExpired("old")])
@pytest.mark.parametrize("call", ["records", "iterator", "shards"])
async def test_kinesis_may_fail_now_and_then(failure: Exception, call: str) -> None:
    failures = iter([failure])

    async def fail(name: str, _: str) -> None:
        if name == call and (exc := next(failures, None)) is not None:
            raise exc

    stream = MemoryBlockStream(shards=1)
    stream.before = fail
    async with Bridge(stream).running() as bridge:
        await stream.put([block(1)])
        await bridge.until(bridge.blocks)
    assert [value for _, value in bridge.blocks()] == [block(1)]


async def test_a_block_of_an_earlier_epoch_is_passed_over() -> None:
    async with Bridge().running() as bridge:
        await bridge.stream.put([block(1), block(7, epoch=0), block(2)])
        await bridge.until(lambda: len(bridge.blocks()) == 2)
    assert [value for _, value in bridge.blocks()] == [block(1), block(2)]
    assert bridge.recorded[-1][1].sequence == "3"


@pytest.mark.parametrize("junk", [b"", b"hello", block(7)[:40], b"\x81" + block(7), encode_control(End("shard"))], ids=repr)
async def test_a_record_that_is_no_block_goes_on_as_a_refused_record(junk: bytes) -> None:
    """It is kept, and no reader takes it for a control message, which would move stream time."""
    async with Bridge().running() as bridge:
        await bridge.stream.put([block(1), junk, block(2)])
        await bridge.until(lambda: len(bridge.blocks()) == 3)
    refused = [value for _, value in bridge.blocks() if value not in (block(1), block(2))]
    found = decode_refused(refused[0])
    assert found is not None
    assert (found.shard, found.sequence) == (FIRST, "2")
    assert refused[0].endswith(b"\n" + junk)
    assert bridge.recorded[-1][1].sequence == "3"


@pytest.mark.parametrize(
    ("refused", "error"), [(block(2, epoch=2), EpochMismatch), (block(2, partition=2), WrongPartitionCount)]
)
async def test_a_block_of_another_cluster_ends_the_worker_before_it_is_checkpointed(
    refused: bytes, error: type[Exception]
) -> None:
    bridge = Bridge()
    await bridge.stream.put([block(1), refused])
    with pytest.raises(error):
        await bridge.worker.run()
    assert {checkpoint.sequence for _, checkpoint in bridge.recorded} == {None}


async def test_a_broker_that_refuses_ends_the_worker() -> None:
    bridge = Bridge()

    async def refuse(_: int, value: bytes) -> Awaitable[Any]:
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(TimeoutError("no answer") if not is_control(value) else TimeoutError("no tick"))
        return answer

    bridge.worker = BridgeWorker(
        Share(BlockScope(1, 2), HOMES, 0.02),
        bridge.worker.book,
        ReaderPorts(bridge.stream, refuse, bridge.record, SystemClock()),
    )
    with pytest.raises(TimeoutError):
        await bridge.worker.run()


async def test_readiness_waits_for_the_first_tick() -> None:
    bridge = Bridge()
    assert bridge.worker.waiting_for() == "the list of shards"
    async with bridge.running():
        await bridge.until(lambda: len(bridge.controls(1)) > 1)
        assert bridge.worker.waiting_for() is None
