"""The sink of one partition: step messages become transactions, each of six flows and the ledger, all or none.

The decisions are in `app.core.sink.open_transaction`, `app.core.sink.chain` and
`app.core.sink.accept_gap`, the calls to S3 in `agents.sink.chain_store`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter, Gauge

from agents.sink.chain_store import ChainStore, Sleep, timed
from app.adapters.ports import ObjectStore
from app.clock import Clock
from app.core.formats import object_keys
from app.core.formats.decoding import placed
from app.core.formats.flow_files import EncodeStreams, encode_streams
from app.core.formats.transaction_record import TransactionRecord
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainEnd, ChainId, LogBounds, chain_end_after
from app.core.sink.open_transaction import CommitRules, OpenTransaction, Reception, encode_outputs, record_of
from app.core.sink.seconds import join_waits
from app.errors import NewerFormat
from app.settings import Settings
from app.shell.foreign import note_foreign
from app.shell.histogram import CountedHistogram
from app.shell.inbox import Inbox

log = structlog.get_logger(__name__)

TRANSACTIONS = Counter("instream_sink_transactions_total", "Committed transactions, by content", ["kind"])
ROWS = Counter("instream_sink_rows_total", "Rows in committed transactions", ["output"])
BYTES = Counter("instream_sink_file_bytes_total", "Bytes of files in committed transactions", ["output"])
MESSAGES = Counter("instream_sink_messages_total", "Step messages, by kind for the sink", ["arrival"])
ROLLED_FORWARD = Counter("instream_sink_rolled_forward_total", "Committed transactions that were finished once more")
BUFFERED = Gauge("instream_sink_buffered_bytes", "Bytes of step messages in the open transaction", ["partition"])
NUMBER = Gauge("instream_sink_number", "Number of the last finished transaction", ["partition"])
STREAM_TIME = Gauge("instream_sink_stream_time_seconds", "Stream time of the last finished transaction", ["partition"])

JOIN_WAIT_S: Final = CountedHistogram(
    "instream_join_wait_seconds", "From the receipt of a page view to the stream time that closed it", (),
    (1, 5, 10, 15, 30, 60, 90, 120, 150, 180, 300, 600, 1800, 3600),
)  # fmt: skip
_JOINED: Final = "page_views"

Announce = Callable[[bytes], Awaitable[None]]
"""Send a ready.json to topic `manifests`; returns when the broker has it."""
AskBounds = Callable[[], Awaitable[LogBounds]]
"""The bounds of the partition's log now."""
RandomHex = Callable[[], str]

POLL_S: Final = 0.5
"""A partition without messages checks so often whether it is time to commit."""
RANDOM_BYTES: Final = 4
"""Random bytes in a transaction's id: two writers of one number have different ids."""


_ENCODER: Final = ThreadPoolExecutor(1, thread_name_prefix="encode")
"""One for all partitions of a process: encoding takes four to five times the memory of the row messages."""


class SinkPorts(NamedTuple):
    """The ports of the sink of one partition."""

    objects: ObjectStore
    announce: Announce
    bounds: AskBounds
    clock: Clock
    random_hex: RandomHex
    sleep: Sleep = asyncio.sleep
    encode: EncodeStreams = encode_streams
    """What writes the files of flows."""


class Displaced(NamedTuple):
    """Another writer had the number of a commit; its transaction is ready now, and the open messages are dropped."""

    read_from: int


def commit_rules(settings: Settings) -> CommitRules:
    """When the sink commits, by `settings`."""
    return CommitRules(settings.commit_interval_s, settings.commit_bytes, settings.idle_commit_interval_s)


