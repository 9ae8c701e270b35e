"""The events on a stack that bring its roles to all their points."""

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import randrange
from typing import Any, Final, NamedTuple

import aiohttp
import boto3
import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from agents.audit.ports import open_ports
from agents.audit.replay import Chosen, replay
from app.adapters import kafka_clients
from app.adapters.kafka import LogReader
from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import open_session
from app.clock import SystemClock
from app.core.events.parse import parse_line
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.flows import LEDGER
from app.core.formats.object_keys import record_key, repair_key
from app.core.formats.step_message import StepLog, decode_step
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record, effects_of
from app.errors import ObjectMissing, StepMessageInvalid
from app.settings import Settings
from app.shell.ports import Ports
from app.topics import topics_of

ORPHAN_AGE_MS: Final = 60_000
"""Past the audit's grace and all bounds of the join."""
OLD_HOURS: Final = (2, 120)
"""Hours ago, the least and the most."""
ORPHAN_LINES: Final = 40
RECENT_MESSAGES: Final = 3
KEPT_MESSAGES: Final = 4
"""The rest of each partition of `rows`: messages that name others, and messages that the sink has not committed yet."""
KEPT_SHARDS: Final = 2
"""With more open shards than this, two are merged."""
KNOWN_AFTER_MS: Final = 10_000
CUT_BYTES: Final = 6
STANDSTILL_S: Final = 4.0
"""Shorter than the group's session timeout: delivery keeps its partitions."""
POLL_S: Final = 0.5
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def leave_orphan(
    settings: Settings, run: str, *, cut_short: bool = False, age_ms: int = ORPHAN_AGE_MS
) -> str:  # fmt: skip
    """Store and register a batch that never reaches Kinesis by itself, like the batch of a collector that died.

    Args:
        settings: of the stack.
        run: the start of its events' ids.
        cut_short: its blocks reach Kinesis, but cut off, so they cannot be read.
        age_ms: how long ago it was received.

    Returns: its id.
    """
    received_ms = SystemClock().now_ms() - age_ms
    lines = [
        (
            f'{{"event_id":"{run}-{n}","event_type":"ad_click","page_view_id":"{run}-p{n}","occurred_at":{received_ms},'
            f'"revenue_micros":{n}}}'
        ).encode()
        for n in range(ORPHAN_LINES)
    ]
    stored = [parse_line(line, "browser", received_ms, "203.0.113.9", _AGENT) for line in lines]
    sealed = seal(new_batch_id(received_ms, os.urandom(10)), settings.epoch, settings.partitions, stored)
    store, registry = S3ObjectStore(settings), DynamoRegistry(settings)
    try:
        await store.put(sealed.item.raw_key, sealed.raw)
        await registry.register(sealed.item)
        if cut_short:
            await put_cut_short(settings, sealed.blocks)
    finally:
        await asyncio.gather(store.close(), registry.close())
    return sealed.batch_id


async def leave_in_old_hour(settings: Settings, run: str) -> str:
    """Leave an orphan in one of the last days' hours: an hour is certified once, so the next one may need another."""
    return await leave_orphan(settings, run, age_ms=randrange(*OLD_HOURS) * 3_600_000)


async def put_cut_short(settings: Settings, blocks: Sequence[bytes]) -> None:
    """Put blocks whose frames lack their end."""
    stream = KinesisBlockStream(settings)
    try:
        await stream.put([block[:-CUT_BYTES] for block in blocks])
    finally:
        await stream.close()


async def replace_steps(settings: Settings) -> None:
    """Store the last steps of each partition of `rows` as their own replacements: every reader gets them, no row changes."""
    topic, store = topics_of(settings).rows.name, S3ObjectStore(settings)
    try:
        async with LogReader(settings) as logs:
            for partition, end in (await logs.end_offsets(topic, range(settings.partitions))).items():
                for offset in range(max(0, end - RECENT_MESSAGES), end):  # not all are steps: another program writes, too
                    message = await logs.message_at(topic, partition, offset)
                    with suppress(StepMessageInvalid):
                        decode_step(message, StepLog(topic, partition, settings.epoch))
                        await store.put_if_absent(repair_key(settings.epoch, partition, offset), message or b"")
    finally:
        await store.close()


