"""Reads the content of a stack: the registry, the objects in S3 that matter, and the warehouse in one snapshot."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.ports import ObjectInfo
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import Connection, connect
from app.core.audit.reconcile import LedgerLines
from app.core.formats.flows import FLOWS, LEDGER, OUTPUTS
from app.core.formats.object_keys import chain_prefix
from app.core.formats.registry_item import RegistryItem
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId
from app.errors import ObjectMissing
from app.settings import Settings
from tests.rig.invariants.transactions import Logged, judge_chain
from tests.rig.invariants.violation import Violation

READS: Final = 16
"""Objects that are read at once."""
Contents = dict[ObjectInfo, bytes]
"""Object as a listing shows it -> its content. While a listing shows the same size and time, it is not read again."""


class Ports(msgspec.Struct):
    """Connections to the services of a stack."""

    settings: Settings
    objects: S3ObjectStore
    registry: DynamoRegistry
    stream: KinesisBlockStream
    warehouse: Connection
    contents: Contents
    """What was read of S3 until now."""


@asynccontextmanager
async def ports_of(settings: Settings, contents: Contents | None = None) -> AsyncIterator[Ports]:
    """Connections to the stack of `settings`.

    Args:
        settings: of the stack.
        contents: what an earlier look at the same stack has read; it grows. None: nothing is known yet.

    Raises:
        ServiceUnavailable: the warehouse does not answer.
    """
    objects, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
    try:
        async with await connect(settings.warehouse_url) as warehouse:
            await warehouse.set_autocommit(True)  # an open snapshot would show old rows, and delay delivery's LOCK
            yield Ports(settings, objects, registry, stream, warehouse, {} if contents is None else contents)
    finally:
        await asyncio.gather(objects.close(), registry.close(), stream.close())


class Tables(msgspec.Struct):
    """The warehouse in one snapshot."""

    log: list[Logged]
    entries: dict[str, list[LedgerLines]]
    """Batch -> its ledger."""
    lines: dict[str, dict[str, list[int]]]
    """Flow -> batch -> the line of each row."""
    rows: dict[str, dict[str, int]]
    """Output -> txn_id -> rows."""
    totals: dict[str, int]
    """Flow -> rows."""


async def read_registry(ports: Ports) -> dict[str, RegistryItem]:
    """Every batch of this epoch, by its id."""
    return {item.batch_id: item async for item in ports.registry.all_batches() if item.epoch == ports.settings.epoch}


async def read_below(ports: Ports, prefix: str) -> dict[str, bytes]:
    """Key -> content of everything below a prefix."""
    slots = asyncio.Semaphore(READS)
    found: dict[str, bytes] = {}

    async def read(info: ObjectInfo) -> None:
        async with slots:
            try:
                body = await ports.objects.get(info.key)
            except ObjectMissing:
                return  # gone since it was listed
        if len(body) == info.size:  # else it was replaced since then
            ports.contents[info] = body
        found[info.key] = body

    unread = []
    async for info in ports.objects.list(prefix):
        if info in ports.contents:
            found[info.key] = ports.contents[info]
        else:
            unread.append(info)
    await asyncio.gather(*map(read, unread))
    return found


async def read_chains(ports: Ports, may_lack: Collection[str] = ()) -> tuple[list[TransactionRecord], list[Violation]]:
    """Every committed transaction of this epoch, and the faults of the chains (`judge_chain`)."""
    records: list[TransactionRecord] = []
    violations: list[Violation] = []
    for partition in range(ports.settings.partitions):
        place = ChainId(ports.settings.epoch, partition)
        found, faults = judge_chain(place, await read_below(ports, chain_prefix(*place)), may_lack)
        records += found
        violations += faults
    return records, violations


async def read_tables(ports: Ports) -> Tables:
    """The warehouse in one transaction, which the warehouse runs on one snapshot."""
    async with ports.warehouse.transaction():
        log = await _rows(
            ports, 'SELECT txn_id, "partition", number, status, "rows" FROM analytics.delivery_log WHERE epoch = %s',
            [ports.settings.epoch],
        )  # fmt: skip
        entries: dict[str, list[LedgerLines]] = defaultdict(list)
        for batch_id, *entry in await _rows(
            ports, f"SELECT batch_id, outcome, lines, line_set FROM analytics.{LEDGER.name}"
        ):
            entries[batch_id].append(LedgerLines(*entry))
        lines: dict[str, dict[str, list[int]]] = {flow.name: defaultdict(list) for flow in FLOWS}
        for flow, found in lines.items():
            for batch_id, line in await _rows(ports, f"SELECT batch_id, line FROM analytics.{flow}"):
                found[batch_id].append(line)
        rows = {
            flow.name: dict(await _rows(ports, f"SELECT txn_id, count(*) FROM analytics.{flow.name} GROUP BY txn_id"))
            for flow in OUTPUTS
        }
    totals = {flow: sum(len(of_batch) for of_batch in found.values()) for flow, found in lines.items()}
    return Tables([Logged(*row) for row in log], dict(entries), {f: dict(of) for f, of in lines.items()}, rows, totals)


async def _rows(ports: Ports, query: str, values: Sequence[Any] | None = None) -> list[Any]:
    return await (await ports.warehouse.execute(query.encode(), values)).fetchall()
