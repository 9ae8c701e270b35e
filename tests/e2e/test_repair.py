"""Damage of every kind on a real stack: found by line, mended to equality, left alone by a second run (rules R1 to R5)."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect
from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS
from app.core.formats.registry_item import BatchState, RegistryItem
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record
from app.settings import Settings, read_settings
from tests.e2e.live_stack import LiveStack, SettledLoad
from tests.e2e.test_rebuild import here, ms_of

pytestmark = pytest.mark.stack


KINDS = {
    "rows_lost", "rows_doubled", "rows_changed", "rows_foreign", "log_lost", "log_changed", "file_lost", "file_changed",
    "manifest_lost", "manifest_changed", "ready_lost", "ready_changed", "record_lost", "record_changed", "quarantined",
    "raw_lost", "raw_changed", "registry_lost", "registry_changed",
}  # fmt: skip


class Planted:
    """What is stored of a load, and the damage done to it."""

    def __init__(self, settings: Settings, settled: SettledLoad) -> None:
        self.settings = settings
        self.span = range(ms_of(settled.since), ms_of(settled.complete))
        self.loaded_at = settled.until[:19]
        self.store = S3ObjectStore(settings)
        self.registry = DynamoRegistry(settings)

    async def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with await connect(self.settings.warehouse_url) as connection:
            cursor = await connection.execute(query.encode(), values or None)
            rows = await cursor.fetchall() if cursor.description else []
            await connection.commit()
            return rows

    async def snapshot(self, records: Sequence[TransactionRecord]) -> dict[str, Any]:
        """Every object of the load's transactions and batches, and every row, less when and by which load it came."""
        items = await self.items()
        keys = [item.raw_key for item in items]
        for record in records:
            keys += [object_keys.record_key(record.epoch, record.partition, record.number), record.ready_key]
            keys += [key for out in record.outputs for key in (out.data_key, out.manifest_key) if key is not None]
        found: dict[str, Any] = dict(zip(keys, await asyncio.gather(*map(self.store.get, keys)), strict=True))
        txn_ids = [record.txn_id for record in records]
        for flow in OUTPUTS:
            names = ", ".join(f'"{name}"' for name in flow.names)
            query = f"SELECT {names} FROM analytics.{flow.name} WHERE txn_id = ANY(%s) ORDER BY {names}"
            found[flow.name] = await self.sql(query, txn_ids)
        columns = 'txn_id, epoch, "partition", "number", status, "rows", stream_time, detail'
        log = f"SELECT {columns} FROM analytics.delivery_log WHERE txn_id = ANY(%s) ORDER BY 2, 3, 4"
        return found | {"log": await self.sql(log, txn_ids), "registry": items}

    async def items(self) -> list[RegistryItem]:
        """The batches of the load; the audit may complete them, or send them again, at any time."""
        found = [item async for item in self.registry.all_batches() if item.received_at_ms in self.span]
        found.sort(key=lambda item: item.batch_id)
        of_audit = {"state": BatchState.OPEN, "attempts": 0, "next_attempt_at_ms": 0, "history": [], "completed_at_ms": 0}
        return [msgspec.structs.replace(item, **of_audit) for item in found]

    async def records(self) -> list[TransactionRecord]:
        """The load's transactions of all partitions, those with page views first; each has a successor."""
        found = []
        for partition in range(self.settings.partitions):
            chain = ChainId(self.settings.epoch, partition)
            keys = [info.key async for info in self.store.list(object_keys.chain_prefix(*chain))]
            bodies = await asyncio.gather(*map(self.store.get, keys))
            records = [decode_record(body, chain, number) for number, body in enumerate(bodies, 1)]
            found += [record for record in records[:-1] if record.committed_at_ms in self.span]
        return sorted(found, key=lambda record: record.output("page_views").rows <= 1)

    async def plant(self, records: Sequence[TransactionRecord]) -> None:
        """`KINDS`, most on transactions of their own."""
        first, second, third, *others = records
        assert third.output("page_views").rows > 1
        txn = first.txn_id
        rows = await self.sql("SELECT batch_id, line FROM analytics.page_views WHERE txn_id = %s ORDER BY 1, 2", txn)
        place = "WHERE batch_id = %s AND line = %s"
        await self.sql(f"DELETE FROM analytics.page_views {place}", *rows[0])
        await self.sql(f"UPDATE analytics.page_views SET city = 'Nowhere' {place}", *rows[1])
        await self.sql("INSERT INTO analytics.ledger SELECT * FROM analytics.ledger WHERE txn_id = %s", txn)
        columns, stray = "batch_id, line, txn_id, loaded_at", "'x', 1, '1-0-999999-ab', %s"
        await self.sql(f"INSERT INTO analytics.redirects ({columns}) VALUES ({stray})", self.loaded_at)
        await self.sql('UPDATE analytics.delivery_log SET "rows" = 1 WHERE txn_id = %s', txn)
        await self.store.delete([first.ready_key])
        await self.sql("DELETE FROM analytics.delivery_log WHERE txn_id = %s", second.txn_id)
        keys = {out.output: (out.data_key or "", out.manifest_key or "") for out in second.outputs if out.rows}
        await self.store.delete([keys["ledger"][0]])
        await self.store.put(keys["page_views"][0], b"garbage")
        await self.store.delete([keys["page_views"][1]])
        await self.store.put(keys["ledger"][1], b'{"entries":[]}')
        await self.quarantine(third)
        await self.store.put(others[0].ready_key, b"{}")
        await self.store.delete([object_keys.record_key(*chain_of(others[1]), others[1].number)])
        await self.store.put(object_keys.record_key(*chain_of(others[2]), others[2].number), b"{")
        items = [item for item in await self.items() if item.line_count > 20][-4:]
        await self.store.delete([items[0].raw_key])
        raw = await self.store.get(items[1].raw_key)
        await self.store.put(items[1].raw_key, raw[:60] + bytes([raw[60] ^ 1]) + raw[61:])
        await self.forget(items[2].batch_id)
        await self.spoil(items[3].batch_id)

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
    settled = await stack.settled_load()
    span = ["--since", settled.since, "--until", settled.complete]
    world = Planted(read_settings(), settled)
    records = await world.records()
    clean = await world.snapshot(records)
    await world.plant(records)

    done = await here(stack, "repair", *span, "--json")
    planned = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    found = {each["kind"] for each in planned["differences"]}
    assert found >= KINDS, KINDS - found
    assert all(each["action"] and not each["done"] for each in planned["differences"])
    lost = [each for each in planned["differences"] if (each["kind"], each["flow"]) == ("rows_lost", "page_views")]
    assert lost
    assert all(each["lines"] and each["batch_id"] and each["txn_id"] for each in lost)

    done = await here(stack, "repair", *span, "--apply", "--json")
    applied = json.loads(done.stdout)
    assert [(each["kind"], each["reason"]) for each in applied["differences"] if not each["done"]] == []
    assert done.returncode == 0, done.stdout

    again = await world.snapshot(records)
    assert {key for key in clean if again.get(key) != clean[key]} == set()
    done = await here(stack, "repair", *span, "--apply", "--json")
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, [])
    assert await world.snapshot(records) == again
    await world.close()
    await stack.compare_exact(settled.run)
