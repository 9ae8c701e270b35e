"""A damaged step stops a partition; `instream repair-log` leads out, and no row is lost or doubled (rule E2)."""

import json
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from agents.etl.owner import etl_rules
from app.adapters import kafka_clients
from app.adapters.enrichment import open_enricher
from app.adapters.kafka import LogReader
from app.core.etl.step import PartitionEtl
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import StepLog, encode_step
from app.settings import read_settings
from app.topics import topics_of
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine
from tests.e2e.live_stack import PAUSE_S, LiveStack
from tests.worlds.waiting import until

pytestmark = pytest.mark.stack
PARTITION = 0
DAMAGED = b"STP1 the rest of it is gone"


async def lose_a_step(folder: Path) -> int:
    """As the partition's owner, append two steps, the first one damaged. Returns: its offset.

    A broker takes no message at an old offset, so this owner writes the damage itself.
    """
    settings = read_settings()
    topics = topics_of(settings)
    rows, blocks = topics.rows.name, topics.blocks.name
    store = PartitionStore(
        RocksEngine(folder, Memory(8 << 20)), settings.dedup_window_ms, step_log=StepLog(rows, PARTITION, settings.epoch)
    )
    try:
        async with LogReader(settings) as logs, AIOKafkaProducer(**kafka_clients.producer(settings)) as producer:

            async def append(message: bytes) -> int:
                return (await producer.send_and_wait(rows, message, partition=PARTITION)).offset

            async for logged in logs.scan(rows, PARTITION, *(await logs.bounds(rows, PARTITION))):
                store.follow(logged.value, logged.offset)
            position = store.position
            core = PartitionEtl.load(
                PARTITION, etl_rules(settings), open_enricher(settings, {}, {}), store, position.meta, position.source_last
            )
            _, end = await logs.bounds(blocks, PARTITION)
            waiting = [
                SourceMessage(each.offset, each.timestamp_ms, each.value)
                async for each in logs.scan(blocks, PARTITION, position.source_last + 1, end)
            ]
            offsets = []
            for is_lost, some in ((True, waiting[: len(waiting) // 2]), (False, waiting[len(waiting) // 2 :])):
                accepted = store.position.accepted
                step = core.decide(some[: core.take(some)], accepted.number + 1, accepted.offset).message
                offsets.append(await append(DAMAGED if is_lost else encode_step(step)))
                store.follow(encode_step(step), offsets[-1])
                core.advance(step)
            return offsets[0]
    finally:
        store.close()


async def waiting_for_etl(least: int) -> bool:
    """Whether so many messages of the source wait for a step."""
    settings = read_settings()
    topics = topics_of(settings)
    async with LogReader(settings) as logs:
        _, end = await logs.bounds(topics.blocks.name, PARTITION)
        taken = (await logs.committed(f"instream-etl-e{settings.epoch}")).get((topics.blocks.name, PARTITION), 0)
        return end - taken >= least


async def test_a_damaged_step_is_replaced_and_every_row_arrives_once(stack: LiveStack, tmp_path: Path) -> None:
    await stack.compare_exact(await stack.load(events=400, rate=400, seed=81))
    stopped = stack.kill("etl", signal.SIGSTOP)
    try:
        run = await stack.load(events=400, rate=400, seed=82)
        await until(lambda: waiting_for_etl(6), PAUSE_S, stack.story)
        offset = await lose_a_step(tmp_path / "store")
    finally:
        stack.kill("etl", signal.SIGCONT)
    stack.await_restart("etl", stopped)  # its own step conflicts, and the next life finds the gap

    dry = stack.instream("repair-log", "--partition", str(PARTITION), "--json")
    assert dry.returncode == 3, dry.stdout + dry.stderr
    assert [one["offset"] for one in json.loads(dry.stdout)[0]["damaged"]] == [offset]
    applied = stack.instream("repair-log", "--apply")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert f"rows[{PARTITION}] {offset}: step " in applied.stdout

    await stack.await_ready("etl")
    later = await stack.load(events=400, rate=400, seed=83)
    await stack.compare_exact(run)
    await stack.compare_exact(later)
    again = stack.instream("repair-log")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 were replaced before" in again.stdout
