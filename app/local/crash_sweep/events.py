"""What the sweep does to a stack, so that its roles come to all their points."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any, Final

import boto3
import psutil
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from app.adapters.kafka import LogReader
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.clock import SystemClock
from app.core.batch import new_batch_id, seal
from app.core.events import parse_line
from app.settings import Settings
from app.topics import topics_of

ORPHAN_AGE_MS: Final = 60_000
"""Past the audit's grace and all bounds of the join."""
ORPHAN_LINES: Final = 40
KEPT_MESSAGES: Final = 2
"""What is left of each partition of `rows`: a message, and one that names it."""
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def leave_orphan(settings: Settings, run: str) -> str:
    """Store and register a batch that never reaches Kinesis by itself, as a collector that died then leaves it.

    Returns: its id.
    """
    received_ms = SystemClock().now_ms() - ORPHAN_AGE_MS
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
    finally:
        await asyncio.gather(store.close(), registry.close())
    return sealed.batch_id


def reshard(settings: Settings) -> str:
    """Split a shard where there are few, merge two neighbours otherwise; what was done, in words."""
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


KEPT_SHARDS: Final = 2


def copy_store(pid: int, data: Path, target: Path) -> None:
    """Copy the store of a worker as a crash at this moment would leave it: the worker stands still meanwhile."""
    worker = psutil.Process(pid)
    worker.suspend()
    try:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(data, target)
    finally:
        worker.resume()


async def make_stale(settings: Settings, pid: int, data: Path, older: Path) -> None:
    """Kill a worker, its store an older copy by then, and the log cut behind what that had read.

    The stack must have settled: what the cut log cannot tell any more must not be asked for.
    """
    worker = psutil.Process(pid)
    worker.suspend()
    shutil.rmtree(data)
    shutil.copytree(older, data)
    topic = topics_of(settings).rows.name
    async with LogReader(settings) as logs:
        ends = await logs.end_offsets(topic, range(settings.partitions))
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
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
