"""The work of an owner of an ETL partition from assignment to revoke, under Faust or in a simulation."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from agents.etl.partition import EtlPartition, StepState
from app.clock import Clock
from app.core.enrich.enrich import Enricher
from app.core.etl.step import PartitionEtl
from app.core.formats.dead_letter import DeadLetterLimit
from app.core.formats.decoding import placed
from app.core.rules import EtlRules
from app.core.state.tables import StateReader
from app.errors import TopicRecreated
from app.settings import Settings
from app.shell.inbox import Inbox

log = structlog.get_logger(__name__)


KAFKA_OVERHEAD_BYTES: Final = 4096
"""Bytes of a record batch with one message, without the message."""


def etl_rules(settings: Settings) -> EtlRules:
    """The rules of the ETL by `settings`."""
    return EtlRules(
        epoch=settings.epoch, partitions=settings.partitions, join=settings.join, dedup_window_ms=settings.dedup_window_ms,
        message_bytes=settings.max_message_bytes - KAFKA_OVERHEAD_BYTES,
        dead_letters=DeadLetterLimit(settings.dead_letter_share, settings.dead_letter_least), kernels=settings.kernels,
    )  # fmt: skip


class OwnedState(StepState, Protocol):
    """The stores of a worker's partitions: `tables.partition_state.PartitionState`."""

    async def verify_recovered(self, partition: int) -> None:
        """Check that recovery has read the log to its end. Raises NewerFormat, StoreLost, StepConflict."""

    def reader(self, partition: int) -> StateReader:
        """The look-ups for a step of the partition."""


class EtlPorts(NamedTuple):
    """The ports of an owner."""

    state: OwnedState
    source_bounds: Callable[[int], Awaitable[tuple[int, int]]]
    """Given a partition, returns the earliest offset that `blocks` still has, and one more than its last."""
    append: Callable[[int, bytes], Awaitable[int]]
    """Send (partition, message) to `rows` and wait for every replica in sync; the message's offset (`StepPorts`)."""
    send_dead_letters: Callable[[int, Sequence[bytes]], Awaitable[None]]
    """Send (partition, dead letters) to their topic and wait for every replica in sync (`StepPorts`)."""
    clock: Clock
    when_loaded: Callable[[], None] = lambda: None
    """Called when the partition's state is in memory and before the first step."""


async def own_partition(inbox: Inbox, rules: EtlRules, enricher: Enricher, ports: EtlPorts) -> None:
    """Own one partition: begin where the store ends, then step until it is revoked.

    Raises:
        NewerFormat: the next message of its log or source, or its state, is of a newer version (rule E10).
    """
    partition, state = inbox.partition, ports.state
    await state.verify_recovered(partition)
    position = state.position(partition)
    wanted = position.source_last + 1
    first = await first_available(partition, wanted, ports)
    with placed(f"state of {inbox.tp.topic}[{partition}]"):
        core = PartitionEtl.load(partition, rules, enricher, state.reader(partition), position.meta, position.source_last)
    etl_partition = EtlPartition(core, inbox, ports)
    if first > wanted:
        log.error("source messages are gone", partition=partition, first_missing=wanted, first_available=first)
        await etl_partition.declare_gap(first)
    ports.when_loaded()
    log.info("partition recovered", partition=partition, step=position.accepted.number, source_next=first)
    await inbox.start_at(first)
    await etl_partition.run()


async def first_available(partition: int, wanted: int, ports: EtlPorts) -> int:
    """`wanted`, or the first offset behind it that `blocks` still has (rule E4).

    Raises:
        TopicRecreated: `blocks` ends before `wanted`.
    """
    first, end = await ports.source_bounds(partition)
    if wanted > end:
        raise TopicRecreated(f"blocks[{partition}] ends at {end}, {wanted - 1} is applied: raise INSTREAM_EPOCH")
    return max(wanted, first)
