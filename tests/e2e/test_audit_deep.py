"""`instream audit --deep` and `instream prove` on a whole stack: silent while all is well; planted damage named by line."""

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import Connection, connect
from app.core.formats.registry_item import encode_item
from app.settings import read_settings
from tests.worlds.command_line import run_here

pytestmark = pytest.mark.stack
AT = "WHERE batch_id = %s AND line = %s"
Named = tuple[str, str, str, tuple[int, ...]]
"""Kind, batch, flow, lines."""


async def audit(since: str, code: int) -> dict[str, Any]:
    """The answer of `audit --deep --json`, which must end with this exit code."""
    done = await asyncio.to_thread(run_here, "audit", "--deep", "--since", since, "--json")
    assert done.returncode == code, (done.stdout[-3000:], done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def prove(verdict: str, code: int, *words: str) -> dict[str, Any]:
    """The answer of `prove --json`, which must have this verdict and end with this exit code."""
    done = await asyncio.to_thread(run_here, "prove", *words, "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    assert (answer["verdict"], done.returncode) == (verdict, code), (answer, done.stderr)
    return answer


class Damage:
    """Damages a stack, and takes it back."""

    def __init__(self, warehouse: Connection, store: S3ObjectStore, registry: DynamoRegistry, first_batch: str) -> None:
        self.warehouse = warehouse
        self.store = store
        self.registry = registry
        self.first_batch = first_batch
        self.expected: set[Named] = set()
        self._back = AsyncExitStack()

    async def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = await self.warehouse.execute(sql.encode(), values or None)
        return await cursor.fetchall() if cursor.description else []

    async def place(self, flow: str) -> tuple[str, int, str]:
        """Batch, line and transaction of a flow's row."""
        where = "batch_id >= %s ORDER BY batch_id, line LIMIT 1"
        ((batch_id, line, txn_id),) = await self.rows(
            f"SELECT batch_id, line, txn_id FROM analytics.{flow} WHERE {where}", self.first_batch
        )
        return batch_id, line, txn_id

    async def change(self, kind: str, flow: str, statement: str) -> None:
        """Change a flow's first row; `{at}` stands for its place."""
        batch_id, line, _ = await self.place(flow)
        (kept,) = await self.rows(f"SELECT * FROM analytics.{flow} {AT}", batch_id, line)

        async def back() -> None:
            await self.rows(f"DELETE FROM analytics.{flow} {AT}", batch_id, line)
            await self.rows(f"INSERT INTO analytics.{flow} VALUES ({', '.join(['%s'] * len(kept))})", *kept)

        self._back.push_async_callback(back)
        await self.rows(statement.format(at=AT), batch_id, line)
        self.expected.add((kind, batch_id, flow, (line,)))

    async def lose_file(self, flow: str) -> None:
        *_, txn_id = await self.place(flow)
        (key,) = [info.key async for info in self.store.list(f"data/{flow}/") if txn_id in info.key]
        self._back.push_async_callback(self.store.put, key, await self.store.get(key))
        await self.store.delete([key])
        lines: dict[str, set[int]] = {}
        for batch_id, line in await self.rows(f"SELECT batch_id, line FROM analytics.{flow} WHERE txn_id = %s", txn_id):
            lines.setdefault(batch_id, set()).add(line)
        self.expected |= {("file_lost", batch_id, flow, tuple(sorted(some))) for batch_id, some in lines.items()}

    async def lose_item(self, table: str) -> None:
        batch_id, *_ = await self.place("redirects")
        item = await self.registry.get(batch_id)
        assert item is not None
        client = self.registry._client
        self._back.callback(lambda: client.put_item(TableName=table, Item=encode_item(item)))
        client.delete_item(TableName=table, Key={"batch_id": {"S": batch_id}})
        self.expected.add(("registry_lost", batch_id, "", tuple(range(item.line_count))))

    async def take_back(self) -> None:
        await self._back.aclose()


async def test_a_stack_under_load_is_clean_and_planted_damage_is_named(stack):
    now = datetime.now(UTC).replace(microsecond=0)
    since = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    run = await stack.load(300, rate=300)
    batch_id = max(run.sent.acknowledged_at_ms)
    waiting = await prove("WAITING", 3, batch_id)
    assert (waiting["lines_broken"], bool(waiting["waits_for"])) == ([], True)
    assert (await audit(since, 0))["differences"] == []  # lines are in the window, or anywhere else on their way
    await stack.compare_exact(run)
    clean = await audit(since, 0)
    assert all(clean[count] for count in ("batches", "raw_files", "transactions", "files", "rows", "steps")), clean
    assert clean["unchecked"] == clean["differences"] == []
    proven = await prove("PROVEN", 0, batch_id)
    assert [link["name"] for link in proven["links"] if link["ok"]] == [
        "registry", "raw", "blocks", "offsets", "transactions", "files", "load", "rows"
    ]  # fmt: skip
    assert "@" in proven["links"][3]["detail"]
    settings = read_settings()
    async with AsyncExitStack() as closing:
        store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
        closing.push_async_callback(store.close)
        closing.push_async_callback(registry.close)
        warehouse = await closing.enter_async_context(await connect(settings.warehouse_url))
        await warehouse.set_autocommit(True)
        damage = Damage(warehouse, store, registry, str(UUID(int=round(now.timestamp() * 1000) << 80)))
        try:
            await damage.lose_file("ad_clicks")
            await damage.lose_item(settings.registry_table)
            await damage.change("rows_lost", "page_views", "DELETE FROM analytics.page_views {at}")
            await damage.change("rows_changed", "rejected", "UPDATE analytics.rejected SET reason = 'x' {at}")
            twice = "INSERT INTO analytics.ad_impressions SELECT * FROM analytics.ad_impressions {at}"
            await damage.change("rows_doubled", "ad_impressions", twice)
            answer = await audit(since, 3)
            found = [(one["kind"], one["batch_id"], one["flow"], tuple(one["lines"])) for one in answer["differences"]]
            assert sorted(found) == sorted(damage.expected)
            lost = next(one for one in answer["differences"] if one["kind"] == "rows_lost")
            broken = await prove("BROKEN", 1, lost["batch_id"])
            assert set(lost["lines"]) <= set(broken["lines_broken"])
            assert not next(link["ok"] for link in broken["links"] if link["name"] == "rows")
        finally:
            await damage.take_back()
