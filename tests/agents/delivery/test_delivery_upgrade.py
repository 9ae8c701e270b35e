"""Delivery before a newer sink's transaction: that partition waits, the others are loaded (rule E10); and older files."""

from typing import Any

import polars as pl
import pytest

from app.core.delivery.load_plan import output_loads
from app.core.delivery.statements import copy
from app.core.formats import flow_files, flows
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import BY_NAME, Column, ColumnKind
from app.core.formats.object_keys import record_key
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import OutputObject, Ready
from app.errors import NewerFormat
from tests.agents.delivery.test_delivery_agent import MANIFESTS, Delivery
from tests.agents.delivery.test_delivery_in_memory import World
from tests.builders.newer import newer_record, upgrade
from tests.worlds.agent import new_member, until
from tests.worlds.warehouse import rows_of


async def test_a_newer_record_holds_up_its_own_partition_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for number in (1, 2, 3):
        await world.put(number, range(10 * number, 10 * number + 2))
        await world.put(number, range(10 * number + 5, 10 * number + 7), partition=1)
    key, store = record_key(1, 0, 2), world.ports[0]
    await store.put(key, newer_record(await store.get(key)))
    report = await world.deliver()
    why = "record 2 of partition 0 of epoch 1 of version 2, this reader knows versions up to 1: upgrade the delivery first"
    assert report.deferred is not None
    assert (report.deferred.reason, report.deferred.detail) == ("upgrade", why)
    assert world.log == [(0, 1, "loaded"), (1, 1, "loaded"), (1, 2, "loaded"), (1, 3, "loaded")]
    assert (await world.deliver()).loaded == ()  # it is neither skipped nor set aside, however often it is met
    upgrade(monkeypatch)
    report = await world.deliver()
    assert (len(report.loaded), report.deferred) == (2, None)
    assert world.log[:3] == [(0, 1, "loaded"), (0, 2, "loaded"), (0, 3, "loaded")]


@pytest.mark.parametrize(("renamed", "waits"), [("page_views", True), ("redirects", False)])
async def test_an_output_of_a_newer_sink_is_waited_for_as_soon_as_it_has_rows(renamed: str, waits: bool) -> None:
    world = World()
    await world.put(1, range(2))
    key, store = record_key(1, 0, 1), world.ports[0]
    body = await store.get(key)
    await store.put(key, body.replace(b'"output":"%s"' % renamed.encode(), b'"output":"refunds"'))
    report = await world.deliver()
    assert (report.deferred is not None and report.deferred.reason == "upgrade") is waits
    assert world.lines == ([] if waits else [0, 1])


async def test_a_byte_that_is_no_text_holds_up_its_own_partition_only() -> None:
    """It once ended the delivery of every partition."""
    world = World()
    await world.put(1, range(2))
    await world.put(1, range(5, 7), partition=1)
    key, store = record_key(1, 0, 1), world.ports[0]
    await store.put(key, (await store.get(key)).replace(b'"txn_id":"1', b'"txn_id":"\xff', 1))
    report = await world.deliver()
    assert report.deferred is not None
    assert report.deferred.reason == "chain"
    assert world.log == [(1, 1, "loaded")]


async def test_ready_says_what_to_upgrade_and_the_process_lives(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_member("delivery", tmp_path, monkeypatch, partitions=2, delivery_interval_s=0.01):
        delivery = Delivery()
        await delivery.ready()
        key = record_key(1, 0, 1)
        await delivery.sink.store.put(key, newer_record(delivery.sink.body(key)))
        await delivery.assign(MANIFESTS, 0)
        await until(lambda: delivery.crashes or "upgrade the delivery first" in (delivery.app.readiness() or ""))
        walks = delivery.walks
        await until(lambda: delivery.crashes or delivery.walks > walks + 1)
        assert (delivery.crashes, list(delivery.warehouse.log)) == ([], [])
        await delivery.revoke()


# --- files of an older version of their flow's columns


@pytest.fixture
def widened(monkeypatch: pytest.MonkeyPatch) -> flows.Flow:
    """`engagements` as it will be once a column has come to it, in the middle."""
    old = BY_NAME["engagements"]
    column = Column("attention", ColumnKind.INTEGER, since=old.version + 1)
    new = old._replace(columns=(*old.columns[:4], column, *old.columns[4:]))
    monkeypatch.setitem(BY_NAME, "engagements", new)
    monkeypatch.setattr("app.core.delivery.load_plan.OUTPUTS", tuple(BY_NAME.values()))
    return new


def file_of(output: str, **values: object) -> bytes:
    return encode_output(output, rows_of(output, 1, **values))


async def test_a_file_is_read_and_copied_by_the_columns_that_it_has(request: pytest.FixtureRequest) -> None:
    before = BY_NAME["engagements"].version
    older = file_of("engagements", event_id="old", reason="late")
    widened = request.getfixturevalue("widened")
    newer = file_of("engagements", event_id="new", attention=5)
    assert flow_files.frame_schema("engagements")["attention"] == pl.Int64()
    found = decode_output("engagements", older, before)
    assert found.columns == list(widened.names)
    assert found.select("event_id", "attention", "reason").row(0) == ("old", None, "late")
    assert decode_output("engagements", newer, before + 1).select("event_id", "attention").row(0) == ("new", 5)
    with pytest.raises(NewerFormat, match=f"columns of engagements of version {before + 2}"):
        decode_output("engagements", newer, before + 2)

    def transaction(number: int, **more: int) -> Ready:
        name = f"1-0-{number}-aa"
        out = OutputObject(output="engagements", rows=number, bytes=number, data_key=f"data/{name}", **more)
        return Ready(
            txn_id=name, epoch=1, partition=0, number=number, stream_time_ms=1, committed_at_ms=1, outputs=[out]
        )  # fmt: skip

    told = [transaction(1, version=before), *(transaction(n, version=before + 1) for n in (2, 4))]
    first, second = output_loads(told, "load", "lake")
    assert (first.manifest_key, first.rows) == (f"loads/load/engagements.v{before}.manifest", 1)
    assert (second.manifest_key, second.rows) == (f"loads/load/engagements.v{before + 1}.manifest", 6)
    (oldest,) = output_loads([transaction(1)], "load", "lake")
    assert oldest.manifest_key == "loads/load/engagements.manifest"
    texts = [copy(load.flow, "s3://lake/key", "default").text for load in (first, second)]
    assert ["attention" in text for text in texts] == [False, True]
    assert [b"1-0-1-aa" in load.manifest for load in (first, second)] == [True, False]
