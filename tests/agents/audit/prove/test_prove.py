"""The proof of a batch: PROVEN with every link, WAITING at each stage, BROKEN with the link and the lines."""

import base64

import msgspec
import pytest
from pyroaring import BitMap

from app.core.audit.proof import LinkName, Proof, Verdict
from app.core.formats.batch import new_batch_id
from app.core.formats.object_keys import raw_key, record_key
from app.errors import ServiceUnavailable
from tests.worlds.books import START_MS, Books

FLOW = "redirects"


async def books() -> tuple[Books, str]:
    """Two settled batches; the id of the first."""
    made = Books()
    first, second = await made.settled()
    made.complete(first)
    made.complete(second)
    return made, first.item.batch_id


def failing(proof: Proof) -> dict[str, bool]:
    """Link that does not hold -> whether it waits; links behind a broken one that were not looked at are left out."""
    return {link.name.value: link.waits for link in proof.links if not link.ok and "not looked at" not in link.detail}


async def only(world: Books, batch_id: str) -> Proof:
    (proof,) = await world.prove(batch_id)
    return proof


async def test_a_settled_batch_is_proven_link_by_link():
    world, batch_id = await books()
    (proof,) = await world.prove(batch_id, find_offsets=True)
    assert (proof.verdict, proof.lines_broken, proof.waits_for) == (Verdict.PROVEN, [], "")
    assert [link.name for link in proof.links] == list(LinkName)
    assert all(link.ok for link in proof.links), proof.links
    assert sum(proof.outcomes.values()) == proof.lines == 9
    assert proof.outcomes["duplicate"] == proof.outcomes["joined"] == 1
    details = {link.name.value: link.detail for link in proof.links}
    assert "block 0 at blocks[0]@0" in details["offsets"]
    assert "7 rows, each as its file has it, 1 duplicate, 1 joined" in details["rows"]


async def test_a_batch_on_its_way_waits_and_never_looks_broken():
    world, _ = await books()
    sealed = await world.batch(arrives=False)
    batch_id = sealed.item.batch_id
    seen = [await only(world, batch_id)]
    for block in sealed.blocks:
        world.logs.append(world.topics.blocks.name, 0, block)
    seen.append(await only(world, batch_id))
    for stage in (world.step, world.commit, world.deliver):
        if (waiting := stage()) is not None:
            await waiting
        seen.append(await only(world, batch_id))
    assert {proof.verdict for proof in seen} == {Verdict.WAITING}
    assert [proof.waits_for.split(":")[0].split(" (")[0] for proof in seen] == ["kinesis", "etl", "sink", "delivery", "join"]
    behind = dict.fromkeys(("files", "load", "rows"), True)
    assert [failing(proof) for proof in seen[:2]] == [
        {"offsets": True, "transactions": True} | behind, {"transactions": True} | behind,
    ]  # fmt: skip
    assert seen[-1].until_ms == sealed.item.received_at_ms + 11_000
    world.pass_s(30)
    await world.through()
    assert (await only(world, batch_id)).verdict is Verdict.PROVEN


async def test_lines_that_are_loaded_while_the_proof_is_read_are_not_broken():
    world, _ = await books()
    sealed = await world.batch()
    world.step()
    await world.commit()

    async def load(call: str, subject: str) -> None:
        if (call, subject) == ("of_batches", "ledger"):
            world.rows.after = None
            await world.deliver()

    world.rows.after = load
    assert (await only(world, sealed.item.batch_id)).verdict is Verdict.WAITING
    world.pass_s(30)
    world.step()
    await world.commit()
    world.rows.after = load
    assert (await only(world, sealed.item.batch_id)).verdict is Verdict.PROVEN


@pytest.mark.parametrize(
    ("change", "link"),
    [
        (lambda rows: rows[1:], "rows"),
        (lambda rows: [*rows, rows[0]], "rows"),
        (lambda rows: [rows[0] | {"event_id": "other"}, *rows[1:]], "rows"),
    ],
)
async def test_a_row_that_is_lost_doubled_or_changed_breaks_the_last_link(change, link):
    world, _ = await books()
    row = world.warehouse.rows(FLOW)[0]
    world.change_rows(FLOW, change)
    proof = await only(world, row["batch_id"])
    assert (proof.verdict, failing(proof), proof.lines_broken) == (Verdict.BROKEN, {link: False}, [row["line"]])
    others = [item.batch_id for item in world.registry._items.values() if item.batch_id != row["batch_id"]]
    assert [each.verdict for each in await world.prove(*others)] == [Verdict.PROVEN]


