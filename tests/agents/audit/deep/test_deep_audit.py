"""The deep audit names each planted damage by batch, line and flow, and nothing that is only late."""

import base64
import hashlib

import msgspec
import polars as pl
import pytest
from pyroaring import BitMap

from agents.audit.deep.report import Span
from app.core.audit.differences import Difference, DifferenceKind, in_ranges
from app.core.audit.proof import Verdict
from app.core.formats.batch import new_batch_id
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import FLOWS, OUTPUTS
from app.core.formats.object_keys import raw_key, record_key
from app.core.formats.read_files import decode_output
from app.core.formats.registry_item import encode_item
from app.core.sink.chain import effects_of, encode_record
from tests.worlds.books import ALL_KINDS, SETTINGS, START_MS, Books

FLOW_NAMES = [flow.name for flow in FLOWS]


async def books() -> Books:
    made = Books()
    for batch in await made.settled():
        made.complete(batch)
    return made


async def found(world: Books) -> list[tuple[str, str, str, list[int]]]:
    report = await world.audit()
    assert not report.unchecked
    return [(one.kind.value, one.batch_id, one.flow, one.lines) for one in report.differences]


def of_flow(world: Books, flow: str) -> tuple[str, int]:
    """Batch and line of a flow's first row."""
    row = world.warehouse.rows(flow)[0]
    return row["batch_id"], row["line"]


async def lines_of(world: Books, number: int) -> dict[str, list[int]]:
    """Batch -> lines of one transaction, by its ledger."""
    record = (await world.records())[number - 1]
    frame = decode_output("ledger", await world.store.get(record.output("ledger").data_key))
    lines: dict[str, BitMap] = {}
    for batch_id, line_set in frame.select("batch_id", "line_set").iter_rows():
        lines[batch_id] = lines.get(batch_id, BitMap()) | BitMap.deserialize(base64.b64decode(line_set))
    return {batch_id: list(each) for batch_id, each in lines.items()}


async def test_a_settled_world_has_no_difference_and_everything_is_counted():
    world = await books()
    report = await world.audit()
    assert report.is_clean, report
    assert (report.batches, report.raw_files, report.transactions, report.steps) == (2, 2, 4, 4)
    assert report.rows == sum(len(world.warehouse.rows(flow.name)) for flow in OUTPUTS)
    assert all(world.warehouse.rows(flow) for flow in FLOW_NAMES)


async def test_what_is_only_late_is_no_difference():
    world = await books()
    await world.batch([each | {"event_id": f"late-{n}", "page_view_id": f"late-{n}"} for n, each in enumerate(ALL_KINDS)])
    for stage in ("nothing", "step", "commit", "deliver"):
        if stage == "step":
            world.step()
        elif stage != "nothing":
            await getattr(world, stage)()
        report = await world.audit()
        assert report.is_clean, (stage, report.differences)
        assert report.late_batches == 1
        assert report.late_transactions == (stage == "commit")


@pytest.mark.parametrize("call", ["delivery", "log", "rows", "transactions"])
async def test_what_is_loaded_while_the_audit_reads_is_no_difference(call):
    world = await books()
    await world.batch([each | {"event_id": f"new-{n}", "page_view_id": f"new-{n}"} for n, each in enumerate(ALL_KINDS)])
    world.step()
    await world.commit()
    loaded = []

    async def load(made: str, _: str) -> None:
        if made == call and not loaded:
            loaded.append(made)
            await world.deliver()

    (world.ledger if call == "delivery" else world.rows).after = load
    report = await world.audit()
    assert loaded
    assert report.is_clean, report.differences


async def test_a_raw_file_that_was_never_registered_is_named_and_is_no_difference():
    world = await books()
    batch_id = new_batch_id(START_MS, bytes(10))
    key = raw_key(batch_id, START_MS)
    await world.store.put(key, b"whatever")
    report = await world.audit()
    assert report.is_clean
    assert report.unregistered == [key]


