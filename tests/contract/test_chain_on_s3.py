"""The sink's chain over the real S3 client: what a 412 at the commit means (rule S4)."""

from itertools import count

import pytest

from agents.sink.partition import Displaced, SinkPartition, SinkPorts, commit_rules
from app.adapters.ports import PutResult
from app.adapters.s3 import S3ObjectStore
from app.core.sink.chain import LogBounds, decode_record
from app.errors import OutcomeUnknown
from app.settings import Settings
from tests.worlds.sink import World


class Forgetful(S3ObjectStore):
    """Its first conditional PUT succeeds, and the answer is lost on the way."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.answers: list[PutResult] = []

    async def put_if_absent(self, key: str, body: bytes) -> PutResult:
        self.answers.append(await super().put_if_absent(key, body))
        if len(self.answers) == 1:
            raise OutcomeUnknown(key)
        return self.answers[-1]


@pytest.fixture
def world(aws_settings: Settings) -> World:
    made = World(bucket=aws_settings.bucket)
    made.emit(page_views=3, rejected=1)
    made.emit(ad_clicks=2)
    return made


def sink_on(world: World, store: S3ObjectStore, name: str) -> SinkPartition:
    async def announce(ready: bytes) -> None:
        world.announced.append(ready)

    async def bounds() -> LogBounds:
        return LogBounds(0, len(world.messages))

    async def no_sleep(_: float) -> None:
        return None

    ids = count()
    ports = SinkPorts(store, announce, bounds, world.clock, lambda: f"{name}{next(ids):07x}", no_sleep)
    return SinkPartition(world.place, commit_rules(Settings()), ports)


async def keys_of(store: S3ObjectStore, prefix: str) -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def test_an_own_earlier_attempt_whose_answer_was_lost_is_a_success(world: World, aws_settings: Settings) -> None:
    store = Forgetful(aws_settings)
    await store.ensure()
    sink = sink_on(world, store, "a")
    await sink.open()
    world.feed(sink, 0)
    assert await sink.commit() is None
    assert store.answers == [PutResult.CREATED, PutResult.EXISTS], "the second one is a 412"
    [key] = await keys_of(store, "transactions/")
    record = decode_record(await store.get(key), world.place, 1)
    assert (record.last_offset, sink.acknowledged) == (1, 1)
    assert await store.head(record.ready_key) is not None
    assert await keys_of(store, "jobdata/") == []
    await store.close()


async def test_a_foreign_writers_number_is_followed_and_ours_leaves_nothing(world: World, aws_settings: Settings) -> None:
    store = S3ObjectStore(aws_settings)
    await store.ensure()
    slow, quick = sink_on(world, store, "a"), sink_on(world, store, "b")
    for sink, end in ((slow, 2), (quick, 1)):
        await sink.open()
        world.feed(sink, 0, end)
    assert await quick.commit() is None
    assert await slow.commit() == Displaced(read_from=0)
    assert await keys_of(store, "jobdata/") == []
    world.feed(slow, 0)
    assert await slow.commit() is None
    first, second = [
        decode_record(await store.get(key), world.place, n) for n, key in enumerate(await keys_of(store, "transactions/"), 1)
    ]
    assert (first.txn_id[-8], first.last_offset) == ("b", 0)
    assert (second.txn_id[-8], second.first_offset, second.last_offset) == ("a", 1, 1)
    data = [key for key in await keys_of(store, "data/") if "/ledger/" not in key]
    assert sum(second.txn_id in key for key in data) == 1
    assert sum(first.txn_id in key for key in data) == 2
    assert len(data) == 3
    await store.close()