class SinkPartition:
    """Collects the messages of one partition and commits them. One caller at a time; begin with `open`.

    After an exception or a cancellation at any point, drop it and open another one: uncommitted messages are in the log, and
    the next one to open finishes a committed transaction.
    """

    def __init__(self, chain_id: ChainId, rules: CommitRules, ports: SinkPorts) -> None:
        self.chain_id = chain_id
        self._rules = rules
        self._chain = ChainStore(ports.objects, chain_id, ports.sleep)
        self._ports = ports
        self._clock = ports.clock
        self._replaced = Replacements()
        self._end = ChainEnd()
        self._open = self._collect_behind(self._end)
        self._log = log.bind(epoch=chain_id.epoch, partition=chain_id.partition)

    @property
    def acknowledged(self) -> int:
        """The last offset that a finished transaction covers: it may be acknowledged."""
        return self._end.last_offset

    @property
    def next_offset(self) -> int:
        """The offset that `take` needs next."""
        return self._open.next_offset

    @property
    def holds_messages(self) -> bool:
        """Whether there are messages that no transaction covers yet."""
        return self._open.next_offset > self._end.next_offset

    async def open(self) -> int:
        """Read the replaced steps (rule E2), find the chain's end, roll it forward, and go on behind it (rules S3, S5).

        Returns: the offset to read from. It may lie before the chain's end: the last accepted message is read again, if the
        log still has it, to compare its digest.

        Raises:
            ChainGap: the log lacks messages that no transaction covers.
            TopicRecreated: the chain covers messages that the log never had.
            ChainBroken: the chain contradicts itself.
            NewerFormat: a newer sink committed its end.
            StepMessageInvalid: the replacement of a damaged step is no step.
        """
        self._replaced = await self._chain.replacements()
        return await self._go_on_behind(await self._chain.find_end())

    def take(self, offset: int, message: bytes | None) -> Reception:
        """Take the next message of the log; the rule of every reader recognises messages of zombies (rule E2).

        Raises: as `OpenTransaction.take`.
        """
        arrival = self._open.take(offset, message, self._clock.monotonic_s())
        MESSAGES.labels(arrival.value).inc()
        if arrival is Reception.FOREIGN:
            note_foreign("rows", self.chain_id.partition, offset, self._open.foreign)
        BUFFERED.labels(self.chain_id.partition).set(self._open.held_bytes)
        return arrival

    def due(self) -> bool:
        """Whether it is time to commit."""
        return self._open.due(self._clock.monotonic_s(), self._rules)

    async def commit(self) -> Displaced | None:
        """Make the open messages a transaction, in this order (rule S1); each line names the remains of a crash after it.

        1 stage the files: objects in jobdata/ without a record. The messages come again; the sweep deletes the objects once
          another transaction has the number.
        2 commit the record: from here the transaction exists, and the next owner of the partition does 3 to 5.
        3 move the files to data/, 4 write the manifests and ready.json, announce: done again by that owner, with the same
          bytes; delivery sees nothing before ready.json, and needs no announcement.
        5 delete the staged files: the owner finds them gone and compares their copies with the record's digests. The
          caller then acknowledges the messages; otherwise they come again and are known to be behind the chain's end.

        If another writer has taken the number (rule S4), our files are deleted, its transaction is finished, and everything
        behind the chain's end must be read again.

        Returns: None if the transaction is ready, Displaced if another writer had its number.
        """
        open_, now_ms = self._open, self._clock.now_ms()
        txn = object_keys.txn_id(*self.chain_id, open_.end.number + 1, self._ports.random_hex())
        with timed("encode"):
            encode = partial(encode_outputs, open_.content, txn, self._ports.encode)
            files = await asyncio.get_running_loop().run_in_executor(_ENCODER, encode)
            received_ms = next(file.received_ms for file in files if file.output == _JOINED)
            waits = join_waits(received_ms, open_.stream_times_ms.get(_JOINED, ()))
        open_.streams.clear()  # they are in the files: while S3 stalls, keep only the files
        ours = record_of(open_, txn, files, now_ms)
        await self._chain.stage(ours, [file.body for file in files])
        found = await self._chain.commit(ours)
        if found.txn_id != txn:
            await self._chain.clear([out.staged_key for out in ours.outputs if out.staged_key is not None])
            return Displaced(await self._go_on_behind(await self._chain.find_end(found.number)))
        await self._finish(ours)
        self._count(ours, waits)
        self._end = chain_end_after(ours)
        self._open = self._collect_behind(self._end)
        return None

    async def _go_on_behind(self, last: TransactionRecord | None) -> int:
        if last is not None:
            await self._finish(last)
            ROLLED_FORWARD.inc()
        self._end = chain_end_after(last)
        self._open = self._collect_behind(self._end)
        bounds = await self._ports.bounds()
        self._end.check(bounds)
        self._log.info("chain continues", number=self._end.number, next_offset=self._end.next_offset)
        return max(self._end.read_from, bounds.earliest)

    async def _finish(self, record: TransactionRecord) -> None:
        """Steps 3, 4 and 5 of a committed transaction, ours or another writer's."""
        effects = await self._chain.finish(record)
        with timed("announce"):
            await self._ports.announce(effects.announcement)
        await self._chain.clear(effects.deletes)

    def _collect_behind(self, end: ChainEnd) -> OpenTransaction:
        BUFFERED.labels(self.chain_id.partition).set(0)
        if end.number:
            NUMBER.labels(self.chain_id.partition).set(end.number)
            STREAM_TIME.labels(self.chain_id.partition).set(end.stream_time_ms / 1000)
        return OpenTransaction(self.chain_id, end, self._clock.monotonic_s(), self._replaced)

    def _count(self, record: TransactionRecord, waits: Mapping[int, int]) -> None:
        for wait_s, count in waits.items():
            JOIN_WAIT_S.observe((), wait_s, count)
        rows = sum(out.rows for out in record.outputs)
        TRANSACTIONS.labels("rows" if rows else "empty").inc()
        for out in record.outputs:
            ROWS.labels(out.output).inc(out.rows)
            BYTES.labels(out.output).inc(out.bytes)
        self._log.info(
            "transaction ready", txn_id=record.txn_id, rows=rows, bytes=sum(out.bytes for out in record.outputs),
            offsets=f"{record.first_offset}-{record.last_offset}", took_ms=self._clock.now_ms() - record.committed_at_ms,
        )  # fmt: skip


async def serve(inbox: Inbox, sink: SinkPartition) -> None:
    """One partition from assignment to revoke: take, collect, commit, acknowledge.

    Messages are acknowledged only once a finished transaction covers them (S3). Open messages are dropped on revoke: they
    come again to the next owner (S5).

    Raises:
        NewerFormat: the next message, or the chain's end, is of a newer version; the messages before it are committed (E10).
    """
    await inbox.start_at(await sink.open())
    while not inbox.closing:
        for event in await inbox.take(timeout_s=POLL_S, limit=1):
            if await _take(inbox, sink, event) is Reception.BEYOND:
                await inbox.start_at(sink.next_offset)
        if sink.due() and not inbox.closing and (displaced := await sink.commit()):
            await inbox.start_at(displaced.read_from)
        inbox.ack(through=sink.acknowledged)


async def _take(inbox: Inbox, sink: SinkPartition, event: Any) -> Reception:
    """Take a message. Raises NewerFormat, after the commit of the open messages, because no more will come to them."""
    offset = event.message.offset
    try:
        with placed(f"{inbox.tp.topic}[{inbox.partition}]@{offset}"):
            return sink.take(offset, event.value)
    except NewerFormat:
        if sink.holds_messages and not inbox.closing:
            await sink.commit()
            inbox.ack(through=sink.acknowledged)
        raise
