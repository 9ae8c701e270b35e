"""The ETL: topic `blocks` -> decided lines -> topic `rows`, one step in flight a partition.

The agent only hands messages to the runner of their partition; an exception there ends the worker (rule E6).
`app.core.etl.step` decides a step, `agents.etl.partition` makes it durable, `tables.partition_state` keeps its state, and
`agents.etl.owner` finds the place where an owner begins.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from agents.etl.owner import EtlPorts, etl_rules, own_partition
from app.adapters.enrichment import open_enricher
from app.adapters.kafka_clients import APPEND_TIMEOUT_S as CLIENT_TIMEOUT_S
from app.adapters.ports import Logs
from app.apps import etl as app
from app.core.enrich.enrich import Enricher
from app.errors import OutcomeUnknown
from app.gc_tuning import spare_what_lives
from app.shell.inbox import Inbox
from app.shell.runners import PartitionRunners
from app.topics import topics_of
from tables.dimensions import Dimension
from tables.partition_state import PartitionState

APPEND_TIMEOUT_S: Final = CLIENT_TIMEOUT_S + 5.0
"""Longest wait for the broker; a little more than the producer's own limit."""

topics: Final = topics_of(app.settings)
blocks = app.source_topic(topics.blocks.name, topics.blocks.partitions)
rows = app.source_topic(topics.rows.name, topics.rows.partitions)
dead_letters = app.source_topic(topics.dead_letters.name, topics.dead_letters.partitions)
rules: Final = etl_rules(app.settings)
state: Final = PartitionState(app, rows)
articles: Final = Dimension(app, topics.articles)
campaigns: Final = Dimension(app, topics.campaigns)


async def append(partition: int, message: bytes) -> int:
    """Send a message to `rows` and wait for every replica in sync.

    Raises:
        OutcomeUnknown: no answer in time; the message may yet appear, and recovery will know.
    """
    try:
        with app.ports.calls.during("kafka", "append"):
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                stored = await (await rows.send(key=None, value=message, partition=partition))
    except TimeoutError as exc:
        raise OutcomeUnknown(f"{topics.rows.name}[{partition}]: no answer in {APPEND_TIMEOUT_S:.0f} s") from exc
    offset: int = stored.offset
    return offset


async def send_dead_letters(partition: int, letters: Sequence[bytes]) -> None:
    """Send dead letters of a partition and wait for every replica in sync.

    Raises:
        OutcomeUnknown: no answer in time; the next owner sends them again.
    """
    try:
        with app.ports.calls.during("kafka", "append"):
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                for answer in [await dead_letters.send(key=None, value=value, partition=partition) for value in letters]:
                    await answer
    except TimeoutError as exc:
        raise OutcomeUnknown(f"{topics.dead_letters.name}[{partition}]: no answer in {APPEND_TIMEOUT_S:.0f} s") from exc


async def source_bounds(partition: int) -> tuple[int, int]:
    """The earliest offset that `blocks` still has, and one more than its last."""
    logs: Logs = await app.logs()
    return await logs.bounds(topics.blocks.name, partition)


async def work(inbox: Inbox) -> None:
    """Own one partition until it is revoked."""
    ports = EtlPorts(state, source_bounds, append, send_dead_letters, app.ports.clock, when_loaded=spare_what_lives)
    await own_partition(inbox, rules, enricher(), ports)


@cache
def enricher() -> Enricher:
    """The look-ups, shared by the partitions of this worker."""
    return open_enricher(app.settings, articles.rows, campaigns.rows)


app.when_starting(enricher)  # an unreadable file refuses the start
runners: Final = PartitionRunners(app, topics.blocks.name, work)


@app.agent(blocks)  # type: ignore[untyped-decorator]
async def etl(stream: Any) -> None:
    """Hand every message to its partition, which acknowledges it once its step is durable."""
    async for event in stream.noack().events():
        await runners.give(event)
