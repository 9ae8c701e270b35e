"""Damage of every kind on a real stack: found by line, mended to equality, left alone by a second run (rules R1 to R5)."""

import asyncio
import json
from typing import Any

import pytest

from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record
from app.settings import Settings, read_settings
from tests.e2e.live_stack import LiveStack
from tests.e2e.test_rebuild import here, now

pytestmark = pytest.mark.stack


class Planted:
    """What is stored of a load, and the damage done to it."""

    def __init__(self, settings: Settings, since: str) -> None:
        self.settings = settings
        self.since = since
        self.store = S3ObjectStore(settings)
        self.registry = DynamoRegistry(settings)
        self.kinds: set[str] = set()

    async def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with await connect(self.settings.warehouse_url) as connection:
            cursor = await connection.execute(query.encode(), values or None)
            rows = await cursor.fetchall() if cursor.description else []
            await connection.commit()
            return rows

    async def snapshot(self) -> dict[str, Any]:
        """Every object of transactions and batches, and every row, less when and by which load it came."""
        found: dict[str, Any] = {}
        for prefix in ("raw/", "data/", "transactions/", "manifests/"):
            async for info in self.store.list(prefix):
                found[info.key] = await self.store.get(info.key)
        for flow in OUTPUTS:
            names = ", ".join(f'"{name}"' for name in flow.names)
            found[flow.name] = await self.sql(f"SELECT {names} FROM analytics.{flow.name} ORDER BY {names}")
        columns = 'txn_id, epoch, "partition", "number", status, "rows", stream_time, detail'
        found["log"] = await self.sql(f"SELECT {columns} FROM analytics.delivery_log ORDER BY 2, 3, 4, 1")
        found["registry"] = sorted([str(item.batch_id) async for item in self.registry.all_batches()])
        return found

    async def records(self) -> list[TransactionRecord]:
        """The transactions that have page views, of all partitions."""
        found = []
        for partition in range(self.settings.partitions):
            chain = ChainId(self.settings.epoch, partition)
            keys = [info.key async for info in self.store.list(object_keys.chain_prefix(*chain))]
            records = [decode_record(await self.store.get(key), chain, n) for n, key in enumerate(keys, 1)]
            found += [record for record in records[:-1] if record.output("page_views").rows > 1]
        return found

    async def plant(self) -> None:
        """At least fourteen kinds, most on transactions of their own."""
        first, *others = await self.records()
        txn = first.txn_id
        await self.sql("DELETE FROM analytics.page_views WHERE txn_id = %s AND line < 50", txn)
        await self.sql("INSERT INTO analytics.ledger SELECT * FROM analytics.ledger WHERE txn_id = %s", txn)
        await self.sql("UPDATE analytics.ad_clicks SET revenue_micros = 1 WHERE txn_id = %s", txn)
        await self.sql("INSERT INTO analytics.redirects (batch_id, line, txn_id) VALUES ('x', 1, '1-0-999999-ab')")
        await self.sql("DELETE FROM analytics.delivery_log WHERE txn_id = %s", others[0].txn_id)
        await self.sql('UPDATE analytics.delivery_log SET "rows" = 1 WHERE txn_id = %s', txn)
        keys = {out.output: (out.data_key or "", out.manifest_key or "") for out in others[0].outputs if out.rows}
        await self.store.delete([keys["page_views"][0], keys["ledger"][0]])
        await self.store.put(keys["engagements"][0], b"garbage")
        await self.store.delete([keys["page_views"][1]])
        await self.store.put(keys["ledger"][1], b'{"entries":[]}')
        await self.store.delete([first.ready_key])
        await self.store.put(others[1].ready_key, b"{}")
        await self.store.delete([object_keys.record_key(*chain_of(others[2]), others[2].number)])
        await self.store.put(object_keys.record_key(*chain_of(others[3]), others[3].number), b"{")
        await self.quarantine(others[4])
        items = [item async for item in self.registry.all_batches()]
        items = [item for item in items if item.received_at_ms > 0 and item.line_count > 20][-4:]
        await self.store.delete([items[0].raw_key])
        raw = await self.store.get(items[1].raw_key)
        await self.store.put(items[1].raw_key, raw[:60] + bytes([raw[60] ^ 1]) + raw[61:])
        await self.forget(items[2].batch_id)
        await self.spoil(items[3].batch_id)
        self.kinds = {
            "rows_lost", "rows_doubled", "rows_changed", "rows_foreign", "log_lost", "log_changed", "file_lost",
            "file_changed", "manifest_lost", "manifest_changed", "ready_lost", "ready_changed", "record_lost",
            "record_changed", "quarantined", "raw_lost", "raw_changed", "registry_lost", "registry_changed",
        }  # fmt: skip

    async def quarantine(self, record: TransactionRecord) -> None:
        """As if delivery had met a damaged file and set the transaction aside."""
        for flow in OUTPUTS:
            await self.sql(f"DELETE FROM analytics.{flow.name} WHERE txn_id = %s", record.txn_id)
        await self.sql("UPDATE analytics.delivery_log SET status = 'quarantined' WHERE txn_id = %s", record.txn_id)
        await self.store.put(record.output("page_views").data_key or "", b"no file of page views")

    async def forget(self, batch_id: str) -> None:
        client, name = self.registry._client, self.settings.registry_table
        await asyncio.to_thread(lambda: client.delete_item(TableName=name, Key={"batch_id": {"S": batch_id}}))

    async def spoil(self, batch_id: str) -> None:
        client, name = self.registry._client, self.settings.registry_table
        await asyncio.to_thread(
            lambda: client.update_item(
                TableName=name, Key={"batch_id": {"S": batch_id}}, UpdateExpression="SET sha256 = :sum",
                ExpressionAttributeValues={":sum": {"S": "0" * 64}},
            )
        )  # fmt: skip

    async def close(self) -> None:
        await self.store.close()
        await self.registry.close()


def chain_of(record: TransactionRecord) -> tuple[int, int]:
    return record.epoch, record.partition


async def test_damage_of_every_kind_is_found_and_mended_beside_the_running_stack(stack: LiveStack) -> None:
    since = now()
    run = await stack.load(events=2000, rate=500, seed=61)
    await stack.compare_exact(run)
    done = await here(stack, "audit", "--deep", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    world = Planted(read_settings(), since)
    clean = await world.snapshot()
    await world.plant()

    done = await here(stack, "repair", "--json")
    planned = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    found = {each["kind"] for each in planned["differences"]}
    assert found >= world.kinds - {"rows_changed"}, world.kinds - found
    assert all(each["action"] and not each["done"] for each in planned["differences"])
    lost = [each for each in planned["differences"] if (each["kind"], each["flow"]) == ("rows_lost", "page_views")]
    assert lost
    assert all(each["lines"] and each["batch_id"] and each["txn_id"] for each in lost)

    done = await here(stack, "repair", "--apply", "--json")
    applied = json.loads(done.stdout)
    assert [(each["kind"], each["reason"]) for each in applied["differences"] if not each["done"]] == []
    assert done.returncode == 0, done.stdout

    done = await here(stack, "repair", "--apply", "--json")
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, [])
    again = await world.snapshot()
    log = set(clean.pop("log"))
    assert log <= set(again["log"])  # the stack goes on, and delivery adds transactions without rows
    assert {key for key in clean if again.get(key) != clean[key]} == set()
    await world.close()
    await stack.compare_exact(run)
