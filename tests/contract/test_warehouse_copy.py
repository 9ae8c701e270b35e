"""The same suite over a session of the warehouse (through its stand-in) and of the twin: COPY and what it refuses."""

from typing import Any

import psycopg
import pytest

from app.adapters.warehouse import connect, run, to_warehouse
from app.core.delivery.statements import Statement
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import BY_NAME, OUTPUTS, PAGE_VIEWS, REDIRECTS
from app.errors import ConfigurationError, WarehouseError
from tests.worlds.warehouse import Warehouse, filler
from tests.worlds.warehouse_session import BATCH, Case, memory_case, real_case, row, views

CUT_OFF = views(50)[:-20]


class Copies:
    async def test_every_file_of_a_manifest_counts(self, case: Case) -> None:
        session = await case.open()
        await session.copy(PAGE_VIEWS, await case.put("a", views(3), views(0), views(4, txn="u")))
        assert await session.copied() == 7
        await session.copy(PAGE_VIEWS, await case.put("b", views(2)))
        assert await session.copied() == 2
        await session.commit()
        assert await case.count("page_views") == 9
        await session.close()

    async def test_every_output_is_read(self, case: Case) -> None:
        session = await case.open()
        for flow in OUTPUTS:
            manifest = await case.put(flow.name, encode_output(flow.name, filler(flow.name, "t", BATCH, 3)))
            await session.copy(flow, manifest)
            assert await session.copied() == 3
        await session.commit()
        assert [await case.count(flow.name) for flow in OUTPUTS] == [3] * len(OUTPUTS)
        await session.close()

    async def test_a_file_may_be_missing_only_where_the_manifest_says_so(self, case: Case) -> None:
        session = await case.open()
        missing = {"url": f"s3://{case.store.bucket}/nowhere"}
        await case.store.put("here", views(2))
        entries: list[dict[str, Any]] = [{"url": f"s3://{case.store.bucket}/here", "mandatory": True}]
        await session.copy(PAGE_VIEWS, await case.put_manifest("a", [missing, *entries]))
        assert await session.copied() == 2
        await self._refused(case, await case.put_manifest("b", [*entries, missing | {"mandatory": True}]))
        await session.close()

    async def test_a_manifest_must_be_there_and_be_one(self, case: Case) -> None:
        await self._refused(case, f"s3://{case.store.bucket}/nowhere")
        await case.store.put("text", b"no manifest")
        await self._refused(case, f"s3://{case.store.bucket}/text")

    @pytest.mark.parametrize("wrong", [-1, 1])
    async def test_a_file_must_have_the_length_that_the_manifest_says(self, case: Case, wrong: int) -> None:
        session = await case.open()
        await session.copy(PAGE_VIEWS, await case.put("a", views(2), meta={"content_length": len(views(2))}))
        await self._refused(case, await case.put("b", views(2), meta={"content_length": len(views(2)) + wrong}))
        await session.close()

    async def test_a_text_that_does_not_fit_is_named(self, case: Case) -> None:
        session = await case.open()
        misfit = views(3, country=lambda n: "é" * 65 if n == 1 else "é" * 64)
        manifest = await case.put("m", views(2), misfit)
        with pytest.raises(WarehouseError, match="sys_load_error_detail") as caught:
            await session.copy(PAGE_VIEWS, manifest)
        assert caught.value.sqlstate == "XX000"
        await session.rollback()
        found = await session.load_error()
        assert found is not None
        assert (found.filename, found.line, found.column) == (f"s3://{case.store.bucket}/m/1", 2, "country")
        assert found.reason == "String length exceeds DDL length"
        assert await session.load_error() is None, "it is told once"
        await session.close()

    async def test_load_errors_are_each_sessions_own(self, case: Case) -> None:
        session, other = await case.open(), await case.open()
        with pytest.raises(WarehouseError):
            await session.copy(PAGE_VIEWS, await case.put("m", views(1, country="é" * 65)))
        await other.copy(PAGE_VIEWS, await case.put("n", views(1)))
        assert await other.load_error() is None
        for each in (session, other):
            await each.close()

    @pytest.mark.parametrize("body", [b"no zstd frame", CUT_OFF], ids=["text", "cut off"])
    async def test_what_cannot_be_decompressed_is_laid_at_no_file(self, case: Case, body: bytes) -> None:
        await self._refused(case, await case.put("m", views(2), body))

    async def test_an_empty_file_has_no_rows(self, case: Case) -> None:
        session = await case.open()
        await session.copy(PAGE_VIEWS, await case.put("m", views(2), b""))
        assert await session.copied() == 2
        await session.close()

    async def test_what_is_no_avro_is_named(self, case: Case) -> None:
        session = await case.open()
        with pytest.raises(WarehouseError):
            await session.copy(REDIRECTS, await case.put("m", b"no avro"))
        await session.rollback()
        found = await session.load_error()
        assert found is not None
        assert found.filename.endswith("/m/0")
        await session.close()

    async def test_a_bad_file_behind_good_ones_leaves_no_row(self, case: Case) -> None:
        session = await case.open()
        await session.insert_log([row(1)])
        with pytest.raises(WarehouseError):
            await session.copy(PAGE_VIEWS, await case.put("m", views(2), b"no zstd frame"))
        await session.commit()
        assert (await case.count("page_views"), await case.count("delivery_log")) == (0, 0)
        await session.close()

    async def test_a_connection_lost_in_the_middle_leaves_no_row(self, case: Case) -> None:
        session, other = await case.open(), await case.open()
        await session.lock()
        await session.insert_log([row(1)])
        case.fail("drop_mid_copy")
        with pytest.raises(WarehouseError) as caught:
            await session.copy(PAGE_VIEWS, await case.put("m", views(2)))
        assert caught.value.sqlstate is None
        assert session.closed
        await case.until_given(other)
        assert (await case.count("page_views"), await case.count("delivery_log")) == (0, 0)
        await other.close()

    @pytest.mark.parametrize("url", ["s3://b/'; DROP", "https://b/key", "s3://b/key with blank"])
    async def test_what_has_no_place_in_literal_sql_is_never_sent(self, case: Case, url: str) -> None:
        session = await case.open()
        with pytest.raises(ConfigurationError):
            await session.copy(BY_NAME["page_views"], url)
        await session.close()

    async def _refused(self, case: Case, manifest_url: str) -> None:
        """COPY fails with an internal error, and no file is to blame."""
        session = await case.open()
        with pytest.raises(WarehouseError) as caught:
            await session.copy(PAGE_VIEWS, manifest_url)
        assert caught.value.sqlstate == "XX000"
        await session.rollback()
        assert await session.load_error() is None
        await session.close()


