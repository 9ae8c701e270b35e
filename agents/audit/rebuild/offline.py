"""One partition of a rebuild: its blocks through the core, as an owner of the partition would take them from the log."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl
import structlog

from agents.audit.rebuild.raw_blocks import BlockFiles, Duplicates, EpochPartition
from app.core.enrich.enrich import Enricher
from app.core.etl.decode import ANY_FAILURE
from app.core.etl.meta import EtlMeta, encode_meta
from app.core.etl.step import PartitionEtl, StepDecision
from app.core.formats.columns import unpack_frame
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import Changes, LedgerEntry, StepMessage
from app.core.rebuild.source_log import messages_of, order_blocks, stream_times_ms
from app.core.rebuild.span import MADE_WITHIN_MS, BatchSpan
from app.core.rules import EtlRules
from app.core.state.encoding import digests_of, pack_time
from app.core.state.tables import KEY_BYTES
from app.errors import HistoryBroken, NewerFormat
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine

log = structlog.get_logger(__name__)

OpenStore = Callable[[], PartitionStore]
"""Opens an empty store."""
WAITING: Final = 256
"""Messages in hand; a step takes the first of them."""


class Made(NamedTuple):
    """The rows and the ledger of one step that belong to the span."""

    rows: dict[str, pl.DataFrame]
    """Flow -> its rows, with the columns that have values."""
    ledger: list[LedgerEntry]


class Core(NamedTuple):
    """The decisions of a rebuild."""

    rules: EtlRules
    enricher: Enricher
    open_store: OpenStore


def store_in(folder: Path, cache_bytes: int, window_ms: int) -> OpenStore:
    """A store on disk, for the ids and the open events of one partition."""
    memory, made = Memory(cache_bytes), iter(range(2**31))
    return lambda: PartitionStore(RocksEngine(folder / f"state-{next(made)}", memory), window_ms)


def run_partition(
    files: BlockFiles, partition: EpochPartition, core: Core, span: BatchSpan, duplicates: Duplicates
) -> Iterator[Made]:
    """The rows and the ledger of a partition, step by step.

    Args:
        files: the blocks of the span and of its margins.
        partition: one of them.
        core: what decides.
        span: rows and lines of other batches are left out.
        duplicates: the lines that the ledger calls duplicates.

    Raises:
        NewerFormat: a line is of a newer version.
    """
    places = files.places(partition)
    blocks = [place.block for place in places]
    copies = files.copies(partition, places, duplicates)
    order = order_blocks(blocks, copies.before)
    moments = stream_times_ms([blocks[n].received_at_ms for n in order])
    settled_ms = max(block.received_at_ms for block in blocks) + core.rules.join.settle_ms + MADE_WITHIN_MS
    envelopes = files.envelopes(partition, [places[n] for n in order])
    messages = messages_of(zip(moments, envelopes, strict=True), settled_ms)
    with closing(core.open_store()) as store:
        _Follower(store).remember(partition, copies.unmet, moments[0])
        for step in _steps(partition, core, store, messages):
            yield _of_span(step, span)


class _Follower:
    """Applies steps to the store, as the log's reader does."""

    def __init__(self, store: PartitionStore) -> None:
        self._store = store

    def remember(self, partition: EpochPartition, event_ids: Sequence[str] | frozenset[str], stored_ms: int) -> None:
        """Let the store know event ids whose line that counted came before the first block."""
        time = pack_time(stored_ms)
        seen = Changes.pack("seen", KEY_BYTES["seen"], [(digest, time) for digest in digests_of(sorted(event_ids))])
        self.take(StepMessage(
            epoch=partition.epoch, partition=partition.number, number=1, predecessor=-1, source_first=0, source_last=-1,
            stream_time_ms=0, meta=encode_meta(EtlMeta()), rows={}, row_counts={}, ledger=[], replays=[],
            changes=[seen] if event_ids else [],
        ))  # fmt: skip

    def take(self, step: StepMessage) -> None:
        self._store.commit(step, b"", self._store.rows_offset + 1)


def _steps(
    partition: EpochPartition, core: Core, store: PartitionStore, messages: Iterator[SourceMessage]
) -> Iterator[StepMessage]:
    """The steps of all messages."""
    position = store.position
    etl = PartitionEtl.load(partition.number, core.rules, core.enricher, store, position.meta, position.source_last)
    follower, waiting = _Follower(store), list(islice(messages, WAITING))
    while waiting or etl.leftover:
        taken = waiting[: etl.take(waiting)]
        step = _decide(etl, taken, store).message
        follower.take(step)
        etl.advance(step)
        yield step
        waiting = waiting[len(taken) :]
        waiting += islice(messages, WAITING - len(waiting))


def _decide(etl: PartitionEtl, messages: Sequence[SourceMessage], store: PartitionStore) -> StepDecision:
    """The step of `messages`; if it fails, it is decided line by line, as in a worker (rule E6)."""
    accepted = store.position.accepted
    try:
        return etl.decide(messages, accepted.number + 1, accepted.offset)
    except (HistoryBroken, NewerFormat, MemoryError):
        raise
    except ANY_FAILURE:
        log.exception("step failed, its lines are taken one by one", messages=len(messages))
        return etl.decide(messages, accepted.number + 1, accepted.offset, careful=True)


def _of_span(step: StepMessage, span: BatchSpan) -> Made:
    rows = {}
    for flow, packed in step.rows.items():
        frame = unpack_frame(packed)
        kept = frame.filter(pl.col("batch_id").is_between(pl.lit(span.first_id), pl.lit(span.end_id), closed="left"))
        if kept.height:
            rows[flow] = kept
    return Made(rows, [entry for entry in step.ledger if span.first_id <= entry.batch_id < span.end_id])
