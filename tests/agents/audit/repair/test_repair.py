"""Every kind of damage is found by line, mended to what it was, and left alone by a second run (rules R1 to R5)."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from app.core.audit.differences import DifferenceKind
from app.core.formats.batch import cut_again
from app.core.formats.object_keys import record_key
from app.core.formats.registry_item import Attempt, BatchState, encode_item
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.plan import ACTIONS
from app.core.sink.chain import encode_record
from app.errors import ServiceUnavailable
from tests.worlds.books import ALL_KINDS
from tests.worlds.repair import RepairedBooks

Damage = Callable[[RepairedBooks], Awaitable[None]]


async def books() -> RepairedBooks:
    world = RepairedBooks()
    await world.settled()
    assert (await world.audit()).is_clean
    return world


@pytest.fixture(scope="module")
def kept() -> list[RepairedBooks]:
    """Books that were damaged and are what they were again. A test takes them out and puts them back."""
    return []


async def page_views(world: RepairedBooks) -> TransactionRecord:
    return await world.record_with("page_views")


def lose_rows(flow: str, count: int = 1) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        world.change_rows(flow, lambda rows: rows[count:])

    return damage


def double_rows(flow: str) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        world.change_rows(flow, lambda rows: [*rows, *rows])

    return damage


def change_rows(flow: str, column: str, value: Any) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        world.change_rows(flow, lambda rows: [row | {column: value} for row in rows])

    return damage


async def add_foreign_rows(world: RepairedBooks) -> None:
    world.change_rows("ad_clicks", lambda rows: [*rows, rows[0] | {"line": 77}, rows[0] | {"txn_id": "1-0-99-abcd"}])


async def lose_everything_loaded(world: RepairedBooks) -> None:
    for table in world.warehouse.committed.tables:
        world.change_rows(table, lambda _: [])


def drop(*outputs: str) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        for record in await world.records():
            keys = [out.data_key for out in record.outputs if out.output in outputs and out.data_key]
            await world.store.delete(keys)

    return damage


def spoil(output: str) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        key = (await world.record_with(output)).output(output).data_key or ""
        body = await world.store.get(key)
        await world.store.put(key, body[: len(body) // 2])

    return damage


async def drop_manifests(world: RepairedBooks) -> None:
    record = await page_views(world)
    await world.store.delete([out.manifest_key for out in record.outputs if out.manifest_key])


async def spoil_manifest(world: RepairedBooks) -> None:
    await world.store.put((await page_views(world)).output("page_views").manifest_key or "", b'{"entries":[]}')


async def drop_ready(world: RepairedBooks) -> None:
    await world.store.delete([(await page_views(world)).ready_key])


async def spoil_ready(world: RepairedBooks) -> None:
    await world.store.put((await page_views(world)).ready_key, b"{}")


def drop_record(place: int) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        record = (await world.records())[place]
        await world.store.delete([record_key(1, 0, record.number)])

    return damage


async def spoil_record(world: RepairedBooks) -> None:
    await world.store.put(record_key(1, 0, 1), b"{")


async def change_record(world: RepairedBooks) -> None:
    record = (await world.records())[1]
    other = msgspec.structs.replace(record, stream_time_ms=record.stream_time_ms + 5)
    await world.store.put(record_key(1, 0, record.number), encode_record(other))


def change_log(change: Callable[[list[Any]], list[Any]]) -> Damage:
    async def damage(world: RepairedBooks) -> None:
        world.change_log(change)

    return damage


async def lose_log_and_rows(world: RepairedBooks) -> None:
    """A transaction that delivery passed without a trace."""
    record = await page_views(world)
    world.change_log(lambda log: [row for row in log if row.txn_id != record.txn_id])
    for table in world.warehouse.committed.tables:
        world.change_rows(table, lambda rows: [row for row in rows if row["txn_id"] != record.txn_id])


async def quarantine(world: RepairedBooks) -> None:
    """Delivery set a transaction aside, because its file was damaged."""
    record = await page_views(world)
    world.change_log(
        lambda log: [
            row._replace(status="quarantined", detail="bad file") if row.txn_id == record.txn_id else row for row in log
        ]
    )
    for table in world.warehouse.committed.tables:
        world.change_rows(table, lambda rows: [row for row in rows if row["txn_id"] != record.txn_id])
    await world.store.put(record.output("page_views").data_key or "", b"garbage")


async def quarantine_in_the_log_alone(world: RepairedBooks) -> None:
    world.change_log(lambda log: [log[0]._replace(status="quarantined"), *log[1:]])


async def lose_item(world: RepairedBooks) -> None:
    del world.registry._items[next(iter(world.registry._items))]


async def change_item(world: RepairedBooks) -> None:
    batch_id, item = next(iter(world.registry._items.items()))
    world.registry._items[batch_id] = msgspec.structs.replace(item, sha256="0" * 64)


async def spoil_item(world: RepairedBooks) -> None:
    batch_id, item = next(iter(world.registry._items.items()))
    del world.registry._items[batch_id]
    world.registry.stored = [encode_item(item) | {"line_count": {"N": "3"}}]


async def drop_raw(world: RepairedBooks) -> None:
    await world.store.delete([item.raw_key for item in world.registry._items.values()])


async def spoil_raw(world: RepairedBooks) -> None:
    item = next(iter(world.registry._items.values()))
    raw = await world.store.get(item.raw_key)
    await world.store.put(item.raw_key, raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])


async def lose_batch(world: RepairedBooks) -> None:
    await drop_raw(world)
    await lose_item(world)


async def all_at_once(world: RepairedBooks) -> None:
    await drop("page_views", "ledger")(world)
    await world.store.delete([(await world.records())[-1].ready_key])
    await drop_manifests(world)
    await drop_record(0)(world)
    await lose_everything_loaded(world)
    await lose_batch(world)


K = DifferenceKind
DAMAGES: dict[str, tuple[Damage, set[DifferenceKind]]] = {
    **{f"rows of {flow} lost": (lose_rows(flow), {K.ROWS_LOST}) for flow in ("page_views", "ad_clicks", "rejected")},
    "rows of the ledger lost": (lose_rows("ledger", 2), {K.ROWS_LOST}),
    "rows doubled": (double_rows("engagements"), {K.ROWS_DOUBLED}),
    "rows of the ledger doubled": (double_rows("ledger"), {K.ROWS_DOUBLED, K.LINES_DOUBLED}),
    "rows changed": (change_rows("redirects", "cost_micros", 1), {K.ROWS_CHANGED}),
    "rows under another transaction": (change_rows("page_views", "txn_id", "x"), {K.ROWS_LOST, K.ROWS_FOREIGN}),
    "foreign rows": (add_foreign_rows, {K.ROWS_FOREIGN}),
    "everything loaded is lost": (lose_everything_loaded, {K.ROWS_LOST}),
    "data files lost": (drop("page_views", "ad_impressions", "ledger"), {K.FILE_LOST}),
    **{f"file of {output} damaged": (spoil(output), {K.FILE_CHANGED}) for output in ("redirects", "engagements", "ledger")},
    "manifests lost": (drop_manifests, {K.MANIFEST_LOST}),
    "manifest changed": (spoil_manifest, {K.MANIFEST_CHANGED}),
    "ready.json lost": (drop_ready, {K.READY_LOST}),
    "ready.json changed": (spoil_ready, {K.READY_CHANGED}),
    "first record lost": (drop_record(0), {K.RECORD_LOST}),
    "middle record lost": (drop_record(2), {K.RECORD_LOST}),
    "last record lost": (drop_record(-1), {K.RECORD_LOST}),
    "record unreadable": (spoil_record, {K.RECORD_CHANGED}),
    "record changed": (change_record, {K.RECORD_CHANGED}),
    "row of the log lost": (change_log(lambda log: log[1:]), {K.LOG_LOST}),
    "last row of the log lost": (change_log(lambda log: log[:-1]), {K.LOG_LOST}),
    "row of the log doubled": (change_log(lambda log: [log[0], *log]), {K.LOG_CHANGED}),
    "row of the log changed": (change_log(lambda log: [log[0]._replace(rows=1), *log[1:]]), {K.LOG_CHANGED}),
    "status of no meaning": (change_log(lambda log: [log[0]._replace(status="odd"), *log[1:]]), {K.LOG_CHANGED}),
    "log and rows lost": (lose_log_and_rows, {K.LOG_LOST, K.ROWS_LOST}),
    "quarantined with a damaged file": (quarantine, {K.QUARANTINED, K.FILE_CHANGED}),
    "quarantined in the log alone": (quarantine_in_the_log_alone, {K.QUARANTINED, K.ROWS_FOREIGN}),
    "registry item lost": (lose_item, {K.REGISTRY_LOST}),
    "registry item changed": (change_item, {K.REGISTRY_CHANGED}),
    "registry item unreadable": (spoil_item, {K.REGISTRY_CHANGED}),
    "raw files lost": (drop_raw, {K.RAW_LOST}),
    "raw file changed": (spoil_raw, {K.RAW_CHANGED}),
    "raw files and an item lost": (lose_batch, {K.RAW_LOST, K.REGISTRY_LOST}),
    "much at once": (all_at_once, {K.RECORD_LOST, K.ROWS_LOST, K.RAW_LOST}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_mended_to_what_was_there_and_left_alone_afterwards(
    name: str, kept: list[RepairedBooks]
) -> None:
    damage, kinds = DAMAGES[name]
    world = kept.pop() if kept else await books()
    clean = await world.everything()
    await damage(world)
    damaged = await world.everything()
    assert damaged != clean

    planned = await world.repair()
    assert {each.kind for each in planned.differences} >= kinds
    assert await world.everything() == damaged, "a dry run changes nothing"
    assert all(each.action is ACTIONS[each.kind] and not each.done for each in planned.differences)

    applied = await world.repair(apply=True)
    assert [(each.kind, each.reason) for each in applied.differences if not each.done] == []
    assert applied.is_mended
    assert await world.everything() == clean

    again = await world.repair(apply=True)
    assert again.differences == []
    assert await world.everything() == clean
    kept.append(world)


@pytest.mark.parametrize("name", ["rows doubled", "data files lost", "log and rows lost", "much at once"])
async def test_two_repairs_side_by_side_do_no_harm(name: str) -> None:
    world = await books()
    clean = await world.everything()
    await DAMAGES[name][0](world)
    await world.both_repair()
    await world.repair(apply=True)
    assert await world.everything() == clean
    assert (await world.audit()).is_clean


async def test_what_is_only_late_is_left_alone() -> None:
    world = await books()
    await world.batch([each | {"event_id": f"late-{n}", "page_view_id": f"late-{n}"} for n, each in enumerate(ALL_KINDS)])
    world.step()
    await world.commit()
    before = await world.everything()
    report = await world.repair(apply=True)
    assert (report.differences, report.is_mended) == ([], True)
    assert await world.everything() == before
    await world.deliver()
    assert (await world.audit()).is_clean


async def test_a_damaged_step_is_replaced() -> None:
    world = await books()
    rows = world.logs.messages[world.topics.rows.name, 0]
    rows[1] = b"garbage"
    report = await world.repair(apply=True)
    assert [(each.kind, each.action.value, each.done) for each in report.differences] == [
        ("step_damaged", "replace_step", True)
    ]
    assert (await world.audit()).is_clean
    await drop("page_views")(world)  # files are made from the replacement
    assert (await world.repair(apply=True)).is_mended


async def test_a_block_that_could_not_be_read_is_sent_again() -> None:
    world = await books()
    sealed = await world.batch([], arrives=False)
    world.ledger.add_dead_letter(sealed.item.batch_id, 0, "FrameInvalid: garbage")
    report = await world.repair(apply=True)
    (letter,) = [each for each in report.differences if each.kind is K.DEAD_LETTER]
    assert (letter.action.value, letter.done) == ("replay", False)
    assert "sent again" in letter.reason
    assert [len(shard.records) for shard in world.stream._shards.values()] == [1]


async def test_what_the_audit_did_about_a_batch_stays_when_its_item_is_mended() -> None:
    world = await books()
    batch_id, item = next(iter(world.registry._items.items()))
    tried = msgspec.structs.replace(
        item, state=BatchState.COMPLETE, attempts=2, history=[Attempt(2, 7, "why")], completed_at_ms=9
    )
    world.registry._items[batch_id] = msgspec.structs.replace(tried, line_count=3, blocks=[])
    assert (await world.repair(apply=True)).is_mended
    assert world.registry._items[batch_id] == tried


async def test_a_raw_file_is_put_together_from_the_copies_that_can_be_read() -> None:
    world = RepairedBooks()
    sealed = await world.batch(ALL_KINDS, arrives=False)
    for block in (sealed.blocks[0][:-6], *cut_again(sealed.raw, sealed.item, 1)):
        world.logs.append(world.topics.blocks.name, 0, block)
    for _ in range(2):
        await world.through()
        world.pass_s(30)
    await drop_raw(world)
    report = await world.repair(apply=True)
    (raw,) = [each for each in report.differences if each.kind is K.RAW_LOST]
    assert (raw.done, raw.reason) == (True, "")
    assert await world.store.get(sealed.item.raw_key) == sealed.raw


async def test_what_cannot_be_mended_says_why_and_the_rest_is_mended() -> None:
    world = await books()
    record = await page_views(world)
    await drop("page_views")(world)
    await lose_rows("ad_clicks")(world)
    world.logs.trim(world.topics.rows.name, 0, record.last_offset + 1)
    await drop_raw(world)
    world.logs.trim(world.topics.blocks.name, 0, world._taken)
    report = await world.repair(apply=True)
    of_record = [each for each in report.differences if each.txn_id == record.txn_id and each.kind is K.FILE_LOST]
    assert ["ndjson.zst is missing" in each.reason for each in of_record] == [True]
    assert [each.done for each in report.differences if each.kind is K.ROWS_LOST] == [True]
    assert not report.is_mended
    assert {each.kind for each in report.left} == {K.FILE_LOST, K.RAW_LOST}


async def test_a_repair_that_dies_goes_on_with_the_next_one() -> None:
    world = await books()
    clean = await world.everything()
    await all_at_once(world)
    calls = 0

    async def dying(call: str, _: str) -> None:
        nonlocal calls
        calls += 1
        if call in {"put", "commit"} and calls % 40 == 0:
            raise ServiceUnavailable("the process was killed here, or as good as that")

    world.store.before = world.warehouse.before = dying
    for _ in range(30):
        try:
            report = await world.repair(apply=True)
        except ServiceUnavailable:
            continue
        if report.is_mended:
            break
    world.store.before = world.warehouse.before = None
    assert (await world.repair(apply=True)).is_mended
    assert await world.everything() == clean
