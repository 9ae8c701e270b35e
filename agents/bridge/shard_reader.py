"""One reader a shard.

Read Kinesis, append to Kafka, wait for the broker, and only then count the records as read (T1, T2).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from app.adapters.ports import BlockStream, RecordPage, StreamRecord
from app.clock import Clock
from app.core.backoff import Backoff
from app.core.bridge.shards import Phase, ShardAnswer, ShardBook
from app.core.formats.block import RefusedRecord, decode_header, encode_refused, partition_of_refused
from app.core.formats.checkpoint import Checkpoint
from app.core.formats.decoding import placed
from app.errors import EnvelopeInvalid, EpochMismatch, IteratorExpired, NewerFormat, OutsideError, WrongPartitionCount
from app.shell.upgrade import UpgradeWaits

log = structlog.get_logger(__name__)

Append = Callable[[int, bytes], Awaitable[Awaitable[Any]]]
"""Put (partition, value) into the producer, in the order of the calls; the returned awaitable waits for the broker's
answer."""
RecordCheckpoint = Callable[[int, Checkpoint], Awaitable[Any]]
"""Put (partition, checkpoint) on topic `checkpoints`; returns when the broker has it."""

READ_LIMIT: Final = 1000
"""Most records in one answer; Kinesis itself stops at 10 MiB an answer."""
READ_EVERY_S: Final = 0.2
"""Shortest time between two reads of a shard. Source: Kinesis quotas, GetRecords, 5 transactions a second a shard."""
IDLE_S: Final = 0.25
"""Time between reads that find nothing."""
BACKOFF: Final = Backoff(first_s=2 * IDLE_S, longest_s=5.0)
"""Pauses after failed reads."""
ROLE: Final = "bridge"

RECORDS: Final = Counter("instream_bridge_records_total", "Kinesis records that Kafka acknowledged")
BYTES: Final = Counter("instream_bridge_bytes_total", "Bytes of Kinesis records that Kafka acknowledged")
REFUSED: Final = Counter("instream_bridge_refused_total", "Kinesis records that are no block of this epoch", ["reason"])
RENEWED: Final = Counter("instream_bridge_iterators_renewed_total", "Shard iterators that had expired")
UNAVAILABLE: Final = Counter("instream_bridge_read_failures_total", "GetRecords or iterator calls throttled or failed")
BEHIND_MS: Final = Gauge("instream_bridge_behind_ms", "MillisBehindLatest of the last answer", ["shard"])


class _Message(NamedTuple):
    """A message for topic `blocks`."""

    partition: int
    value: bytes


class BlockScope(msgspec.Struct, frozen=True):
    """The epoch and the partitions that a block must fit."""

    epoch: int
    partitions: int


class ReaderPorts(NamedTuple):
    """The ports of a bridge worker."""

    stream: BlockStream
    append: Append
    record: RecordCheckpoint
    clock: Clock


class ShardReader:
    """Copies one shard's records, byte for byte and in order, to the partition that each envelope names.

    Effects of a turn, in order, and what a crash right after each leaves:
    1. GetRecords. Nothing has happened.
    2. Append every block of the answer and wait for the broker. The next reader appends them again: replays (rule E7).
    3. Note the answer in the book, so that the worker may send a checkpoint and a watermark. The note is lost with the
       process: the same as 2.

    A newer collector's block stays where it is, and the checkpoint and the watermark stay before it, until this bridge is
    upgraded (rule E10): the block is read again every few seconds.
    """

    def __init__(self, shard: str, book: ShardBook, cluster: BlockScope, ports: ReaderPorts) -> None:
        self.shard = shard
        self._book = book
        self._cluster = cluster
        self._stream, self._append, _, self._clock = ports
        self._iterator: str | None = None
        self._failures = 0
        self._stopping = asyncio.Event()
        self.upgrades = UpgradeWaits(ROLE)

    def stop(self) -> None:
        """Make `run` return after the turn in flight."""
        self._stopping.set()

    async def run(self) -> None:
        """Turn until the shard is read to its end or `stop` is called.

        Raises:
            EpochMismatch, WrongPartitionCount: see `turn`; a Kafka error: the outcome is unknown, so the worker must end.
        """
        while not self._stopping.is_set() and self._book.phase(self.shard) is Phase.READING:
            pause_s = await self.turn()
            try:
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            except TimeoutError:
                continue

    async def turn(self) -> float:
        """One read, and the appends of its records.

        Returns: seconds to wait before the next turn.

        Raises:
            EpochMismatch: a block has a later epoch, so this bridge is outdated. Nothing is lost: no checkpoint passed the
            block.
            WrongPartitionCount: a block for a partition that this epoch does not have.
        """
        started_s = self._clock.monotonic_s()
        known_closed = self._book.known_closed(self.shard)
        try:
            if self._iterator is None:
                self._iterator = await self._stream.iterator(self.shard, self._book.sequence(self.shard))
            asked_at_ms = self._clock.now_ms()
            page = await self._stream.records(self._iterator, READ_LIMIT)
        except IteratorExpired:
            RENEWED.inc()
            self._iterator = None
            return 0.0
        except OutsideError as exc:
            return self._back_off(exc)
        self._failures = 0
        done = await self._deliver(page.records)
        if done < len(page.records):
            return self._stay(page, done, asked_at_ms)
        self.upgrades.end(self.shard)
        self._iterator = page.next_iterator
        self._book.answered(self.shard, _answer(page, asked_at_ms, known_closed))
        BEHIND_MS.labels(self.shard).set(page.behind_ms)
        busy = bool(page.records) or page.behind_ms > 0
        return max(0.0, (READ_EVERY_S if busy else IDLE_S) - (self._clock.monotonic_s() - started_s))

    def _stay(self, page: RecordPage, done: int, asked_at_ms: int) -> float:
        """Stay behind the first `done` records of a page; seconds until the next try."""
        self._iterator = None
        if done:
            last = page.records[done - 1]
            behind_ms = max(1, page.behind_ms)
            answer = ShardAnswer(asked_at_ms, False, last.sequence, last.arrival_ms, behind_ms, has_next=True)
            self._book.answered(self.shard, answer)
        return BACKOFF.longest_s

    async def _deliver(self, records: Sequence[StreamRecord]) -> int:
        """Append every block and wait until the broker has all of them (rule T1).

        Returns: the number of records before the first one of a newer version; these are done.
        """
        acks = []
        done = len(records)
        for n, record in enumerate(records):
            try:
                message = self._read(record)
            except NewerFormat as exc:
                self.upgrades.begin(self.shard, exc)
                done = n
                break
            if message is not None:
                acks.append(await self._append(message.partition, message.value))
                BYTES.inc(len(record.data))
        if acks:
            await asyncio.gather(*acks)
        RECORDS.inc(len(acks))
        return done

    def _read(self, record: StreamRecord) -> _Message | None:
        """The message on `blocks` that a record becomes, or None if the record must be skipped.

        A record that is no block goes on as a refused record, with an alarm: a foreign writer must not stop the stream, the
        ETL keeps the record as a dead letter (rule E8), and the audit sends a damaged block again. A block of an earlier
        epoch is skipped: the epoch is raised only when no batch is open, and a new epoch's bridge reads the stream from its
        oldest record.

        Raises:
            NewerFormat: it is a newer collector's block.
        """
        place = {"shard": self.shard, "sequence": record.sequence}
        try:
            with placed(f"{self.shard}@{record.sequence}"):
                header = decode_header(record.data)
        except EnvelopeInvalid as exc:
            REFUSED.labels("not a block").inc()
            log.error("not a block", reason=str(exc), alarm=True, **place)
            refused = encode_refused(RefusedRecord(self.shard, record.sequence, str(exc)), record.data)
            return _Message(partition_of_refused(record.data, self._cluster.partitions), refused)
        if header.epoch > self._cluster.epoch:
            raise EpochMismatch(f"{place}: block of epoch {header.epoch}, this bridge serves {self._cluster.epoch}")
        if header.epoch < self._cluster.epoch:
            REFUSED.labels("earlier epoch").inc()
            log.warning(
                "block of an earlier epoch", batch_id=header.batch_id, block=header.block, epoch=header.epoch, **place
            )
            return None
        if header.partition >= self._cluster.partitions:
            raise WrongPartitionCount(
                f"{place}: block for partition {header.partition} of {self._cluster.partitions}: some collector has another "
                "INSTREAM_PARTITIONS"
            )
        return _Message(header.partition, record.data)

    def _back_off(self, exc: OutsideError) -> float:
        """Seconds until the next try. The reader then asks for a new iterator: the old one may be the cause."""
        self._iterator = None
        self._failures += 1
        UNAVAILABLE.inc()
        pause_s = BACKOFF.pause_s(self._failures)
        log.warning("shard cannot be read", shard=self.shard, reason=str(exc), retry_in_s=pause_s)
        return pause_s


def _answer(page: RecordPage, asked_at_ms: int, known_closed: bool) -> ShardAnswer:
    """Note in the book a page whose records are all acknowledged."""
    last = page.records[-1] if page.records else None
    return ShardAnswer(
        asked_at_ms, known_closed, None if last is None else last.sequence, 0 if last is None else last.arrival_ms,
        page.behind_ms, page.next_iterator is not None,
    )  # fmt: skip
