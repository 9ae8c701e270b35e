"""The same suite over S3 (its stand-in) and the twin in memory."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.adapters.ports import ObjectStore, PutResult
from app.adapters.s3 import S3ObjectStore, skew_ms
from app.clock import SystemClock
from app.core.backoff import Backoff
from app.errors import ObjectMissing, OutcomeUnknown, ServiceUnavailable
from app.local.services.aws import wait_ready
from app.local.stack.ports import own_port
from app.settings import Settings
from app.testing.memory import MemoryObjectStore
from tests.worlds.waiting import HANGS_S


@pytest.fixture(params=["memory", "s3"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryObjectStore()
        return
    real = S3ObjectStore(request.getfixturevalue("aws_settings"))
    await real.ensure()
    yield real
    await real.close()


async def keys(store: ObjectStore, *args: Any, **kwargs: Any) -> list[str]:
    return [info.key async for info in store.list(*args, **kwargs)]


async def test_what_is_put_is_got_and_replaced(store: ObjectStore) -> None:
    await store.put("raw/a b+ü.zst", b"\x00\xff" * 3)
    assert await store.get("raw/a b+ü.zst") == b"\x00\xff" * 3
    await store.put("raw/a b+ü.zst", b"")
    assert await store.get("raw/a b+ü.zst") == b""


async def test_of_fifty_conditional_puts_at_once_one_wins(store: ObjectStore) -> None:
    results = await asyncio.gather(*(store.put_if_absent("transactions/1/0/1.json", b"%d" % n) for n in range(50)))
    assert results.count(PutResult.CREATED) == 1
    assert results.count(PutResult.EXISTS) == 49
    assert await store.get("transactions/1/0/1.json") == b"%d" % results.index(PutResult.CREATED)


async def test_a_deleted_key_can_be_created_again(store: ObjectStore) -> None:
    assert await store.put_if_absent("k", b"1") is PutResult.CREATED
    await store.delete(["k"])
    assert await store.put_if_absent("k", b"2") is PutResult.CREATED
    assert await store.get("k") == b"2"


async def test_missing_objects(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.get("nothing")
    with pytest.raises(ObjectMissing):
        await store.copy("nothing", "target")
    assert await store.head("nothing") is None
    assert await store.head("target") is None
    await store.delete(["nothing"])
    await store.delete([])


async def test_a_part_of_an_object_ends_where_the_object_ends(store: ObjectStore) -> None:
    await store.put("k", b"0123456789")
    assert await store.get_range("k", 2, 3) == b"234"
    assert await store.get_range("k", 0, 10) == b"0123456789"
    assert await store.get_range("k", 8, 99) == b"89"
    assert await store.get_range("k", 10, 1) == await store.get_range("k", 99, 5) == await store.get_range("k", 3, 0) == b""
    with pytest.raises(ObjectMissing):
        await store.get_range("nothing", 0, 1)


async def test_head_tells_size_and_age(store: ObjectStore) -> None:
    before_ms = SystemClock().now_ms()
    await store.put("k", b"12345")
    info = await store.head("k")
    assert info is not None
    assert (info.key, info.size) == ("k", 5)
    assert before_ms - 1000 <= info.last_modified_ms <= SystemClock().now_ms() + 1000


async def test_copy_replaces_and_keeps_the_source(store: ObjectStore) -> None:
    await store.put("jobdata/x=1/a", b"new")
    await store.put("data/a", b"old")
    await store.copy("jobdata/x=1/a", "data/a")
    assert await store.get("data/a") == await store.get("jobdata/x=1/a") == b"new"


async def test_listing_goes_in_key_order_behind_a_key_within_a_prefix(store: ObjectStore) -> None:
    for key in ("t/3", "t/1", "t/2", "t/10", "s/9", "u/0", "t"):
        await store.put(key, key.encode())
    assert await keys(store, "t/") == ["t/1", "t/10", "t/2", "t/3"]
    assert await keys(store, "t/", start_after="t/10") == ["t/2", "t/3"]
    assert await keys(store, "t/", start_after="t/15") == ["t/2", "t/3"]
    assert await keys(store, "t/", start_after="a") == ["t/1", "t/10", "t/2", "t/3"]
    assert await keys(store, "t/", start_after="t/3") == []
    assert await keys(store, "t/", start_after="z") == []
    assert await keys(store, "t/", limit=2) == ["t/1", "t/10"]
    assert await keys(store, "t/", start_after="t/1", limit=1) == ["t/10"]
    assert await keys(store, "") == ["s/9", "t", "t/1", "t/10", "t/2", "t/3", "u/0"]
    assert await keys(store, "nothing/") == []
    await store.delete(["t/10", "t/3"])
    assert await keys(store, "t/") == ["t/1", "t/2"]


async def test_listing_and_deleting_go_beyond_a_page_of_a_thousand(store: ObjectStore) -> None:
    names = [f"p/{n:05d}" for n in range(1011)]
    for start in range(0, len(names), 100):
        await asyncio.gather(*(store.put(name, b"") for name in names[start : start + 100]))
    assert await keys(store, "p/") == names
    assert await keys(store, "p/", start_after=names[0], limit=1005) == names[1:1006]
    await store.delete(names[1:])
    assert await keys(store, "p/") == names[:1]


async def test_the_clock_is_compared(store: ObjectStore) -> None:
    await store.put("k", b"")
    assert store.clock_skew_ms == 0


@pytest.mark.parametrize(
    ("sent_ms", "received_ms", "date_ms", "skew"),
    [(10_300, 10_400, 10_000, 0), (10_999, 11_001, 10_000, 0), (12_000, 12_100, 10_000, 1001), (3_000, 3_050, 10_000, -6950),
     (3_000, 40_000, 10_000, 0)],
)  # fmt: skip
def test_a_date_of_whole_seconds_proves_the_least_difference(
    sent_ms: int, received_ms: int, date_ms: int, skew: int
) -> None:
    assert skew_ms(sent_ms, received_ms, date_ms) == skew


async def test_a_clock_that_is_off_is_seen(aws_settings: Settings) -> None:
    readings: list[int] = []

    class Ahead(SystemClock):
        def now_ms(self) -> int:
            readings.append(super().now_ms() + 60_000)
            return readings[-1]

    store = S3ObjectStore(aws_settings, Ahead())
    await store.ensure()
    await store.put("k", b"")
    sent_ms, received_ms = readings[-2:]
    assert 60_000 - (received_ms - sent_ms) - 999 <= (store.clock_skew_ms or 0) <= 60_000
    await store.close()


async def test_ensure_may_be_called_again(aws_settings: Settings) -> None:
    store = S3ObjectStore(aws_settings)
    await store.ensure()
    await store.put("k", b"kept")
    await store.ensure()
    assert await store.get("k") == b"kept"
    await store.close()


async def test_a_bucket_that_is_not_there_is_no_missing_object(aws_settings: Settings) -> None:
    store = S3ObjectStore(aws_settings)
    for call in (store.get("k"), store.put("k", b""), store.put_if_absent("k", b""), store.copy("k", "l")):
        with pytest.raises(ServiceUnavailable, match="NoSuchBucket"):
            await call
    await store.close()


async def test_a_service_that_is_gone_is_unavailable(aws_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    port = own_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app.local.services.aws", "--port", str(port))
    try:
        await asyncio.to_thread(wait_ready, url, HANGS_S)
        store = S3ObjectStore(aws_settings)
        await store.ensure()
    finally:
        process.kill()
        await process.wait()
    for call in (store.put("k", b""), store.put_if_absent("k", b""), store.get("k"), store.head("k")):
        with pytest.raises(ServiceUnavailable):
            await call
    await store.close()


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown(
    aws_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        store = S3ObjectStore(aws_settings)
        with pytest.raises(OutcomeUnknown):
            await store.put("k", b"x")
        with pytest.raises(OutcomeUnknown):
            await store.put_if_absent("k", b"x")
        with pytest.raises(ServiceUnavailable):
            await store.get("k")
        await store.close()


@pytest.mark.parametrize(("conflicts", "ends"), [(2, PutResult.CREATED), (2, PutResult.EXISTS), (99, ServiceUnavailable)])
async def test_a_conflict_is_asked_again(
    conflicts: int, ends: Any, aws_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.adapters.s3.CONFLICT_BACKOFF", Backoff(first_s=0.001))
    asked = 0
    answers = {PutResult.CREATED: b"200 OK", PutResult.EXISTS: b"412 Precondition Failed", ServiceUnavailable: b"200 OK"}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while request := await reader.readuntil(b"\r\n\r\n"):
            assert b"if-none-match: *" in request.lower()
            if b"100-continue" in request.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(1)
            asked += 1
            status = b"409 Conflict" if asked <= conflicts else answers[ends]
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        store = S3ObjectStore(aws_settings)
        if isinstance(ends, PutResult):
            assert await store.put_if_absent("k", b"x") is ends
            assert asked == conflicts + 1
        else:
            with pytest.raises(ends):
                await store.put_if_absent("k", b"x")
        await store.close()


async def test_hooks_fail_the_twin_before_and_after() -> None:
    store = MemoryObjectStore()

    async def unavailable(call: str, key: str) -> None:
        raise ServiceUnavailable(f"{call} {key}")

    async def lost(call: str, key: str) -> None:
        raise OutcomeUnknown(f"{call} {key}")

    store.before = unavailable
    with pytest.raises(ServiceUnavailable, match="put k"):
        await store.put("k", b"1")
    store.before = None
    assert await store.head("k") is None
    store.after = lost
    with pytest.raises(OutcomeUnknown):
        await store.put("k", b"1")
    store.after = None
    assert await store.get("k") == b"1"
