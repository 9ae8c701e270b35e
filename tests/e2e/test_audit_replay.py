"""A batch that never reached Kinesis, and one with a block that cannot be read: the audit sends both, every row arrives."""

import asyncio
import json
import os

import pytest

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.clock import SystemClock
from app.core.events.parse import parse_line
from app.core.formats.batch import cut_again, new_batch_id, seal
from app.core.formats.flows import BY_NAME, FLOWS
from app.core.formats.registry_item import BatchState, RegistryItem
from app.settings import Settings, read_settings
from tests.builders.source_log import CHROME
from tests.e2e.live_stack import LiveStack
from tests.worlds.waiting import PAUSE_S, until

pytestmark = pytest.mark.stack
AGE_MS = 60_000
"""Past the grace and all bounds of the join, so that the audit need not wait for them."""


def sent(event_id: str, event_type: str, view: str, at_ms: int, **more: object) -> bytes:
    event = {"event_id": event_id, "event_type": event_type, "page_view_id": view, "occurred_at": at_ms, **more}
    return json.dumps(event).encode()


async def orphan(settings: Settings, run: str) -> RegistryItem:
    """A batch as a collector leaves it that dies between steps 2 and 3: in S3 and registry, nothing in Kinesis."""
    received_ms = SystemClock().now_ms() - AGE_MS
    lines = [
        line
        for n in range(20)
        for line in (
            sent(f"{run}-first{n}", "page_view", f"{run}-{n}", received_ms, article_id="a1"),
            sent(f"{run}-second{n}", "engagement", f"{run}-{n}", received_ms, dwell_ms=n),
            sent(f"{run}-click{n}", "ad_click", f"{run}-{n}", received_ms, revenue_micros=5),
        )
    ]
    lines += [lines[0], b"{oops"]
    stored = [parse_line(line, "browser", received_ms, "203.0.113.9", CHROME) for line in lines]
    sealed = seal(new_batch_id(received_ms, os.urandom(10)), settings.epoch, settings.partitions, stored)
    assert len({place.partition for place in sealed.item.blocks}) == settings.partitions
    store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
    await store.put(sealed.item.raw_key, sealed.raw)
    await registry.register(sealed.item)
    await asyncio.gather(store.close(), registry.close())
    return sealed.item


async def put_damaged(settings: Settings, item: RegistryItem) -> None:
    """The batch's blocks to Kinesis, the first one cut short on its way, and something that is no block."""
    store, stream = S3ObjectStore(settings), KinesisBlockStream(settings)
    first, *others = cut_again(await store.get(item.raw_key), item, 0)
    outcomes = await stream.put([first[:-9], *others, b"no block at all"])
    assert [outcome.error for outcome in outcomes] == [None] * (len(others) + 2)
    await asyncio.gather(store.close(), stream.close())


async def rows_of(url: str, table: str, columns: str, batch_id: str) -> list[tuple[object, ...]]:
    async with await connect(url) as connection:
        query = f"SELECT {columns} FROM analytics.{table} WHERE batch_id = %s ORDER BY 1".encode()
        return await (await connection.execute(query, (batch_id,))).fetchall()


async def test_what_never_arrived_or_could_not_be_read_is_sent_by_the_audit_and_arrives_whole(stack: LiveStack) -> None:
    settings, url = read_settings(), stack.stack.warehouse_url
    run = os.urandom(4).hex()
    item, damaged = await orphan(settings, run), await orphan(settings, f"{run}d")
    await put_damaged(settings, damaged)
    await stack.load(events=200, rate=400, seed=21)  # traffic on every partition: their loaded stream time moves on
    registry = DynamoRegistry(settings)

    async def is_complete() -> bool:
        found = [await registry.get(one.batch_id) for one in (item, damaged)]
        return all(one is not None and one.state is BatchState.COMPLETE for one in found)

    await until(is_complete, PAUSE_S, stack.story)

    found = await registry.get(item.batch_id)
    assert found is not None
    assert found.attempts == 1
    await registry.close()
    names = sorted(range(20), key=str)
    assert await rows_of(url, "page_views", "event_id, joined, engagement_id, dwell_ms", item.batch_id) == [
        (f"{run}-first{n}", True, f"{run}-second{n}", n) for n in names
    ]
    assert await rows_of(url, "ad_clicks", "event_id", item.batch_id) == [(f"{run}-click{n}",) for n in names]
    assert await rows_of(url, "rejected", "kind", item.batch_id) == [("malformed",)]
    for other in {flow.name for flow in FLOWS} - {"page_views", "ad_clicks", "rejected"}:
        assert await rows_of(url, BY_NAME[other].name, "line", item.batch_id) == []
    outcomes = await rows_of(url, "ledger", "outcome, lines", item.batch_id)
    counts = {outcome: sum(lines for name, lines in outcomes if name == outcome) for outcome, _ in outcomes}  # type: ignore[misc]
    assert counts == {"page_views": 20, "joined": 20, "ad_clicks": 20, "duplicate": 1, "rejected": 1}
    assert await rows_of(url, "replays", "block", item.batch_id) == []  # the blocks were new to the ETL

    # of the damaged one the first block was set aside; nothing of it was remembered, so its whole copy was taken
    dead = await rows_of(url, "dead_letters", "block, attempt, reason", damaged.batch_id)
    assert [letter[:2] for letter in dead] == [(0, 0)]
    assert str(dead[0][2]).startswith("FrameInvalid")
    assert await rows_of(url, "page_views", "event_id, joined, engagement_id, dwell_ms", damaged.batch_id) == [
        (f"{run}d-first{n}", True, f"{run}d-second{n}", n) for n in names
    ]
    replays = await rows_of(url, "replays", "block, attempt", damaged.batch_id)
    assert replays == [(n, 1) for n in range(1, len(damaged.blocks))]
    done = stack.instream("dead-letters", "--json")
    everything = json.loads(done.stdout)
    assert any(letter["reason"].startswith("Kinesis record shardId-") for letter in everything), "no block at all"
    letters = [letter for letter in everything if letter["batch_id"] == damaged.batch_id]
    assert (done.returncode, len(letters), letters[0]["reason"]) == (3, 1, dead[0][2])

    assert (await stack.wait()).is_covered
    done = stack.instream("audit", "--grace", "0", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert (report["replayed"], report["lost"], report["excess"], report["damaged"]) == (0, 0, 0, 0)
