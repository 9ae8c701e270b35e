"""The same suite over DynamoDB (its stand-in) and the twin in memory."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.adapters.ports import Registry
from app.adapters.registry import OPEN_INDEX, DynamoRegistry
from app.core.formats.registry_item import (
    HISTORY,
    Attempt,
    BatchState,
    BlockPlace,
    RegistryItem,
    decode_item,
    encode_item,
    with_attempt,
)
from app.errors import FormatInvalid, IllegalMove, NewerFormat, ServiceUnavailable
from app.local.stack.ports import own_port
from app.settings import Settings
from app.testing.memory import MemoryRegistry

ALL_MS = 10**14


@pytest.fixture(params=["memory", "dynamodb"])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    real = DynamoRegistry(request.getfixturevalue("aws_settings"))
    await real.ensure()
    yield real
    await real.close()


def named(name: str) -> str:
    """The id of a batch that the test calls so."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def batch(name: str, received_at_ms: int = 1000, blocks: int = 2, epoch: int = 1) -> RegistryItem:
    places = [BlockPlace(n, n * 10, 10, n * 100, 100) for n in range(blocks)]
    return RegistryItem(
        batch_id=named(name), epoch=epoch, line_count=blocks * 10, byte_count=blocks * 100, sha256="ab" * 32,
        raw_key=f"raw/{name}", blocks=places, received_at_ms=received_at_ms,
    )  # fmt: skip


async def open_ids(registry: Registry, before_ms: int = ALL_MS) -> list[str]:
    return [item.batch_id async for item in registry.open_batches(before_ms)]


async def test_what_is_registered_is_read_back_whole(registry: Registry) -> None:
    item = batch("b1", received_at_ms=1_800_000_000_123)
    await registry.register(item)
    assert await registry.get(named("b1")) == item
    assert [found async for found in registry.open_batches(ALL_MS)] == [item]
    assert [found async for found in registry.all_batches()] == [item]
    assert await registry.get(named("b2")) is None


async def test_a_restored_item_takes_the_place_of_what_its_id_had(registry: Registry) -> None:
    await registry.register(batch("b1"))
    await registry.complete(named("b1"))
    item = msgspec.structs.replace(batch("b1", received_at_ms=77), sha256="cd" * 32)
    for _ in range(2):
        await registry.restore(item)
        assert await registry.get(named("b1")) == item
        assert await open_ids(registry) == [named("b1")]
    await registry.restore(batch("b2"))
    assert await registry.get(named("b2")) == batch("b2")


async def test_registering_again_changes_nothing(registry: Registry) -> None:
    await registry.register(batch("b1"))
    await registry.record_attempt(named("b1"), [Attempt(1, 1000, "missing")], 5000)
    noted = await registry.get(named("b1"))
    await registry.register(batch("b1"))
    assert await registry.get(named("b1")) == noted
    assert await registry.complete(named("b1")) is BatchState.OPEN
    await registry.register(batch("b1"))
    again = await registry.get(named("b1"))
    assert again is not None
    assert again.state is BatchState.COMPLETE
    assert await open_ids(registry) == []


async def test_the_index_lists_open_batches_oldest_first_and_shrinks(registry: Registry) -> None:
    for name, at_ms in (("c", 300), ("a", 100), ("d", 400), ("b", 200)):
        await registry.register(batch(name, at_ms))
    assert await open_ids(registry) == [named(name) for name in "abcd"]
    assert await open_ids(registry, 300) == [named(name) for name in "ab"]
    await registry.complete(named("b"))
    assert await open_ids(registry) == [named(name) for name in "acd"]
    assert {item.batch_id async for item in registry.all_batches()} == set(map(named, "abcd"))


async def test_completing_tells_what_was_before(registry: Registry) -> None:
    await registry.register(batch("b1"))
    states = await asyncio.gather(*(registry.complete(named("b1")) for _ in range(8)))
    assert states.count(BatchState.OPEN) == 1
    assert states.count(BatchState.COMPLETE) == 7


async def test_attempts_only_rise_and_the_last_ones_are_kept(registry: Registry) -> None:
    await registry.register(batch("b1"))
    first, second = Attempt(1, 3000, "4 of 5 lines missing"), Attempt(2, 5000, "")
    await registry.record_attempt(named("b1"), [first, second], 9000)
    await registry.record_attempt(named("b1"), [first], 4000)
    await registry.record_attempt(named("b1"), [second], 4000)
    item = await registry.get(named("b1"))
    assert item == msgspec.structs.replace(batch("b1"), attempts=2, next_attempt_at_ms=9000, history=[first, second])
    await registry.complete(named("b1"), 12_000)
    await registry.complete(named("b1"), 13_000)
    item = await registry.get(named("b1"))
    assert item is not None
    assert (item.completed_at_ms, item.history) == (12_000, [first, second])


def test_an_item_keeps_its_last_attempts() -> None:
    item = batch("b1")
    for number in range(1, 2 * HISTORY):
        item = msgspec.structs.replace(item, history=with_attempt(item, Attempt(number, number, "x" * 1000)))
    assert [each.number for each in item.history] == list(range(HISTORY, 2 * HISTORY))
    assert len(item.history[0].reason) == 200
    assert decode_item(encode_item(item)) == item


