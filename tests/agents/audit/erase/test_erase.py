"""A visitor leaves warehouse, files and raw files; the books balance, and nothing brings the lines back (rule R7)."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyroaring import BitMap

from agents.audit.erase.erase import ErasureRequest, erase
from agents.audit.erase.ports import ErasePorts, EraseReport, Left
from agents.audit.prove.hour import HourProof, prove_hour
from agents.audit.rebuild.offline import Core, run_partition
from agents.audit.rebuild.raw_blocks import BlockFiles, gather
from agents.audit.trace.ports import TracePorts
from agents.audit.trace.tracer import Tracer
from app.cli.erase import exit_code_of, lines_of
from app.core.audit.certificate import HOUR_MS, decode_certificate, encode_certificate
from app.core.audit.reconcile import read_lines
from app.core.formats.batch import SealedBatch, cut_again
from app.core.formats.erasure import decode_erasure, digest_of_visitor
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import FLOWS
from app.core.formats.object_keys import certificate_key, file_repair_key
from app.core.formats.raw_file import frames_in
from app.core.formats.read_files import decode_output
from app.core.rebuild.span import BatchSpan
from app.core.repair.file_repair import FileRepair, encode_file_repair
from app.core.repair.raw_file import item_of
from app.errors import RepairRefused, ServiceUnavailable
from app.testing.memory import MemoryFates
from app.testing.memory.engine import Disk
from tables.store.partition_store import PartitionStore
from tests.builders.events import event, parse
from tests.worlds.books import ALL_KINDS, RULES, SETTINGS, START_MS
from tests.worlds.repair import ENRICHER, RepairedBooks

ALICE, BOB = "alice-7", "bob"
KEY = "a key of sixteen or more"


def named(events: Any, visitor: str, mark: str) -> list[dict[str, Any]]:
    """The events with ids of their own, of a visitor."""
    return [
        each | {name: f"{each[name]}{mark}" for name in ("event_id", "page_view_id")} | {"visitor_id": visitor}
        for each in events
    ]


OF_ALICE = [
    *named(ALL_KINDS, ALICE, "a"),
    event("ad_click", event_id="server", page_view_id="v1a", ad_slot=2),  # names no visitor, and is of her page view
]
OF_BOB = named(ALL_KINDS, BOB, "b")


class ErasedBooks(RepairedBooks):
    """Books of two visitors, in batches that the audit has marked as complete."""

    async def filled(
        self, *batches: list[dict[str, Any]], complete: bool = True
    ) -> list[SealedBatch]:  # fmt: skip
        made = []
        for events in batches or ([*OF_ALICE, *OF_BOB], named(ALL_KINDS, BOB, "c")):
            made.append(await self.batch(events, malformed=0))
            await self.through()
            self.pass_s(30)
            await self.through()
            self.pass_s(30)
        if complete:
            for each in made:
                self.complete(each)
        return made

    async def erase(self, *visitors: str, apply: bool = True) -> EraseReport:
        ports = ErasePorts(self.ports, self.warehouse.connect)
        return await erase(ports, self.settings, ErasureRequest(visitors or (ALICE,)), apply=apply)

    async def traces(self, *needles: str) -> list[str]:
        """Where any of the texts still lies: tables and objects, less the topics and what a bucket's versions keep."""
        found = []
        for name, rows in self.warehouse.committed.tables.items():
            found += [name for row in rows if any(needle in str(row) for needle in needles)]
        async for info in self.store.list(""):
            body = await self.store.get(info.key)
            texts = b"".join(frame.text for frame in frames_in(body)) if info.key.startswith("raw/") else body
            found += [info.key for needle in needles if needle.encode() in texts]
        return found

    def outcomes(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for row in self.warehouse.rows("ledger"):
            counts[row["outcome"]] += row["lines"]
        return counts


async def books(*, complete: bool = True) -> ErasedBooks:
    world = ErasedBooks()
    await world.filled(complete=complete)
    assert (await world.audit()).is_clean
    return world


async def assert_whole(world: ErasedBooks) -> None:
    """Every check of the books is content, and a repair finds nothing to do."""
    assert (await world.audit()).differences == []
    for proof in await world.prove(*world.registry._items):
        assert proof.verdict == "PROVEN", proof
    for row in world.warehouse.rows("ledger"):
        assert row["lines"] == len(read_lines(row["line_set"]) or ())
    rows = sum(len(world.warehouse.rows(flow.name)) for flow in FLOWS)
    counts, lines = world.outcomes(), sum(item.line_count for item in world.registry._items.values())
    assert rows + counts["joined"] + counts["duplicate"] + counts["erased"] == lines == counts.total()
    before = await world.everything()
    assert (await world.repair(apply=True)).differences == []
    assert await world.everything() == before


async def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    world = await books()
    before = await world.everything()
    report = await world.erase(apply=False)
    assert await world.everything() == before
    (batch_id,) = report.lines
    assert report.lines[batch_id] == len(OF_ALICE)
    assert report.outcomes == {
        "ad_clicks": 2, "ad_impressions": 1, "duplicate": 1, "engagements": 1, "joined": 1, "page_views": 1, "redirects": 1,
        "rejected": 1,
    }  # fmt: skip
    assert (report.raw_files, report.waiting, report.refused, report.is_done) == (1, [], [], False)
    records = {record.txn_id: record for record in await world.records()}
    assert report.files > len(records) - 1


async def test_a_visitor_is_gone_and_the_books_balance() -> None:
    world = await books()
    bob = {flow.name: Counter(str(r) for r in world.warehouse.rows(flow.name) if BOB in str(r)) for flow in FLOWS}
    planned = await world.erase(apply=False)
    report = await world.erase()
    assert (report.is_done, report.outcomes, report.files) == (True, planned.outcomes, planned.files)
    assert await world.traces(ALICE, '"v1a"', "server") == []
    assert world.outcomes()["erased"] == len(OF_ALICE)
    for flow in FLOWS:
        kept = world.warehouse.rows(flow.name)
        assert Counter(row["event_id"] for row in kept).total() == bob[flow.name].total(), flow.name
    await assert_whole(world)
    erasure = decode_erasure(await world.store.get(f"erasures/{report.erasure_id}.json"))
    assert erasure.visitors == [digest_of_visitor(ALICE)]
    assert erasure.finished_at_ms is not None


def test_the_command_answers_in_words_and_with_exit_codes() -> None:
    planned = EraseReport(applied=False, outcomes={"page_views": 1, "joined": 1}, lines={"b1": 2}, files=2, raw_files=1)
    assert exit_code_of(planned) == 0
    said = "2 lines, 2 data files, 1 raw files would be erased: --apply"
    assert lines_of(planned) == ["batch b1: 2 lines", "    page_views: 1", "    joined: 1", said]
    done = msgspec.structs.replace(planned, applied=True, erasure_id="7-ab")
    assert (exit_code_of(done), lines_of(done)[-1]) == (0, "2 lines, 2 data files, 1 raw files: erasure 7-ab")
    late = EraseReport(applied=True, waiting=[Left(batch_id="b2", lines=3, reason="it is on its way")])
    assert (exit_code_of(late), lines_of(late)) == (
        3, ["waiting: batch b2, 3 lines: it is on its way", "no line can be erased yet"],
    )  # fmt: skip
    bad = EraseReport(applied=True, refused=[Left(txn_id="1-0-7-ab", reason="its file is damaged")])
    assert (exit_code_of(bad), lines_of(bad)[0]) == (1, "NOT erased: transaction 1-0-7-ab: its file is damaged")
    died = EraseReport(applied=False, resumed=["6-ab"])
    assert (exit_code_of(died), exit_code_of(msgspec.structs.replace(died, applied=True))) == (3, 0)


async def test_a_second_run_finds_nothing_and_changes_nothing() -> None:
    world = await books()
    await world.erase()
    before = await world.everything()
    report = await world.erase()
    assert (report.is_done, report.lines, report.outcomes, report.erasure_id, report.resumed) == (True, {}, {}, "", [])
    assert await world.everything() == before
    assert (await world.erase("nobody")).lines == {}


async def test_files_that_have_no_row_left_are_gone_and_the_transaction_says_so() -> None:
    world = await books()
    report = await world.erase(ALICE, BOB)
    assert report.is_done
    assert await world.traces(ALICE, BOB) == []
    assert [len(world.warehouse.rows(flow.name)) for flow in FLOWS] == [0] * len(FLOWS)
    assert [info.key async for info in world.store.list("data/") if not info.key.startswith("data/ledger/")] == []
    await assert_whole(world)


async def test_what_is_on_its_way_waits() -> None:
    world = await books(complete=False)
    before = await world.everything()
    report = await world.erase()
    assert (report.is_done, report.lines, [left.lines for left in report.waiting]) == (False, {}, [len(OF_ALICE)])
    assert "has not marked it" in report.waiting[0].reason
    assert await world.everything() == before
    for item in list(world.registry._items.values()):
        await world.registry.complete(item.batch_id)
    assert (await world.erase()).is_done


async def test_a_raw_file_keeps_its_blocks_and_its_item_follows_from_it() -> None:
    world = await books()
    first = next(iter(world.registry._items.values()))
    await world.erase()
    item = world.registry._items[first.batch_id]
    raw = await world.store.get(item.raw_key)
    assert [(b.partition, b.first_line, b.lines) for b in item.blocks] == [
        (b.partition, b.first_line, b.lines) for b in first.blocks
    ]
    assert item.sha256 != first.sha256
    assert item_of(raw, item.batch_id, 1, 1) == msgspec.structs.replace(item, state=first.state.OPEN)
    world.registry.forget(item.batch_id)
    assert (await world.repair(apply=True)).is_mended
    assert world.registry._items[item.batch_id].sha256 == item.sha256


@pytest.mark.parametrize("lose", ["data/page_views/", "data/ledger/", "manifests/", "raw/", "rows"])
async def test_a_repair_brings_nothing_back(lose: str) -> None:
    world = await books()
    await world.erase()
    erased = await world.everything()
    if lose == "rows":
        for table in world.warehouse.committed.tables:
            world.change_rows(table, lambda rows: rows[1:])
    else:
        await world.store.delete([info.key async for info in world.store.list(lose)])
    report = await world.repair(apply=True)
    assert report.is_mended, [each.reason for each in report.differences]
    assert await world.everything() == erased


async def test_a_batch_that_is_sent_again_brings_nothing_back() -> None:
    world = await books()
    await world.erase()
    before = {name: len(rows) for name, rows in world.warehouse.committed.tables.items() if name != "replays"}
    for item in world.registry._items.values():
        for block in cut_again(await world.store.get(item.raw_key), item, 1):
            world.logs.append(world.topics.blocks.name, 0, block)
    world.pass_s(60)
    await world.through()
    assert {name: len(rows) for name, rows in world.warehouse.committed.tables.items() if name != "replays"} == before


async def test_a_rebuild_makes_the_books_that_are_there(tmp_path: Path) -> None:
    world = await books()
    await world.erase()
    fates = {
        (row["batch_id"], line): row["outcome"]
        for row in world.warehouse.rows("ledger") for line in read_lines(row["line_set"]) or ()
    }  # fmt: skip
    duplicates = {
        row["batch_id"]: read_lines(row["line_set"]) or BitMap()
        for row in world.warehouse.rows("ledger") if row["outcome"] == "duplicate"
    }  # fmt: skip
    files, disk, span = BlockFiles(tmp_path), Disk(), BatchSpan(START_MS - HOUR_MS, START_MS + HOUR_MS)
    await gather(world.store, world.registry, span.widened(RULES.join, 0), files)
    core = Core(RULES, ENRICHER, lambda: PartitionStore(disk.open("rebuild"), RULES.dedup_window_ms))
    made = [part for each in files.partitions() for part in run_partition(files, each, core, span, duplicates)]
    again = {
        (entry.batch_id, line): entry.outcome
        for part in made for entry in part.ledger for line in BitMap.deserialize(entry.line_set)
    }  # fmt: skip
    assert again == fates
    ids = [event_id for part in made for frame in part.rows.values() for event_id in frame["event_id"].to_list()]
    assert Counter(ids) == Counter(row["event_id"] for flow in FLOWS for row in world.warehouse.rows(flow.name))


async def test_rows_whose_files_have_expired_are_erased() -> None:
    world = await books()
    await world.store.delete([info.key async for info in world.store.list("raw/")])
    await world.store.delete([info.key async for info in world.store.list("data/")])
    for batch_id in list(world.registry._items):
        world.registry.forget(batch_id)
    days = {"retention_raw_days": 14, "retention_data_days": 14}
    world.settings = SETTINGS.model_copy(update=days)
    world.at_ms += 20 * 86_400_000
    assert (await world.erase()).is_done
    assert [name for name in await world.traces(ALICE) if not name.startswith("data/")] == []
    assert (await world.audit()).differences == []


@pytest.mark.parametrize("payload", [
    b'{"visitor_id": "alice-7", "page_view_id": "q"', b'{"visitor_id":"alice-7"}', b"\xff" + b'{"visitor_id":"alice-7"}',
])  # fmt: skip
async def test_malformed_lines_that_name_the_visitor_are_erased(payload: bytes) -> None:
    world = ErasedBooks()
    await world.batch_of([parse(each, received_at_ms=world.at_ms) for each in (payload, b'{"other":"alice-7"')])
    await world.through()
    world.pass_s(30)
    await world.through()
    for item in list(world.registry._items.values()):
        await world.registry.complete(item.batch_id)
    report = await world.erase()
    assert (report.is_done, report.outcomes) == (True, {"rejected": 1})
    assert len(await world.traces('"other')) > 0
    await assert_whole(world)


async def test_a_trace_says_that_a_line_was_erased() -> None:
    world = await books()
    (batch_id,) = (await world.erase()).lines

    async def logs() -> Any:
        return world.logs

    ports = TracePorts(world.store, world.registry, world.ledger, MemoryFates(world.warehouse), logs, world)
    trace = await Tracer(ports, world.settings).line(batch_id, 0)
    assert [(line.fate, line.event_id, line.row_visible_at) for line in trace.lines] == [("erased", None, None)]
    assert "instream erase" in trace.lines[0].reason


async def certificate(world: ErasedBooks) -> HourProof:
    return await prove_hour(world.ports, world.prover(), START_MS // HOUR_MS * HOUR_MS, KEY, lambda *_: None)


async def certified() -> tuple[ErasedBooks, bytes]:
    """Books whose hour has a signed certificate."""
    world = await books()
    world.settings = SETTINGS.model_copy(update={"certificate_key": KEY})
    world.at_ms += HOUR_MS
    body = encode_certificate((await certificate(world)).certificate)
    await world.store.put(certificate_key(START_MS), body)
    assert (await certificate(world)).stored_certificate == "same"
    return world, body


async def test_certificates_follow_and_balance() -> None:
    world, before = await certified()
    assert (await world.erase()).is_done
    found = await certificate(world)
    assert (found.stored_certificate, found.verdict, found.certificate.difference) == ("same", "PROVEN", 0)
    assert found.certificate.outcomes["erased"] == len(OF_ALICE)
    assert await world.store.get(certificate_key(START_MS)) != before


async def test_a_certificate_that_cannot_be_signed_again_or_was_wrong_is_no_victim() -> None:
    world, before = await certified()
    world.settings = SETTINGS
    state = await world.everything()
    with pytest.raises(RepairRefused, match="set INSTREAM_CERTIFICATE_KEY"):
        await world.erase()
    assert await world.everything() == state
    world, before = await certified()
    wrong = msgspec.structs.replace(decode_certificate(before), lines=1)
    await world.store.put(certificate_key(START_MS), encode_certificate(wrong))
    assert (await world.erase()).is_done
    assert await world.store.get(certificate_key(START_MS)) == encode_certificate(wrong)


async def test_a_certificate_that_the_audit_writes_in_between_follows() -> None:
    world = await books()
    world.settings = SETTINGS.model_copy(update={"certificate_key": KEY})
    world.at_ms += HOUR_MS

    async def certify(call: str, subject: str) -> None:
        if call == "put" and subject.startswith("transactions/"):
            world.store.after = None
            body = encode_certificate((await certificate(world)).certificate)
            await world.store.put(certificate_key(START_MS), body)

    world.store.after = certify
    assert (await world.erase()).is_done
    found = await certificate(world)
    assert (found.stored_certificate, found.verdict) == ("same", "PROVEN")


async def test_a_file_that_a_repair_made_with_other_bytes_is_erased_from() -> None:
    world = await books()
    for record in (await world.records())[:-1]:
        for out in record.outputs:
            if out.output in {"ledger", "ad_clicks"} and out.data_key:
                frame = decode_output(out.output, await world.store.get(out.data_key), out.columns_version)
                body = encode_output(out.output, frame.reverse())
                await world.store.put(out.data_key, body)
                said = FileRepair(
                    txn_id=record.txn_id, output=out.output, recorded_sha256=out.sha256, rows=out.rows, bytes=len(body),
                    sha256=hashlib.sha256(body).hexdigest(), columns_version=out.columns_version, made_at_ms=0, source="raw",
                )  # fmt: skip
                await world.store.put(file_repair_key(record.txn_id, out.output), encode_file_repair(said))
    await world.repair(apply=True)  # manifests follow
    assert (await world.audit()).is_clean
    assert (await world.erase()).is_done
    assert await world.traces(ALICE, '"v1a"') == []
    await assert_whole(world)


async def test_two_erasures_side_by_side_do_not_undo_each_other() -> None:
    world = await books()
    reports = await asyncio.gather(world.erase(ALICE), world.erase(BOB))
    if not all(report.is_done for report in reports):  # one of them saw the other's half
        assert (await world.erase(ALICE, BOB)).is_done
    assert await world.traces(ALICE, BOB) == []
    await assert_whole(world)


CALLS = ("put", "delete", "amend", "commit", "copy")


class Died(Exception):
    """The process ended."""


async def test_an_erasure_that_dies_at_any_change_is_finished_by_the_next() -> None:
    """After each change in S3, registry and warehouse; a repair, or an erasure of somebody else, may come first."""
    of_alice = named([*ALL_KINDS[:2], ALL_KINDS[4]], ALICE, "a")

    async def few() -> ErasedBooks:
        world = ErasedBooks()
        await world.filled([*of_alice, *named(ALL_KINDS[:1], BOB, "b")])
        return world

    changes = await _changes(await few())
    assert len(changes) > 15
    every_third = [(moment, True) for moment in range(0, len(changes), 3)]
    for moment, is_repaired in [*((moment, False) for moment in range(len(changes))), *every_third]:
        world, change = await few(), changes[moment]
        await _dying(world, moment)
        if is_repaired:
            await world.repair(apply=True)
        if moment % 2:
            assert (await world.erase("nobody")).is_done, (moment, change)
        report = await world.erase()
        assert report.is_done, (moment, change, report.refused)
        assert await world.traces(ALICE, '"v1a"') == [], (moment, change)
        assert (await world.audit()).differences == [], (moment, change)
        assert world.outcomes()["erased"] == len(of_alice), (moment, change)
    await assert_whole(world)


def _hook(world: ErasedBooks, act: Any) -> None:
    for place in (world.store, world.registry, world.warehouse):
        place.after = act


async def _changes(world: ErasedBooks) -> list[str]:
    seen: list[str] = []

    async def note(call: str, subject: str) -> None:
        if call in CALLS and not str(subject).startswith("loads/"):
            seen.append(f"{call} {subject}")

    _hook(world, note)
    await world.erase()
    return seen


async def _dying(world: ErasedBooks, moment: int) -> None:
    seen = 0

    async def die(call: str, subject: str) -> None:
        nonlocal seen
        if call in CALLS and not str(subject).startswith("loads/"):
            seen += 1
            if seen == moment + 1:
                raise Died

    _hook(world, die)
    with pytest.raises((Died, ServiceUnavailable)):
        await world.erase()
    for place in (world.store, world.registry, world.warehouse):
        place.after = None
    for session in list(world.warehouse.sessions):
        session.drop()
