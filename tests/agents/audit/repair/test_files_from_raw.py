"""Data files whose messages are gone from topic `rows` are made again from raw files, as the ledger says (rule R6)."""

import hashlib

import polars as pl
import pytest

from agents.delivery.release import Released, release
from app.core.audit.deep.rows import are_equal, normalised
from app.core.audit.differences import DifferenceKind
from app.core.audit.proof import Verdict
from app.core.enrich.enrich import Enricher, Location
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import FLOWS, OUTPUTS, PAGE_VIEWS
from app.core.formats.object_keys import file_repair_key, record_key
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.file_repair import FileRepair, encode_file_repair, read_file_repair, repaired
from app.errors import ServiceUnavailable
from tests.worlds.repair import RepairedBooks

ELSEWHERE = Enricher({}, {}, location_of=lambda _: Location("NO", None, "Bergen"))
"""A geo database that was not there when the rows were made."""


async def books() -> RepairedBooks:
    """Transactions whose messages are gone by retention, but for the last one's."""
    world = RepairedBooks()
    await world.settled()
    last = (await world.records())[-1]
    world.logs.trim(world.topics.rows.name, 0, last.first_offset)
    assert (await world.audit()).is_clean
    return world


async def rows_in_file(world: RepairedBooks, record: TransactionRecord, output: str) -> pl.DataFrame:
    body = await world.store.get(record.output(output).data_key or "")
    return normalised(output, decode_output(output, body))


async def drop_files(world: RepairedBooks, *outputs: str) -> dict[tuple[str, str], pl.DataFrame]:
    """Drop the files of all transactions but the last. Returns: (transaction, output) -> the rows of each."""
    dropped = {}
    for record in (await world.records())[:-1]:
        for output in outputs:
            if record.output(output).rows:
                dropped[record.txn_id, output] = await rows_in_file(world, record, output)
                await world.store.delete([record.output(output).data_key or ""])
    assert dropped
    return dropped


async def quarantine(world: RepairedBooks, record: TransactionRecord) -> None:
    world.change_log(
        lambda log: [row._replace(status="quarantined", detail="bad") if row.txn_id == record.txn_id else row for row in log]
    )
    for table in world.warehouse.committed.tables:
        world.change_rows(table, lambda rows: [row for row in rows if row["txn_id"] != record.txn_id])


async def mended(world: RepairedBooks) -> None:
    """Repair, and see that nothing is left to do, and that every proof holds."""
    report = await world.repair(apply=True)
    assert [(each.kind, each.flow, each.reason) for each in report.differences if not each.done] == []
    assert report.is_mended
    proofs = await world.prove(*world.registry._items)
    assert [(proof.verdict, proof.links) for proof in proofs if proof.verdict is not Verdict.PROVEN] == []
    before = await world.everything()
    assert (await world.repair(apply=True)).differences == []
    assert await world.everything() == before


@pytest.mark.parametrize(
    "outputs", [[flow.name for flow in FLOWS], ["ledger"], [flow.name for flow in OUTPUTS]], ids=["flows", "ledger", "all"]
)
async def test_lost_files_come_back_with_the_rows_that_they_had(outputs: list[str]) -> None:
    world = await books()
    clean = await world.everything()
    dropped = await drop_files(world, *outputs)
    await mended(world)
    after = await world.everything()
    assert (after["tables"], after["log"], after["registry"]) == (clean["tables"], clean["log"], clean["registry"])
    records = {record.txn_id: record for record in await world.records()}
    for (txn_id, output), rows in dropped.items():
        record = records[txn_id]
        assert are_equal(await rows_in_file(world, record, output), rows), output
        assert after["objects"][record_key(1, 0, record.number)] == clean["objects"][record_key(1, 0, record.number)]
        body = after["objects"][record.output(output).data_key or ""]
        if body != clean["objects"][record.output(output).data_key or ""]:
            said = read_file_repair(after["objects"][file_repair_key(txn_id, output)], "")
            assert (said.sha256, said.rows) == (hashlib.sha256(body).hexdigest(), rows.height)
            assert said.recorded_sha256 == record.output(output).sha256


async def test_a_quarantined_transaction_with_a_file_that_was_made_again_is_loaded() -> None:
    world = await books()
    clean = await world.everything()
    record = await world.record_with("page_views")
    await quarantine(world, record)
    await world.store.put(record.output("page_views").data_key or "", b"garbage")
    await mended(world)
    after = await world.everything()
    assert (after["tables"], after["log"]) == (clean["tables"], clean["log"])


async def test_an_operator_releases_a_transaction_with_a_file_that_was_made_again() -> None:
    world = await books()
    record = await world.record_with("page_views")
    await quarantine(world, record)
    out = record.output("page_views")
    rows = await rows_in_file(world, record, "page_views")
    body = encode_output("page_views", rows.with_columns(city=pl.lit("Bergen of a longer name")))
    said = FileRepair(
        txn_id=record.txn_id, output="page_views", recorded_sha256=out.sha256, sha256=hashlib.sha256(body).hexdigest(),
        bytes=len(body), rows=out.rows, columns_version=PAGE_VIEWS.version, made_at_ms=1, source="a test",
    )  # fmt: skip
    await world.store.put(out.data_key or "", body)
    await world.store.put(file_repair_key(record.txn_id, "page_views"), encode_file_repair(said))
    released = await release(world.store, world.warehouse.connect, world.settings, world, record.txn_id)
    assert released.result is Released.LOADED
    await mended(world)  # manifests and ready.json follow
    links = [link for proof in await world.prove(*world.registry._items) for link in proof.links]
    assert any("1 were made again" in link.detail for link in links)