async def test_a_batch_that_is_not_registered_cannot_move(registry: Registry) -> None:
    with pytest.raises(IllegalMove):
        await registry.complete("nobody")
    with pytest.raises(IllegalMove):
        await registry.record_attempt("nobody", [Attempt(1, 0, "")], 0)
    assert [item async for item in registry.all_batches()] == []


async def test_listings_go_beyond_a_page_of_a_megabyte_whatever_the_ties(registry: Registry) -> None:
    wide = "x" * 10_000
    made = (batch(f"b{n:04d}", 1000 + n // 10) for n in range(150))
    items = {item.batch_id: msgspec.structs.replace(item, raw_key=f"raw/{wide}") for item in made}
    for item in items.values():
        await registry.register(item)
    listed = [item async for item in registry.open_batches(ALL_MS)]
    assert {item.batch_id: item for item in listed} == items
    assert len(listed) == len(items)
    assert [item.received_at_ms for item in listed] == sorted(item.received_at_ms for item in listed)
    scanned = [item async for item in registry.all_batches()]
    assert len(scanned) == len(items)
    if isinstance(registry, DynamoRegistry):
        first = registry._client.scan(TableName=registry._table)
        assert 0 < first["Count"] < len(items)
        first = registry._client.query(
            TableName=registry._table, IndexName=OPEN_INDEX, KeyConditionExpression="open_epoch = :epoch",
            ExpressionAttributeValues={":epoch": {"N": "1"}},
        )  # fmt: skip
        assert 0 < first["Count"] < len(items)


async def put_as_it_is(registry: Registry, attributes: dict[str, Any]) -> None:
    """An item as another version, or somebody else, leaves it in the table."""
    if isinstance(registry, MemoryRegistry):
        registry.stored.append(attributes)
    else:
        registry._client.put_item(TableName=registry._table, Item=attributes)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": {"N": "2"}}, NewerFormat),
        ({"version": {"N": "2"}, "blocks": {"S": "elsewhere"}}, NewerFormat),
        ({"state": {"S": "gone"}}, FormatInvalid),
        ({"blocks": {"L": [{"N": "1"}]}}, FormatInvalid),
        *(({"line_count": {"N": count}}, FormatInvalid) for count in ("1.5", "0", "-5", "1" + 30 * "0", "21")),
        ({"byte_count": {"N": "7"}}, FormatInvalid),
        ({"blocks": {"L": []}}, FormatInvalid),
        ({"batch_id": {"S": f"{{{named('b0')}}}"}}, FormatInvalid),
        ({"epoch": {"N": "0"}}, FormatInvalid),
        ({"sha256": {"N": "1"}}, FormatInvalid),
        ({"sha256": {"S": "banana"}}, FormatInvalid),
    ],
)
async def test_an_item_that_cannot_be_read_is_told_behind_the_others(
    registry: Registry, change: dict[str, Any], error: type[Exception]
) -> None:
    """One item must not keep the audit from the others."""
    await registry.register(batch("b1", received_at_ms=3000))
    await put_as_it_is(registry, encode_item(batch("b0", received_at_ms=1000)) | change)
    for listing in (registry.open_batches(ALL_MS), registry.all_batches()):
        assert (await anext(listing)).batch_id == named("b1")
        with pytest.raises(error, match=named("b0")):
            await anext(listing)


async def test_an_item_of_before_there_were_versions_is_read(registry: Registry) -> None:
    older = {name: value for name, value in encode_item(batch("b0")).items() if name != "version"}
    await put_as_it_is(registry, {**older, "later": {"S": "ignored"}})
    assert decode_item(older) == batch("b0")
    assert [item async for item in registry.open_batches(ALL_MS)] == [batch("b0")]


async def test_the_epoch_before_is_seen_and_the_items_are_as_agreed(aws_settings: Settings) -> None:
    registry = DynamoRegistry(aws_settings.model_copy(update={"epoch": 2}))
    await registry.ensure()
    await registry.ensure()
    await registry.register(batch("now", epoch=2))
    await registry.register(batch("left behind", epoch=1))
    await registry.register(batch("other", epoch=3))
    assert await open_ids(registry) == [named("left behind"), named("now")]
    stored = registry._client.get_item(TableName=aws_settings.registry_table, Key={"batch_id": {"S": named("now")}})["Item"]
    assert set(stored) == {
        "batch_id", "version", "epoch", "line_count", "byte_count", "sha256", "raw_key", "blocks", "received_at", "state",
        "attempts", "next_attempt_at", "open_epoch",
    }  # fmt: skip
    assert stored["blocks"]["L"][1] == {"L": [{"N": "1"}, {"N": "10"}, {"N": "10"}, {"N": "100"}, {"N": "100"}]}
    described = registry._client.describe_table(TableName=aws_settings.registry_table)["Table"]
    assert [index.get("IndexName") for index in described["GlobalSecondaryIndexes"]] == [OPEN_INDEX]
    await registry.close()


async def test_a_service_that_is_gone_is_unavailable(aws_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{own_port()}")
    registry = DynamoRegistry(aws_settings)
    with pytest.raises(ServiceUnavailable):
        await registry.register(batch("b1"))
    with pytest.raises(ServiceUnavailable):
        await open_ids(registry)
    await registry.close()