@pytest.mark.parametrize("flow", FLOW_NAMES)
async def test_lost_doubled_changed_and_foreign_rows_are_told_apart(flow):
    world = await books()
    batch_id, line = of_flow(world, flow)
    clean = world.warehouse.committed
    world.change_rows(flow, lambda rows: rows[1:])
    assert await found(world) == [("rows_lost", batch_id, flow, [line])]
    world.warehouse.committed = clean
    world.change_rows(flow, lambda rows: [*rows, rows[0]])
    assert await found(world) == [("rows_doubled", batch_id, flow, [line])]
    world.warehouse.committed = clean
    world.change_rows(flow, lambda rows: [rows[0] | {"event_id": "other"}, *rows[1:]])
    assert await found(world) == [("rows_changed", batch_id, flow, [line])]
    world.warehouse.committed = clean
    world.change_rows(flow, lambda rows: [*rows, rows[0] | {"line": 77}])
    assert await found(world) == [("rows_foreign", batch_id, flow, [77])]
    world.warehouse.committed = clean
    world.change_rows(flow, lambda rows: [*rows, rows[0] | {"txn_id": "1-0-99-abcd"}, rows[0] | {"txn_id": "x"}])
    assert await found(world) == [("rows_foreign", batch_id, flow, [line])] * 2
    world.warehouse.committed = clean
    assert await found(world) == []


async def test_an_empty_text_in_the_file_is_null_in_the_warehouse():
    world = await books()
    record = await world.record_with("page_views")
    out = record.output("page_views")
    frame = decode_output("page_views", await world.store.get(out.data_key))
    empty = encode_output("page_views", frame.with_columns(section=pl.lit("")))
    await replace_file(world, record, "page_views", empty)
    assert await found(world) == []


async def replace_file(world: Books, record, output: str, body: bytes) -> None:
    """Another data file, to which record, manifest and ready.json agree."""
    digest = hashlib.sha256(body).hexdigest()
    outputs = [
        msgspec.structs.replace(out, bytes=len(body), sha256=digest) if out.output == output else out
        for out in record.outputs
    ]
    changed = msgspec.structs.replace(record, outputs=outputs)
    await world.store.put(record_key(1, 0, record.number), encode_record(changed))
    await world.store.put(record.output(output).data_key, body)
    effects = effects_of(changed, world.store.bucket)
    for put in (*effects.manifests, effects.ready):
        await world.store.put(put.key, put.body)


async def test_rows_of_the_ledger_are_named_by_their_lines():
    world = await books()
    row = next(row for row in world.warehouse.rows("ledger") if row["outcome"] == "duplicate")
    lines = list(BitMap.deserialize(base64.b64decode(row["line_set"])))
    world.change_rows("ledger", lambda rows: [each for each in rows if each is not row])
    assert await found(world) == [("rows_lost", row["batch_id"], "ledger", lines)]
    world.change_rows("ledger", lambda rows: [*rows, row, row])
    assert sorted(await found(world)) == [
        ("lines_doubled", row["batch_id"], "duplicate", lines), ("rows_doubled", row["batch_id"], "ledger", lines),
    ]  # fmt: skip


async def test_lines_that_no_ledger_has_are_lost_and_named():
    world = await books()
    batch_id, lines = next(iter((await lines_of(world, 1)).items()))
    for number in (1, 2):
        record = (await world.records())[number - 1]
        frame = decode_output("ledger", await world.store.get(record.output("ledger").data_key))
        left = frame.filter(pl.col("outcome") != "duplicate")
        await replace_file(world, record, "ledger", encode_output("ledger", left))
    wanted = {"outcome": "duplicate", "batch_id": batch_id}
    doubles = [row for row in world.warehouse.rows("ledger") if wanted.items() <= row.items()]
    lost = list(BitMap.deserialize(base64.b64decode(doubles[0]["line_set"])))
    world.change_rows("ledger", lambda rows: [row for row in rows if row not in doubles])
    assert ("lines_lost", batch_id, "", lost) in await found(world)
    assert set(lost) <= set(lines)


async def test_raw_files_and_registry_items():
    world = await books()
    item = next(iter(world.registry._items.values()))
    every = list(range(item.line_count))
    raw = await world.store.get(item.raw_key)
    await world.store.delete([item.raw_key])
    assert await found(world) == [("raw_lost", item.batch_id, "", every)]
    await world.store.put(item.raw_key, raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])
    assert await found(world) == [("raw_changed", item.batch_id, "", every)]
    await world.store.put(item.raw_key, raw[:-1])
    assert await found(world) == [("raw_changed", item.batch_id, "", every)]
    await world.store.put(item.raw_key, raw)
    world.registry._items[item.batch_id] = msgspec.structs.replace(item, sha256="0" * 64)
    assert await found(world) == [("registry_changed", item.batch_id, "", every)]
    world.registry._items[item.batch_id] = msgspec.structs.replace(item, raw_key="raw/elsewhere")
    assert await found(world) == [("registry_changed", item.batch_id, "", every)]
    del world.registry._items[item.batch_id]
    assert await found(world) == [("registry_lost", item.batch_id, "", every)]
    world.registry.stored = [encode_item(item) | {"line_count": {"N": "3"}}]
    assert await found(world) == [("registry_changed", item.batch_id, "", [])]
    world.registry.stored = []
    await world.store.delete([item.raw_key])
    assert sorted(await found(world)) == [
        ("raw_lost", item.batch_id, "", every), ("registry_lost", item.batch_id, "", every),
    ]  # fmt: skip