class TestInMemory(Copies):
    @pytest.fixture
    def case(self) -> Case:
        return memory_case()


class TestOnTheStandIn(Copies):
    @pytest.fixture
    def case(self, warehouse: Warehouse) -> Case:
        return real_case(warehouse)

    async def test_an_old_cluster_tells_its_load_errors_by_the_older_table(self, warehouse: Warehouse) -> None:
        warehouse.fail("old_cluster")
        case = real_case(warehouse)
        session = await case.open()
        for _ in range(2):
            with pytest.raises(WarehouseError):
                await session.copy(PAGE_VIEWS, await case.put("m", views(2, country=lambda n: "x" * 200)))
            await session.rollback()
            found = await session.load_error()
            assert found is not None
            assert (found.line, found.column) == (1, "country")
            assert await session.load_error() is None, "it is told once"
            await session.rollback()
        await session.close()

    async def test_serverless_lets_nobody_read_the_older_table(self, warehouse: Warehouse) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await warehouse.query("SELECT 1 FROM stl_load_errors")
        warehouse.fail("old_cluster")
        with pytest.raises(psycopg.errors.UndefinedTable):
            await warehouse.query("SELECT 1 FROM sys_load_error_detail")

    async def test_an_error_that_was_not_told_is_not_taken_for_the_next_ones(self, warehouse: Warehouse) -> None:
        case = real_case(warehouse)
        session = await case.open()
        with pytest.raises(WarehouseError):
            await session.copy(PAGE_VIEWS, await case.put("m", views(1, country="x" * 200)))
        await session.rollback()
        case.kill(session)
        with pytest.raises(WarehouseError):
            await session.load_error()
        assert session.closed, "a session whose error is not known is used no more"
        await session.close()

    async def test_the_bucket_may_be_in_another_region(self, warehouse: Warehouse) -> None:
        settings = warehouse.settings.model_copy(update={"copy_region": "eu-central-1"})
        session = await to_warehouse(settings)()
        await session.copy(PAGE_VIEWS, await real_case(warehouse).put("m", views(3)))
        assert await session.copied() == 3
        await session.close()


async def test_values_stand_in_the_text_of_every_statement(warehouse: Warehouse) -> None:
    """The server sees literals, so it never has to guess the type of a parameter."""
    asked = Statement("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid() AND 'a''b\\c' = %s", ("a'b\\c",))
    async with await connect(warehouse.settings.warehouse_url) as connection:
        ((seen,),) = await run(connection, asked)
    assert "$1" not in seen
    assert seen.count("a''b") == 2