async def test_raw_files_and_registry_items_break_their_links():
    world, batch_id = await books()
    item = world.registry._items[batch_id]
    every = list(range(item.line_count))
    raw = await world.store.get(item.raw_key)
    await world.store.put(item.raw_key, raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])
    proof = await only(world, batch_id)
    assert (proof.verdict, failing(proof), proof.lines_broken) == (Verdict.BROKEN, {"raw": False, "blocks": False}, every)
    await world.store.delete([item.raw_key])
    assert (await only(world, batch_id)).lines_broken == every
    await world.store.put(item.raw_key, raw)
    del world.registry._items[batch_id]
    proof = await only(world, batch_id)
    assert (proof.verdict, failing(proof), proof.lines_broken) == (Verdict.BROKEN, {"registry": False}, every)


async def test_a_raw_file_that_is_not_registered_yet_waits_and_an_unknown_batch_is_broken():
    world, _ = await books()
    young, old = (new_batch_id(at_ms, bytes(10)) for at_ms in (world.at_ms, START_MS - 3_600_000))
    await world.store.put(raw_key(young, world.at_ms), b"x")
    assert (await only(world, young)).verdict is Verdict.WAITING
    await world.store.put(raw_key(old, START_MS - 3_600_000), b"x")
    proof = await only(world, old)
    assert (proof.verdict, "never acknowledged" in proof.links[0].detail) == (Verdict.BROKEN, True)
    proof = await only(world, new_batch_id(START_MS, b"unknown..."))
    assert (proof.verdict, "no such batch" in proof.links[0].detail) == (Verdict.BROKEN, True)


async def test_files_records_log_and_ledger_break_their_links():
    world, batch_id = await books()
    record = await world.record_with(FLOW)
    key = record.output(FLOW).data_key
    body = await world.store.get(key)
    line = next(row["line"] for row in world.warehouse.rows(FLOW) if row["batch_id"] == batch_id)
    await world.store.delete([key])
    proof = await only(world, batch_id)
    assert (failing(proof), proof.lines_broken) == ({"files": False}, [line])
    await world.store.put(key, body[:-1])
    proof = await only(world, batch_id)
    assert (failing(proof), proof.lines_broken) == ({"files": False}, [line])
    await world.store.put(key, body)
    clean = world.warehouse.committed
    world.change_log(lambda log: log[1:])
    assert failing(await only(world, batch_id)) == {"load": False}
    world.warehouse.committed = clean
    ledger = next(
        row for row in world.warehouse.rows("ledger") if row["outcome"] == "duplicate" and row["batch_id"] == batch_id
    )
    lines = list(BitMap.deserialize(base64.b64decode(ledger["line_set"])))
    world.change_rows("ledger", lambda rows: [row for row in rows if row is not ledger])
    proof = await only(world, batch_id)
    assert (proof.verdict, proof.lines_broken, set(failing(proof))) == (
        Verdict.BROKEN, lines, {"load", "transactions", "files", "rows"}
    )  # fmt: skip
    world.change_rows("ledger", lambda rows: [*rows, ledger, ledger])
    proof = await only(world, batch_id)
    assert (proof.verdict, proof.lines_broken, failing(proof)) == (Verdict.BROKEN, lines, {"load": False})
    world.warehouse.committed = clean
    record_body = await world.store.get(record_key(1, 0, record.number))
    await world.store.delete([record_key(1, 0, record.number)])
    assert (await only(world, batch_id)).verdict is Verdict.BROKEN
    await world.store.put(record_key(1, 0, record.number), record_body)
    assert (await only(world, batch_id)).verdict is Verdict.PROVEN


async def test_a_quarantined_transaction_is_broken_at_the_load():
    world, _ = await books()
    sealed = await world.batch()
    world.step()
    await world.commit()
    record = (await world.records())[-1]
    world.ledger.quarantine(1, record.txn_id, 0, record.number, record.stream_time_ms)
    proof = await only(world, sealed.item.batch_id)
    assert (proof.verdict, failing(proof)["load"]) == (Verdict.BROKEN, False)
    assert proof.lines_broken


async def test_without_kafka_a_loaded_batch_is_proven_and_another_one_waits():
    world, batch_id = await books()
    sealed = await world.batch()

    async def silent(call: str, subject: str) -> None:
        raise ServiceUnavailable("Kafka does not answer")

    world.logs.before = silent
    proofs = await world.prove(batch_id, sealed.item.batch_id, find_offsets=True)
    assert [proof.verdict for proof in proofs] == [Verdict.PROVEN, Verdict.WAITING]
    assert "Kafka does not say" in proofs[1].waits_for


async def test_an_item_that_cannot_be_read_is_broken():
    world, batch_id = await books()
    item = world.registry._items[batch_id]
    world.registry._items[batch_id] = msgspec.structs.replace(item, sha256="0" * 64)
    proof = await only(world, batch_id)
    assert (proof.verdict, failing(proof)) == (Verdict.BROKEN, {"registry": False})