async def test_the_warehouse_keeps_what_enrichment_said_then_and_lost_rows_get_what_it_says_now() -> None:
    world = await books()
    world.change_rows("page_views", lambda rows: [row | {"city": "Oslo", "title": "changed"} for row in rows])
    world.enricher = ELSEWHERE
    record = await world.record_with("page_views")
    other = [each for each in await world.records() if each.output("page_views").rows][1]
    await drop_files(world, "page_views")
    await quarantine(world, record)
    assert (await world.repair(apply=True)).is_mended
    assert set((await rows_in_file(world, record, "page_views"))["country"]) == {"NO"}
    said = read_file_repair(await world.store.get(file_repair_key(record.txn_id, "page_views")), "")
    assert "raw files and the ledger" in said.source
    assert record.output("page_views").sha256 == said.recorded_sha256 != said.sha256
    found = {row["txn_id"]: (row["title"], row["city"]) for row in world.warehouse.rows("page_views")}
    assert found[record.txn_id][0] == found[other.txn_id][0] == 'a "title"'


@pytest.mark.parametrize("died_at", range(1, 5))
async def test_a_mend_that_dies_is_done_by_the_next_one(died_at: int) -> None:
    world = await books()
    world.enricher = ELSEWHERE  # so that the bytes are others
    record = await world.record_with("page_views")
    await quarantine(world, record)
    await world.store.delete([record.output("page_views").data_key or ""])
    puts = 0

    async def dying(call: str, _: str) -> None:
        nonlocal puts
        puts += call == "put"
        if call == "put" and puts >= died_at:
            raise ServiceUnavailable("the process was killed here")

    world.store.before = dying
    await world.repair(apply=True)
    world.store.before = None
    await mended(world)


async def test_other_bytes_are_not_stored_for_the_last_transaction_of_a_chain() -> None:
    """Its sink finishes it again at its start, and ends if a file is not the recorded one."""
    world = RepairedBooks()
    await world.settled()
    world.enricher, output = ELSEWHERE, "page_views"
    record = (await world.records())[-1]
    world.change_rows(output, lambda rows: [row | {"title": "changed"} for row in rows])
    world.logs.trim(world.topics.rows.name, 0, record.last_offset + 1)
    await world.store.delete([record.output(output).data_key or ""])
    report = await world.repair(apply=True)
    reasons = {each.reason for each in report.differences if each.kind is DifferenceKind.FILE_LOST}
    assert ["last of its chain" in reason for reason in reasons] == [True]
    assert file_repair_key(record.txn_id, output) not in (await world.everything())["objects"]


async def test_without_a_ledger_nothing_says_which_lines_the_file_had() -> None:
    world = await books()
    record = await world.record_with("page_views")
    await quarantine(world, record)
    await world.store.delete([record.output(name).data_key or "" for name in ("page_views", "ledger")])
    report = await world.repair(apply=True)
    reasons = {each.reason for each in report.differences if each.kind is DifferenceKind.FILE_LOST}
    assert len(reasons) == 1
    assert "nothing has the transaction's ledger" in reasons.pop()


async def test_a_ledger_that_contradicts_the_rows_is_no_source() -> None:
    world = await books()
    await drop_files(world, "ledger")
    world.change_rows("ledger", lambda rows: [row | {"outcome": "redirects"} for row in rows])
    report = await world.repair(apply=True)
    assert not report.is_mended
    assert any("contradicts its rows" in each.reason for each in report.differences)


async def test_a_file_that_is_the_recorded_one_needs_no_repair_whatever_a_file_repair_says() -> None:
    world = await books()
    record = await world.record_with("page_views")
    out = record.output("page_views")
    said = FileRepair(
        txn_id=record.txn_id, output="page_views", recorded_sha256=out.sha256, sha256="ab", bytes=1, rows=out.rows,
        columns_version=1, made_at_ms=1, source="a test",
    )  # fmt: skip
    assert repaired(record, [said], {"page_views": out.sha256}) is record
    assert repaired(record, [said], {"page_views": "ab"}).output("page_views").bytes == 1
    other_rows = FileRepair(**{name: getattr(said, name) for name in said.__struct_fields__} | {"rows": out.rows + 1})
    assert repaired(record, [other_rows], {"page_views": "ab"}) is record
    await world.store.put(file_repair_key(record.txn_id, "page_views"), encode_file_repair(said))
    assert (await world.audit()).is_clean
    await world.store.put(file_repair_key(record.txn_id, "page_views"), b"no json")
    await world.store.delete([out.manifest_key or ""])
    assert (await world.repair(apply=True)).is_mended
