"""The ETL: topic `blocks` -> decided lines -> topic `rows`, one step in flight a partition.

The agent only hands messages to the runner of their partition; an exception there ends the worker (rule E6). What a step
is lies in `app.core.step`, how it becomes durable in `agents.etl_partition`, what it leaves in `tables.partition_state`.
"""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import structlog

from agents.etl_partition import EtlPartition
from app.adapters.enrichment import open_enricher
from app.apps import etl as app
from app.core.counting import Counted
from app.core.dead_letter import DeadLetterLimit
from app.core.enrich import Enricher
from app.core.step import EtlRules, PartitionEtl
from app.core.step_message import StepMessage
from app.errors import OutcomeUnknown, TopicRecreated
from app.shell.garbage import spare_what_lives
from app.shell.runners import Inbox, PartitionRunners
from app.topics import topics_of
from tables.dimensions import Dimension
from tables.partition_state import PartitionState

log = structlog.get_logger(__name__)

APPEND_TIMEOUT_S: Final = 35.0
"""Longest wait for the broker; a little more than the producer's own 30 s."""
KAFKA_OVERHEAD_BYTES: Final = 4096
"""What a record batch with one message needs besides it."""

topics: Final = topics_of(app.settings)
blocks = app.source_topic(topics.blocks.name, topics.blocks.partitions)
rows = app.source_topic(topics.rows.name, topics.rows.partitions)
dead_letters = app.source_topic(topics.dead_letters.name, topics.dead_letters.partitions)
rules: Final = EtlRules(
    epoch=app.settings.epoch, partitions=app.settings.partitions, join=app.settings.join,
    dedup_window_ms=app.settings.dedup_window_ms, message_bytes=app.settings.max_message_bytes - KAFKA_OVERHEAD_BYTES,
    dead_letters=DeadLetterLimit(app.settings.dead_letter_share, app.settings.dead_letter_least),
)  # fmt: skip
state: Final = PartitionState(app, rows)
articles: Final = Dimension(app, topics.articles)
campaigns: Final = Dimension(app, topics.campaigns)


class RowsJournal:
    """Topic `rows` and the store, for one owned partition."""

    def __init__(self, partition: int) -> None:
        self._partition = partition

    def counted(self) -> Counted:
        """The last message that counted."""
        return state.position(self._partition).counted

    async def bury(self, letters: Sequence[bytes]) -> None:
        """Send dead letters and wait for every replica in sync.

        Raises:
            OutcomeUnknown: no answer in time; the next owner sends them again.
        """
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                for answer in [await dead_letters.send(key=None, value=v, partition=self._partition) for v in letters]:
                    await answer
        except TimeoutError as exc:
            raise OutcomeUnknown(
                f"{topics.dead_letters.name}[{self._partition}]: no answer in {APPEND_TIMEOUT_S:.0f} s"
            ) from exc

    async def append(self, message: bytes) -> int:
        """Send a message and wait for every replica in sync.

        Raises:
            OutcomeUnknown: no answer in time; the message may yet appear, and recovery will know.
        """
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                stored = await (await rows.send(key=None, value=message, partition=self._partition))
        except TimeoutError as exc:
            raise OutcomeUnknown(f"{topics.rows.name}[{self._partition}]: no answer in {APPEND_TIMEOUT_S:.0f} s") from exc
        offset: int = stored.offset
        return offset

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Let the store take the step (rule E3, 2)."""
        state.commit(step, message, offset)


async def work(inbox: Inbox) -> None:
    """Own one partition: begin where the store ends, then step until it is revoked."""
    partition = inbox.partition
    await state.verify_recovered(partition)
    position = state.position(partition)
    wanted = position.source_last + 1
    first = await first_available(partition, wanted)
    etl_partition = EtlPartition(load_core(partition), inbox, RowsJournal(partition), app.ports.clock)
    if first > wanted:
        log.error("source messages are gone", partition=partition, first_missing=wanted, first_available=first)
        await etl_partition.declare_gap(first)
    spare_what_lives()
    log.info("partition recovered", partition=partition, step=position.counted.number, source_next=first)
    await inbox.start_at(first)
    await etl_partition.run()


async def first_available(partition: int, wanted: int) -> int:
    """`wanted`, or the first offset behind it that `blocks` still has (rule E4).

    Raises:
        TopicRecreated: `blocks` ends before `wanted`.
    """
    logs = await app.logs()
    bounds: tuple[int, int] = await logs.bounds(topics.blocks.name, partition)
    first, end = bounds
    if wanted > end:
        raise TopicRecreated(
            f"{topics.blocks.name}[{partition}] ends at {end}, {wanted - 1} is applied: raise INSTREAM_EPOCH"
        )
    return max(wanted, first)


def load_core(partition: int) -> PartitionEtl:
    """The core of a partition, from its store."""
    position = state.position(partition)
    return PartitionEtl.load(
        partition, rules, enricher(), state.reader(partition), position.meta, position.source_last
    )  # fmt: skip


@cache
def enricher() -> Enricher:
    """The look-ups, shared by the partitions of this worker."""
    return open_enricher(app.settings, articles.rows, campaigns.rows)


app.when_starting(enricher)  # a file that cannot be read is a refusal to start
runners: Final = PartitionRunners(app, topics.blocks.name, work)


@app.agent(blocks)  # type: ignore[untyped-decorator]
async def etl(stream: Any) -> None:
    """Hand every message to its partition, which acknowledges it once its step is durable."""
    async for event in stream.noack().events():
        await runners.give(event)
