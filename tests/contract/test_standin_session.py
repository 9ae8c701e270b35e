"""The stand-in as a server: the protocol's edges, one snapshot a transaction, 1023, and faults on demand."""

import asyncio

import psycopg
import pytest

from app.adapters.warehouse import Connection, connect
from tests.worlds.warehouse import Warehouse, control


async def value(connection: Connection, sql: str) -> object:
    row = await (await connection.execute(sql.encode())).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("query", ["sslmode=prefer", "sslmode=disable", "sslmode=prefer&gssencmode=prefer"])
async def test_encryption_is_declined_and_the_session_goes_on(warehouse: Warehouse, query: str) -> None:
    async with await connect(f"{warehouse.settings.warehouse_url}?{query}") as connection:
        assert await value(connection, "SELECT 1 + 1") == 2


async def test_who_insists_on_encryption_is_told(warehouse: Warehouse) -> None:
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        await psycopg.AsyncConnection.connect(f"{warehouse.settings.warehouse_url}?sslmode=require")


async def test_a_transaction_sees_one_snapshot(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    async with await connect(url) as reader, await connect(url) as writer:
        assert await value(reader, "SELECT count(*) FROM analytics.replays") == 0
        await writer.execute("INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t', 'b', 0, 1)")
        await writer.commit()
        assert await value(reader, "SELECT count(*) FROM analytics.replays") == 0
        await reader.commit()
        assert await value(reader, "SELECT count(*) FROM analytics.replays") == 1


async def test_whoever_waits_for_the_lock_sees_what_was_committed_before_it(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    async with await connect(url) as first, await connect(url) as second:
        await first.execute("LOCK TABLE analytics.delivery_log")
        waiting = asyncio.ensure_future(second.execute("LOCK TABLE analytics.delivery_log"))
        await first.execute("INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t', 'b', 0, 1)")
        await first.commit()
        await waiting
        assert await value(second, "SELECT count(*) FROM analytics.replays") == 1


async def test_a_conflict_is_error_1023(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    async with await connect(url) as first, await connect(url) as second:
        await first.execute("INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t', 'b', 0, 1)")
        await first.commit()
        for connection in (first, second):
            assert await value(connection, "SELECT count(*) FROM analytics.replays") == 1
        await first.execute("UPDATE analytics.replays SET attempt = 2")
        await first.commit()
        with pytest.raises(psycopg.Error, match="1023") as caught:
            await second.execute("UPDATE analytics.replays SET attempt = 3")
        assert caught.value.sqlstate == "XX000"
        assert "Serializable isolation violation" in (caught.value.diag.message_detail or "")
        await second.rollback()


async def test_strings_are_measured_in_bytes_everywhere(warehouse: Warehouse) -> None:
    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute("CREATE TABLE t (a VARCHAR(4), b VARCHAR, c VARCHAR(MAX))")
        await connection.execute("INSERT INTO t VALUES ('éé', %s, %s)", ("é" * 128, "é" * 32767))
        for text in ("ééé", "abcde"):
            with pytest.raises(psycopg.errors.StringDataRightTruncation):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t (a) VALUES (%s)", (text,))


async def test_faults_strike_as_often_as_told_and_where(warehouse: Warehouse) -> None:
    warehouse.fail("disk_full", times=2, statement="^SELECT 7")
    async with await connect(warehouse.settings.warehouse_url) as connection:
        assert await value(connection, "SELECT 6") == 6
        for _ in range(2):
            with pytest.raises(psycopg.errors.DiskFull):
                await connection.execute("SELECT 7")
            await connection.rollback()
        assert await value(connection, "SELECT 7") == 7
    assert control(warehouse.stack, "GET") == []


async def test_a_connection_can_be_refused_or_lost_around_commit(warehouse: Warehouse) -> None:
    url = warehouse.settings.warehouse_url
    insert = "INSERT INTO analytics.replays (txn_id, batch_id, block, attempt) VALUES ('t', 'b', 0, 1)"
    for kind in ("drop_before_commit", "drop_after_commit"):
        warehouse.fail(kind)
        connection = await connect(url)
        await connection.execute(insert)
        with pytest.raises(psycopg.OperationalError) as caught:
            await connection.commit()
        assert caught.value.sqlstate is None
        assert await warehouse.query("SELECT count(*) FROM analytics.replays") == [(int(kind == "drop_after_commit"),)]
    warehouse.fail("refuse")
    with pytest.raises(psycopg.OperationalError):
        await psycopg.AsyncConnection.connect(url)
    assert await warehouse.query("SELECT 1") == [(1,)]


async def test_a_running_query_can_be_cancelled(warehouse: Warehouse) -> None:
    async with await connect(warehouse.settings.warehouse_url) as connection:
        running = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
        async with await connect(warehouse.settings.warehouse_url) as other:
            while (
                await value(
                    other,
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND pid <> pg_backend_pid()",
                )
                == 0
            ):
                await other.rollback()
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        await connection.rollback()
