"""The same suite over Kinesis (its stand-in) and the twin in memory."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest

from app.adapters.kinesis import (
    MAX_CALL_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    TOO_LARGE,
    KinesisBlockStream,
    calls_of,
    hash_key,
)
from app.adapters.ports import BlockStream, PutOutcome, StreamRecord
from app.clock import SystemClock
from app.core.formats.block import BlockHeader, encode_block
from app.errors import IteratorExpired, OutcomeUnknown, ServiceUnavailable
from app.local.stack.ports import own_port
from app.settings import Settings
from app.testing.memory import MemoryBlockStream

TAKEN = PutOutcome()


class Case(NamedTuple):
    stream: BlockStream
    split: Callable[[str], Any]
    merge: Callable[[str, str], Any]


@pytest.fixture(params=["memory", "kinesis"])
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    if request.param == "memory":
        twin = MemoryBlockStream(shards=2)
        yield Case(twin, twin.split, twin.merge)
        return
    real = KinesisBlockStream(request.getfixturevalue("aws_settings"))
    await real.ensure()
    await real.ensure()

    def split(shard_id: str) -> None:
        listed = real._client.list_shards(StreamName=real._stream)["Shards"]
        bounds = next(shard["HashKeyRange"] for shard in listed if shard["ShardId"] == shard_id)
        middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2 + 1
        real._client.split_shard(StreamName=real._stream, ShardToSplit=shard_id, NewStartingHashKey=str(middle))

    def merge(shard_id: str, adjacent_id: str) -> None:
        real._client.merge_shards(StreamName=real._stream, ShardToMerge=shard_id, AdjacentShardToMerge=adjacent_id)

    yield Case(real, split, merge)
    await real.close()


def block(number: int, size_bytes: int = 20) -> bytes:
    header = BlockHeader(1, str(uuid.UUID(int=number)), number % 7, 7, 0, 1, 0, 0, 1000)
    return encode_block(header, b"z" * size_bytes)


async def read(stream: BlockStream, shard_id: str, after: str | None = None, limit: int = 100) -> list[StreamRecord]:
    """All records of a shard up to its end or to where it stands."""
    iterator: str | None = await stream.iterator(shard_id, after)
    found: list[StreamRecord] = []
    while iterator is not None:
        page = await stream.records(iterator, limit)
        found += page.records
        if not page.records and page.behind_ms == 0:
            break
        iterator = page.next_iterator
    return found


async def test_every_block_is_in_one_shard_in_the_order_of_its_puts(case: Case) -> None:
    blocks = [block(n) for n in range(60)]
    before_ms = SystemClock().now_ms()
    for start in range(0, 60, 20):
        assert await case.stream.put(blocks[start : start + 20]) == [TAKEN] * 20
    shards = await case.stream.shards()
    assert [(shard.parents, shard.ending_sequence) for shard in shards] == [((), None)] * 2
    found = [await read(case.stream, shard.shard_id, limit=7) for shard in shards]
    assert sorted(r.data for records in found for r in records) == sorted(blocks)
    for records in found:
        assert len(records) >= 15, "blocks are spread over shards"
        order = [blocks.index(record.data) for record in records]
        assert order == sorted(order)
        sequences = [int(record.sequence) for record in records]
        assert sequences == sorted(set(sequences))
        assert all(before_ms - 5 <= record.arrival_ms <= SystemClock().now_ms() + 5 for record in records)


async def test_reading_resumes_behind_a_sequence_number(case: Case) -> None:
    await case.stream.put([block(n) for n in range(30)])
    shard_id = (await case.stream.shards())[0].shard_id
    records = await read(case.stream, shard_id)
    assert await read(case.stream, shard_id, after=records[3].sequence) == records[4:]
    assert await read(case.stream, shard_id, after=records[-1].sequence) == []


async def test_a_reader_at_the_end_waits_with_an_iterator(case: Case) -> None:
    shard_id = (await case.stream.shards())[0].shard_id
    page = await case.stream.records(await case.stream.iterator(shard_id, None), 10)
    assert (page.records, page.behind_ms) == ([], 0)
    assert page.next_iterator is not None
    blocks = [block(n) for n in range(10)]
    await case.stream.put(blocks)
    page = await case.stream.records(page.next_iterator, 1)
    assert len(page.records) == 1
    assert page.behind_ms > 0
    assert page.next_iterator is not None
    rest = await case.stream.records(page.next_iterator, 100)
    assert rest.behind_ms == 0
    assert {r.data for r in page.records + rest.records} <= set(blocks)


async def test_what_is_too_large_is_refused_alone(case: Case) -> None:
    outcomes = await case.stream.put([block(1), b"x" * MAX_RECORD_BYTES, block(2)])
    assert outcomes == [TAKEN, PutOutcome(TOO_LARGE), TAKEN]
    found = [record.data for shard in await case.stream.shards() for record in await read(case.stream, shard.shard_id)]
    assert sorted(found) == sorted([block(1), block(2)])
    assert await case.stream.put([]) == []


async def test_more_than_a_call_takes_is_split(case: Case) -> None:
    blocks = [block(n, size_bytes=700_000) for n in range(8)] + [block(n) for n in range(8, 520)]
    assert await case.stream.put(blocks) == [TAKEN] * len(blocks)
    found = [record.data for shard in await case.stream.shards() for record in await read(case.stream, shard.shard_id)]
    assert sorted(found) == sorted(blocks)


async def test_a_split_shard_ends_and_its_children_go_on(case: Case) -> None:
    stream = case.stream
    await stream.put([block(n) for n in range(40)])
    parent = (await stream.shards())[0].shard_id
    before = await read(stream, parent)
    case.split(parent)
    listed = {shard.shard_id: shard for shard in await stream.shards()}
    assert listed[parent].ending_sequence is not None
    assert int(listed[parent].ending_sequence) >= int(before[-1].sequence)
    children = [shard.shard_id for shard in listed.values() if shard.parents == (parent,)]
    assert len(children) == 2
    later = [block(n) for n in range(100, 140)]
    assert await stream.put(later) == [TAKEN] * 40
    assert await read(stream, parent) == before, "a closed shard takes no more and keeps what it has"
    page = await stream.records(await stream.iterator(parent, before[-1].sequence), 10)
    assert (page.records, page.next_iterator) == ([], None)
    open_shards = [shard.shard_id for shard in listed.values() if shard.ending_sequence is None]
    found = [record.data for shard_id in open_shards for record in await read(stream, shard_id)]
    assert sorted(set(found) & set(later)) == sorted(later)
    assert all([await read(stream, child) for child in children])


async def test_merged_shards_have_one_child(case: Case) -> None:
    one, other = (shard.shard_id for shard in await case.stream.shards())
    await case.stream.put([block(n) for n in range(10)])
    case.merge(one, other)
    child = (await case.stream.shards())[2]
    assert set(child.parents) == {one, other}
    later = [block(n) for n in range(20, 30)]
    await case.stream.put(later)
    assert [record.data for record in await read(case.stream, child.shard_id)] == later


async def test_a_shard_that_is_not_there(case: Case) -> None:
    with pytest.raises(ServiceUnavailable):
        await case.stream.iterator("shardId-000000000099", None)


async def test_concurrent_puts_lose_nothing(case: Case) -> None:
    blocks = [block(n) for n in range(200)]
    parts = [blocks[start : start + 10] for start in range(0, 200, 10)]
    outcomes = await asyncio.gather(*(case.stream.put(part) for part in parts))
    assert [outcome for part in outcomes for outcome in part] == [TAKEN] * 200
    found = [record.data for shard in await case.stream.shards() for record in await read(case.stream, shard.shard_id)]
    assert sorted(found) == sorted(blocks)


def test_calls_keep_the_limits_and_the_order() -> None:
    blocks = [b"x" * 1_000_000] * 9 + [b"y"] * 1203
    calls = list(calls_of(blocks))
    assert [index for call in calls for index in call] == list(range(len(blocks)))
    assert all(len(call) <= MAX_RECORDS for call in calls)
    assert all(sum(len(blocks[index]) for index in call) <= MAX_CALL_BYTES for call in calls)


def test_an_attempt_goes_where_the_block_went_before() -> None:
    first = BlockHeader(1, str(uuid.UUID(int=5)), 3, 7, 0, 1, 0, 0, 1000)
    again = BlockHeader(1, str(uuid.UUID(int=5)), 3, 7, 0, 1, 0, 4, 1000)
    assert hash_key(encode_block(first, b"z")) == hash_key(encode_block(again, b"z"))


async def test_a_put_that_reaches_nobody_is_an_outcome(aws_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = KinesisBlockStream(aws_settings)
    assert await missing.put([block(1)]) == [PutOutcome("ResourceNotFoundException")]
    await missing.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{own_port()}")
    stream = KinesisBlockStream(aws_settings)
    assert await stream.put([block(1), b"x" * MAX_RECORD_BYTES]) == [PutOutcome("ServiceUnavailable"), PutOutcome(TOO_LARGE)]
    with pytest.raises(ServiceUnavailable):
        await stream.shards()
    await stream.close()


async def test_the_twin_takes_its_time_from_its_clock(clock: Any) -> None:
    stream = MemoryBlockStream(shards=1, clock=clock)
    await stream.put([block(1)])
    clock.at_ms += 5000
    await stream.put([block(2)])
    clock.at_ms += 1000
    page = await stream.records(await stream.iterator("shardId-000000000000", None), 1)
    assert page.records[0].arrival_ms == clock.at_ms - 6000
    assert page.behind_ms == 1000


async def test_the_twins_iterators_expire_and_its_records_can_be_refused() -> None:
    stream = MemoryBlockStream(shards=1)
    iterator = await stream.iterator("shardId-000000000000", None)
    stream.expire_iterators()
    with pytest.raises(IteratorExpired):
        await stream.records(iterator, 1)
    stream.refuse = lambda index, _: "ProvisionedThroughputExceededException" if index == 1 else None
    outcomes = await stream.put([block(1), block(2), block(3)])
    assert [outcome.error for outcome in outcomes] == [None, "ProvisionedThroughputExceededException", None]
    assert [record.data for record in await read(stream, "shardId-000000000000")] == [block(1), block(3)]


async def test_a_lost_answer_of_the_twin_leaves_the_records() -> None:
    stream = MemoryBlockStream(shards=1)

    async def lost(call: str, _: str) -> None:
        if call == "put":
            raise OutcomeUnknown(call)

    stream.after = lost
    assert await stream.put([block(1)]) == [PutOutcome("OutcomeUnknown")]
    assert [record.data for record in await read(stream, "shardId-000000000000")] == [block(1)]