@pytest.mark.parametrize("output", [*FLOW_NAMES, "ledger"])
async def test_data_files_that_are_gone_or_damaged_are_named_by_their_lines(output):
    world = await books()
    record = await world.record_with(output)
    key = record.output(output).data_key
    body = await world.store.get(key)
    if output == "ledger":
        ((batch_id, lines),) = (await lines_of(world, record.number)).items()
    else:
        batch_id, _ = of_flow(world, output)
        lines = sorted(row["line"] for row in world.warehouse.rows(output) if row["txn_id"] == record.txn_id)
    await world.store.delete([key])
    assert await found(world) == [("file_lost", batch_id, output, lines)]
    await world.store.put(key, body[: len(body) // 2])
    assert await found(world) == [("file_changed", batch_id, output, lines)]
    if output != "ledger":  # the warehouse is still compared, by the ledger's lines
        _, gone = of_flow(world, output)
        world.change_rows(output, lambda rows: rows[1:])
        assert ("rows_lost", batch_id, output, [gone]) in await found(world)


async def test_a_damaged_file_that_can_be_read_names_only_the_lines_that_differ():
    world = await books()
    record = await world.record_with("rejected")
    out = record.output("rejected")
    frame = decode_output("rejected", await world.store.get(out.data_key))
    assert frame.height == 2
    changed = frame.with_columns(reason=pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("x")).otherwise("reason"))
    await world.store.put(out.data_key, encode_output("rejected", changed))
    assert await found(world) == [("file_changed", frame["batch_id"][0], "rejected", [frame["line"][1]])]


async def test_manifests_ready_and_records():
    world = await books()
    record = (await world.records())[0]
    ((batch_id, lines),) = (await lines_of(world, 1)).items()
    clean = {info.key: await world.store.get(info.key) async for info in world.store.list("")}

    async def after(key: str, body: bytes | None) -> list[tuple[str, str, str, list[int]]]:
        await (world.store.delete([key]) if body is None else world.store.put(key, body))
        answer = await found(world)
        await world.store.put(key, clean[key])
        return answer

    manifest = record.output("redirects").manifest_key
    of_redirects = [row["line"] for row in world.warehouse.rows("redirects") if row["txn_id"] == record.txn_id]
    assert await after(manifest, None) == [("manifest_lost", batch_id, "redirects", of_redirects)]
    assert await after(manifest, b'{"entries":[]}') == [("manifest_changed", batch_id, "redirects", of_redirects)]
    assert await after(record.ready_key, None) == [("ready_lost", batch_id, "", lines)]
    assert await after(record.ready_key, b"{}") == [("ready_changed", batch_id, "", lines)]
    other = msgspec.structs.replace(record, stream_time_ms=record.stream_time_ms + 5)
    key = record_key(1, 0, 1)
    assert await after(key, encode_record(other)) == [("record_changed", batch_id, "", lines)]
    sums = [msgspec.structs.replace(out, sha256="0" * 64) if out.rows else out for out in record.outputs]
    assert await after(key, encode_record(msgspec.structs.replace(record, outputs=sums))) == [
        ("record_changed", batch_id, "", lines)
    ]
    assert await after(key, None) == [("record_lost", batch_id, "", lines)]
    assert await after(key, b"{") == [("record_changed", batch_id, "", lines)]
    last = (await world.records())[-1]
    kinds = {kind for kind, *_ in await after(record_key(1, 0, last.number), None)}
    assert kinds == {"record_lost"}
    moved = msgspec.structs.replace(last, first_offset=last.first_offset + 1)
    assert {kind for kind, *_ in await after(record_key(1, 0, last.number), encode_record(moved))} == {"record_changed"}
    assert await found(world) == []


async def test_delivery_log():
    world = await books()
    clean = world.warehouse.committed
    for change, kind in (
        (lambda log: log[1:], "log_lost"),
        (lambda log: log[:-1], "log_lost"),
        (lambda log: [log[0], *log], "log_changed"),
        (lambda log: [log[0]._replace(rows=1), *log[1:]], "log_changed"),
        (lambda log: [log[0]._replace(status="odd"), *log[1:]], "log_changed"),
    ):
        world.warehouse.committed = clean
        world.change_log(change)
        answer = (await world.audit()).differences
        assert [(one.kind.value, one.txn_id) for one in answer if one.kind.value != kind] == []
        assert answer


async def test_a_quarantined_transaction_names_its_lines_and_must_have_no_rows():
    world = await books()
    lines = await lines_of(world, 4)
    txn_id = (await world.records())[3].txn_id
    quarantined = [row._replace(status="quarantined") if row.txn_id == txn_id else row for row in world.warehouse.log]
    world.change_log(lambda _: quarantined)
    answer = await found(world)
    assert [one for one in answer if one[0] == "quarantined"] == [("quarantined", *lines.keys(), "", *lines.values())]
    assert {kind for kind, *_ in answer} == {"quarantined", "rows_foreign"}
    for flow in OUTPUTS:
        world.change_rows(flow.name, lambda rows: [row for row in rows if row["txn_id"] != txn_id])
    assert [one[0] for one in await found(world)] == ["quarantined"]


async def test_a_block_that_could_not_be_read_is_named_until_a_copy_was():
    world = await books()
    sealed = await world.batch([], arrives=False)
    world.ledger.add_dead_letter(sealed.item.batch_id, 0, "FrameInvalid: garbage")
    answer = await found(world)
    assert ("dead_letter", sealed.item.batch_id, "", [0]) in answer
    world.logs.append(world.topics.blocks.name, 0, sealed.blocks[0])
    await world.through()
    assert "dead_letter" not in {kind for kind, *_ in await found(world)}


async def test_a_damaged_step_is_found_once_a_later_step_needs_it():
    world = await books()
    rows = world.logs.messages[world.topics.rows.name, 0]
    good = rows[1]
    rows[1] = b"garbage"
    (only,) = (await world.audit()).differences
    assert (only.kind, only.partition, only.offset) == (DifferenceKind.STEP_DAMAGED, 0, 1)
    rows[1] = good
    rows[-1] = b"garbage"
    assert (await world.audit()).is_clean
    world.logs.trim(world.topics.rows.name, 0, 1)
    rows[-1] = rows[-2]
    assert (await world.audit()).is_clean


async def test_a_span_looks_at_its_own_batches_and_transactions_only():
    world = await books()
    first, second = world.registry._items.values()
    world.change_rows("page_views", lambda _: [])
    await world.store.delete([first.raw_key])
    report = await world.audit(Span(second.received_at_ms - 1))
    assert report.batches == 1
    assert {one.batch_id for one in report.differences} == {second.batch_id}
    report = await world.audit(Span(0, second.received_at_ms - 1))
    assert (report.batches, {one.batch_id for one in report.differences}) == (1, {first.batch_id})


async def test_what_has_expired_is_not_lost():
    world = await books()
    gone = [info.key async for info in world.store.list("") if not info.key.startswith(("transactions/", "jobdata/"))]
    await world.store.delete(gone)
    kinds = {kind for kind, *_ in await found(world)}
    assert kinds == {"raw_lost", "file_lost", "manifest_lost", "ready_lost"}
    days = {f"retention_{what}_days": 14 for what in ("raw", "data", "manifests")}
    world.settings = SETTINGS.model_copy(update=days)
    world.at_ms += 13 * 86_400_000
    assert {kind for kind, *_ in await found(world)} == kinds
    world.at_ms += 2 * 86_400_000
    assert await found(world) == []
    (proof,) = await world.prove(next(iter(world.registry._items)))
    assert (proof.verdict, "has expired" in proof.links[1].detail) == (Verdict.PROVEN, True)
    world.change_rows("redirects", lambda rows: rows[1:])
    assert [kind for kind, *_ in await found(world)] == ["rows_lost"]


async def test_without_kafka_the_answer_says_what_was_not_looked_at():
    world = await books()
    world.ports = world.ports._replace(logs=None)
    report = await world.audit()
    assert not report.differences
    assert not report.is_clean
    assert "Kafka does not answer" in report.unchecked[0]


def test_lines_are_told_in_ranges():
    assert in_ranges([5, 3, 4, 9, 0]) == "0, 3-5, 9"
    assert in_ranges([]) == ""
    assert Difference(kind=DifferenceKind.RAW_LOST).lines == []
