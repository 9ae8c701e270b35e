"""The same suite over a session of the warehouse (through its stand-in) and of the twin: COPY and what it refuses."""

from typing import Any

import pytest

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
        seen = await session.last_load_error()
        misfit = views(3, country=lambda n: "é" * 65 if n == 1 else "é" * 64)
        manifest = await case.put("m", views(2), misfit)
        with pytest.raises(WarehouseError, match="stl_load_errors") as caught:
            await session.copy(PAGE_VIEWS, manifest)
        assert caught.value.sqlstate == "XX000"
        await session.rollback()
        found = await session.load_error_since(seen)
        assert found is not None
        assert (found.filename, found.line, found.column) == (f"s3://{case.store.bucket}/m/1", 2, "country")
        assert found.reason == "String length exceeds DDL length"
        newest = await session.last_load_error()
        assert newest > seen
        assert await session.load_error_since(newest) is None
        await session.close()

    async def test_load_errors_are_each_sessions_own(self, case: Case) -> None:
        session, other = await case.open(), await case.open()
        with pytest.raises(WarehouseError):
            await session.copy(PAGE_VIEWS, await case.put("m", views(1, country="é" * 65)))
        assert await other.load_error_since(-1) is None
        assert await other.last_load_error() == -1
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
        found = await session.load_error_since(-1)
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
        assert await session.load_error_since(-1) is None
        await session.close()


class TestInMemory(Copies):
    @pytest.fixture
    def case(self) -> Case:
        return memory_case()


class TestOnTheStandIn(Copies):
    @pytest.fixture
    def case(self, warehouse: Warehouse) -> Case:
        return real_case(warehouse)
