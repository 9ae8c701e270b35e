"""Faults of data: messages, records, batches and objects that are damaged, foreign, lost or doubled."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from app.adapters.warehouse import connect
from app.core.formats import object_keys
from app.core.formats.batch import cut_again
from app.core.formats.flows import LEDGER
from app.core.sink.chain import ChainId, decode_record
from app.local.services.aws_faults import Rates
from app.topics import topics_of
from tests.rig.runbooks.ground import Ground
from tests.rig.runbooks.plants import KINESIS_FAILS, Plant, file_unreadable
from tests.worlds.waiting import PAUSE_S, until

PAST_GRACE_S: Final = 60.0
"""Older than the grace of a drill's audit and all bounds of the join."""
DAY_S: Final = 86_400.0
NOT_OURS: Final = b"\xff\xfe no message of ours"
_ITEM: Final[dict[str, Any]] = {"received_at": {"N": "1"}, "state": {"S": "open"}}


@asynccontextmanager
async def newer_item(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """An open item of the registry was written by a newer version."""
    batch_id = ground.batch(0).item.batch_id
    item = _ITEM | {"batch_id": {"S": batch_id}, "open_epoch": {"N": str(ground.settings.epoch)}, "version": {"N": "99"}}
    await ground.services.put_item(item)
    try:
        yield {}
    finally:
        await ground.services.delete_item(batch_id)


@asynccontextmanager
async def block_damaged(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The first block of a batch is cut on its way: its lines come when the batch is sent again."""
    sealed = await ground.orphan(0)
    first, *others = cut_again(sealed.raw, sealed.item, 0)
    await ground.put([first[:-9], *others])
    yield {"BATCH_ID": sealed.item.batch_id}


@asynccontextmanager
async def foreign_message(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Another program writes to topic `rows`."""
    await ground.send(topics_of(ground.settings).rows.name, NOT_OURS)
    yield {}


@asynccontextmanager
async def foreign_record(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Another program writes to the stream."""
    await ground.put([NOT_OURS])
    yield {}


@asynccontextmanager
async def block_too_old(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """A block comes that is older than the dedup window."""
    sealed = ground.batch(ground.settings.dedup_window_s + DAY_S)
    await ground.put(cut_again(sealed.raw, sealed.item, 0))
    yield {}


@asynccontextmanager
async def batch_never_sent(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """A collector died between the registry and Kinesis."""
    yield {"BATCH_ID": (await ground.orphan(PAST_GRACE_S)).item.batch_id}


@asynccontextmanager
async def batch_refused(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The same, and Kinesis refuses the audit's replays."""
    await ground.services.fail_aws(KINESIS_FAILS)
    try:
        yield {"BATCH_ID": (await ground.orphan(PAST_GRACE_S)).item.batch_id}
    finally:
        await ground.services.fail_aws(Rates())


@asynccontextmanager
async def _loaded_and_not_judged(ground: Ground) -> AsyncIterator[str]:
    """A batch that the warehouse has; within the block the audit is stopped and judges nothing."""
    async with ground.frozen("audit"):
        batch_id = await ground.posted()

        async def is_loaded() -> bool:
            async with await connect(ground.stack().warehouse_url) as connection:
                query = b"SELECT 1 FROM analytics.ledger WHERE batch_id = %s"
                return bool(await (await connection.execute(query, (batch_id,))).fetchall())

        await until(is_loaded, PAUSE_S)
        yield batch_id


@asynccontextmanager
async def item_damaged(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """The registry item of a batch lost most of its attributes."""
    async with _loaded_and_not_judged(ground) as batch_id:
        own = {"batch_id": {"S": batch_id}, "open_epoch": {"N": str(ground.settings.epoch)}}
        await ground.services.put_item(_ITEM | own)
    yield {"BATCH_ID": batch_id}


@asynccontextmanager
async def ledger_doubled(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Somebody loaded the ledger of a batch by hand, once more."""
    columns = "batch_id, outcome, lines, line_set"
    async with _loaded_and_not_judged(ground) as batch_id:
        await ground.sql(
            f"INSERT INTO analytics.ledger (txn_id, {columns}) SELECT 'by-hand', {columns} FROM analytics.ledger "
            f"WHERE batch_id = '{batch_id}'"
        )
    yield {"BATCH_ID": batch_id}


@asynccontextmanager
async def ledger_lost(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Somebody deleted the ledger's rows of a batch from the warehouse."""
    async with _loaded_and_not_judged(ground) as batch_id:
        await ground.sql(f"DELETE FROM analytics.ledger WHERE batch_id = '{batch_id}'")
    yield {"BATCH_ID": batch_id}


@asynccontextmanager
async def ledger_file_deleted(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Somebody deletes the ledger file of a transaction that the warehouse rejected for another file."""
    async with ground.frozen("audit"), file_unreadable(ground) as words:
        epoch, partition, number = (int(part) for part in words["TXN_ID"].split("-")[:3])
        async with ground.store() as store:
            body = await store.get(object_keys.record_key(epoch, partition, number))
            key = decode_record(body, ChainId(epoch, partition), number).output(LEDGER.name).data_key
            assert key is not None
            await store.delete([key])
    yield words


@asynccontextmanager
async def ready_deleted(ground: Ground) -> AsyncIterator[Mapping[str, str]]:
    """Somebody deletes ready.json of a transaction that is not loaded and has a successor."""
    chain = ChainId(ground.settings.epoch, 0)
    async with ground.store() as store:

        async def count() -> int:
            return len([info async for info in store.list(object_keys.chain_prefix(*chain))])

        async with ground.frozen("delivery"):
            known = await count()

            async def has_two_more() -> bool:
                return await count() >= known + 2

            await until(has_two_more, PAUSE_S)
            record = decode_record(await store.get(object_keys.record_key(*chain, known + 1)), chain, known + 1)
            await store.delete([record.ready_key])
    yield {}


OF_DATA: Final[Mapping[str, Plant]] = {
    "WaitsForUpgrade": newer_item,
    "LinesLost": ledger_lost,
    "LinesDoubled": ledger_doubled,
    "BatchDamaged": item_damaged,
    "LedgerDamaged": ledger_file_deleted,
    "DeadLetters": block_damaged,
    "ForeignMessages": foreign_message,
    "ForeignRecords": foreign_record,
    "BatchesReplayed": batch_never_sent,
    "ReplayRefused": batch_refused,
    "OldestBatchLate": batch_refused,
    "EtlAlarm": block_too_old,
    "ReadyLost": ready_deleted,
}
