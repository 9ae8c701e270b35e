"""Workers are killed under load, their state deleted, every batch sent again: the warehouse stays exact."""

import asyncio
import shutil
from collections import Counter

import psycopg
import pytest

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.core.audit.reconcile import LedgerLines, coverage
from app.core.formats.batch import cut_again
from app.core.formats.flows import FLOWS, LEDGER
from app.local.traffic.run import TrafficPlan, run_traffic
from app.settings import read_settings
from tests.e2e.live_stack import PATIENT, LiveStack
from tests.worlds.waiting import PAUSE_S, until

EVENTS = 6000
pytestmark = pytest.mark.stack


class Moments:
    """The moments at which parts of a load are acknowledged."""

    def __init__(self, events: int, kills: int) -> None:
        self._shares = [events * n // (kills + 1) for n in range(1, kills + 1)]
        self._reached = [asyncio.Event() for _ in self._shares]

    def progress(self, lines: int) -> None:
        for share, reached in zip(self._shares, self._reached, strict=True):
            if lines >= share:
                reached.set()

    async def reached(self, number: int) -> None:
        await self._reached[number].wait()


async def test_workers_killed_under_load_one_after_the_other(stack: LiveStack) -> None:
    """Kill -9 of each role in the middle of one load, the etl's state deleted too: every row is still exact."""
    victims = ("etl", "sink", "bridge", "delivery")
    moments = Moments(EVENTS, len(victims))
    plan = TrafficPlan(events=EVENTS, rate=400, seed=11, **PATIENT)
    loading = asyncio.create_task(run_traffic(stack.stack, plan, moments.progress))
    killed = {}
    for number, role in enumerate(victims):
        await moments.reached(number)
        killed[role] = stack.kill(role)
        if role == "etl":
            data = stack.home.path / "data" / role
            assert any(data.rglob("*.sst")) or any(data.rglob("*.log")), f"{data} holds no state to lose"
            shutil.rmtree(data)
    run = await loading
    for role, old_pid in killed.items():
        stack.await_restart(role, old_pid)
        await stack.await_ready(role)
    await stack.compare_exact(run)


async def digests(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Table -> how many rows it has and a digest of all of them, whatever their order."""
    found = {}
    for table in (*FLOWS, LEDGER):
        query = f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM analytics.{table.name} AS t"
        found[table.name] = await (await connection.execute(query)).fetchone()
    await connection.commit()
    return found


async def test_every_batch_once_more_through_kinesis_changes_no_row(stack: LiveStack) -> None:
    """I5: what the pipeline knows already, it reports and drops."""
    run = await stack.load(events=800, rate=800, seed=15)
    await stack.compare_exact(run)
    settings = read_settings()
    store, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
    again = 90  # an attempt that the audit does not reach here
    blocks = [
        block async for item in registry.all_batches() for block in cut_again(await store.get(item.raw_key), item, again)
    ]
    async with await connect(stack.stack.warehouse_url) as connection:
        before = await digests(connection)
        assert all(outcome.error is None for outcome in await stream.put(blocks))

        async def all_reported() -> bool:
            found = await connection.execute("SELECT count(*) FROM analytics.replays WHERE attempt = %s", (again,))
            row = await found.fetchone()
            await connection.commit()
            return row == (len(blocks),)

        await until(all_reported, PAUSE_S, stack.story)
        assert await digests(connection) == before


async def test_every_batch_is_raw_registered_and_covered_exactly_once(stack: LiveStack) -> None:
    """I1 is every comparison above; here I2, the ledger, and I3, what an answer promises, over all the session's batches."""
    run = await stack.load(events=500, rate=500, seed=16)
    await stack.compare_exact(run)
    settings = read_settings()
    store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
    items = {item.batch_id: item async for item in registry.all_batches()}
    assert run.sent.acknowledged_at_ms.keys() <= items.keys()
    raw = {found.key: found.size async for found in store.list("raw/")}
    assert all(raw[item.raw_key] == item.byte_count for item in items.values())
    async with await connect(stack.stack.warehouse_url) as connection:
        found = await connection.execute("SELECT batch_id, outcome, lines, line_set FROM analytics.ledger")
        entries: dict[str, list[LedgerLines]] = {batch_id: [] for batch_id in items}
        async for batch_id, outcome, lines, line_set in found:
            entries[batch_id].append(LedgerLines(outcome, lines, line_set))
        counted: Counter[str] = Counter()
        for flow in FLOWS:
            rows = await connection.execute(f"SELECT batch_id, count(*) FROM analytics.{flow.name} GROUP BY 1")
            counted.update(dict(await rows.fetchall()))
    assert all(coverage(item.line_count, entries[batch_id]).is_complete for batch_id, item in items.items())
    in_flows = Counter({
        batch: sum(e.lines for e in found if e.outcome not in {"joined", "duplicate"}) for batch, found in entries.items()
    })  # fmt: skip
    assert +counted == +in_flows


async def test_the_audit_closes_every_batch(stack: LiveStack) -> None:
    """I7: after the faults no batch stays open; the audit worker itself marks them, round after round."""
    registry = DynamoRegistry(read_settings())

    async def none_open() -> bool:
        return not [item async for item in registry.open_batches(2**53)]

    await until(none_open, PAUSE_S, stack.story)