def reshard(settings: Settings) -> str:
    """Split a shard if there are few, else merge two neighbours. Returns: the change, in words."""
    client: Any = boto3.session.Session().client("kinesis")
    try:
        listed = client.list_shards(StreamName=settings.stream)["Shards"]
        open_shards = [shard for shard in listed if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        by_key = sorted(open_shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        if len(by_key) <= KEPT_SHARDS:
            shard = by_key[0]
            low, high = (int(shard["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
            client.split_shard(
                StreamName=settings.stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2)
            )
            return f"{shard['ShardId']} is split"
        one, other = by_key[0], by_key[1]
        client.merge_shards(StreamName=settings.stream, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"])
        return f"{one['ShardId']} and {other['ShardId']} are merged"
    finally:
        client.close()


async def replay_one(settings: Settings) -> None:
    """Put one batch once more; the pipeline has had time to take it."""
    registry = DynamoRegistry(settings)
    known_ms = SystemClock().now_ms() - KNOWN_AFTER_MS
    try:
        items = [item async for item in registry.all_batches() if item.received_at_ms < known_ms]
        if items:
            latest = max(items, key=lambda item: item.received_at_ms)
            async with open_ports(Ports(settings)) as ports:
                await replay(ports, settings, Chosen(batch_ids=[latest.batch_id]))
    finally:
        await registry.close()


class Spoilt(NamedTuple):
    """A file that cannot be loaded now."""

    key: str
    body: bytes
    """Its right content."""


async def spoil_file(settings: Settings, pid: int) -> Spoilt:
    """Spoil a file of a transaction that is ready and not loaded; delivery (`pid`) is stopped meanwhile."""
    worker, store = psutil.Process(pid), S3ObjectStore(settings)
    try:
        while True:
            worker.suspend()
            try:
                async with asyncio.timeout(STANDSTILL_S):
                    found = await _unloaded_file(settings, store)
                await store.put(found.key, b"spoilt")
                return found
            except TimeoutError:  # it was stopped while it held the lock, or no file came
                pass
            finally:
                worker.resume()
            await asyncio.sleep(1)
    finally:
        await store.close()


async def lose_ready(settings: Settings, warehouse_control: str, *, is_staged: bool) -> None:
    """Delete ready.json of a transaction that is not loaded yet and has a successor; return when it is there again.

    The warehouse's disk is full meanwhile, so that transactions wait. If delivery had read the file before, it loads the
    transaction without it, and nobody misses the file: then it is put back here.

    Args:
        settings: of the stack.
        warehouse_control: URL at which the warehouse's stand-in takes faults.
        is_staged: put the transaction's staged files back, too.
    """
    store = S3ObjectStore(settings)
    try:
        async with aiohttp.ClientSession() as session:
            await session.post(warehouse_control, json={"kind": "disk_full", "times": 1_000_000})
            try:
                place, record = await _waiting_before_another(settings, store)
                effects = effects_of(record, settings.bucket)
                for move in effects.moves if is_staged else ():
                    await store.copy(move.target, move.source)
                await store.delete([record.ready_key])
            finally:
                await session.delete(warehouse_control)
        while await store.head(record.ready_key) is None:
            if dict(await _next_to_load(settings))[place] > record.number:
                await store.put(effects.ready.key, effects.ready.body)
            await asyncio.sleep(POLL_S)
    finally:
        await store.close()


async def _waiting_before_another(settings: Settings, store: S3ObjectStore) -> tuple[ChainId, TransactionRecord]:
    """A finished transaction right behind delivery's position, once it has a successor."""
    while True:
        for place, number in await _next_to_load(settings):
            if await store.head(record_key(*place, number + 1)) is not None:
                return place, decode_record(await store.get(record_key(*place, number)), place, number)
        await asyncio.sleep(POLL_S)


async def _next_to_load(settings: Settings) -> list[tuple[ChainId, int]]:
    """The number right behind delivery's position in each chain."""
    session = await open_session(settings.warehouse_url)
    try:
        positions = await session.positions(settings.epoch)
    finally:
        await session.close()
    places = [ChainId(settings.epoch, partition) for partition in range(settings.partitions)]
    return [(place, positions.get(place.partition, 0) + 1) for place in places]


async def _unloaded_file(settings: Settings, store: S3ObjectStore) -> Spoilt:
    """The first data file behind delivery's positions, once there is one."""
    while True:
        for place, number in await _next_to_load(settings):
            try:
                record = decode_record(await store.get(record_key(*place, number)), place, number)
            except ObjectMissing:
                continue
            key = next((out.data_key for out in record.outputs if out.output == LEDGER.name and out.data_key), None)
            if key is not None and await store.head(record.ready_key) is not None:
                return Spoilt(key, await store.get(key))
        await asyncio.sleep(0.2)


async def mend_file(settings: Settings, spoilt: Spoilt) -> None:
    """Put the file's right content back."""
    store = S3ObjectStore(settings)
    try:
        await store.put(spoilt.key, spoilt.body)
    finally:
        await store.close()


async def put_foreign(settings: Settings) -> None:
    """Put a message of another program on topic `audit`."""
    async with AIOKafkaProducer(**kafka_clients.producer(settings)) as producer:
        await producer.send_and_wait(topics_of(settings).audit.name, b"foreign", partition=0)


def copy_store(pid: int, data: Path, target: Path) -> None:
    """Copy the store of a worker as a crash at this moment would leave it: the worker is stopped meanwhile."""
    worker = psutil.Process(pid)
    worker.suspend()
    try:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(data, target)
    finally:
        worker.resume()


async def make_stale(settings: Settings, pid: int, data: Path, older: Path) -> None:
    """Kill a worker, put an older copy of its store back, and cut the log behind the copy's position.

    The stack must have settled: no reader may still need the messages that are cut.
    """
    worker = psutil.Process(pid)
    worker.suspend()
    shutil.rmtree(data)
    shutil.copytree(older, data)
    topic = topics_of(settings).rows.name
    async with LogReader(settings) as logs:
        ends = await logs.end_offsets(topic, range(settings.partitions))
    client = AIOKafkaAdminClient(**kafka_clients.admin(settings))
    await client.start()
    try:
        await client.delete_records(
            {
                TopicPartition(topic, partition): RecordsToDelete(before_offset=end - KEPT_MESSAGES)
                for partition, end in ends.items()
            }
        )
    finally:
        await client.close()
    os.kill(pid, signal.SIGKILL)
