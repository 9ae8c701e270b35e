"""One bridge worker's share of the stream: its shard readers, its watermark messages, the end of a shard (rules T1 to T5).

Everything here works through ports, so it runs under Faust, in a simulation and in a test alike.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from agents.bridge.shard_reader import BEHIND_MS, BlockScope, ReaderPorts, ShardReader
from app.core.bridge.shards import Ending, Listed, Phase, ShardBook
from app.core.formats.block import End, encode_control
from app.core.formats.checkpoint import Checkpoint, home_of
from app.errors import OutsideError

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S: Final = 8.0
"""Longest time for reads and sends in flight when readers must stop; the rebalance waits for it."""

WATERMARK_MS: Final = Gauge("instream_bridge_mark_ms", "A shard's watermark, milliseconds since the epoch", ["shard"])
READERS: Final = Gauge("instream_bridge_pumps", "Shards that this worker reads")
WATERMARK_MESSAGES: Final = Counter("instream_bridge_ticks_total", "Watermark messages that every partition acknowledged")
ENDS: Final = Counter("instream_bridge_ends_total", "Shards whose END every partition acknowledged", ["why"])
LIST_FAILURES: Final = Counter("instream_bridge_list_failures_total", "Failed calls for the list of shards")
CHECKPOINTS: Final = Counter("instream_bridge_checkpoints_total", "Checkpoints sent")


class Share(msgspec.Struct, frozen=True):
    """The settings of one worker."""

    cluster: BlockScope
    checkpoint_partitions: int
    tick_interval_s: float


class BridgeWorker:
    """Runs the readers of a book's shards and publishes the book's messages.

    Effects of a turn, in order, and what a crash right after each leaves:
    1. Ask for the list of shards. Nothing has happened.
    2. Record new shards on topic `checkpoints`. Their next owner finds them there.
    3. Start and stop readers; send the checkpoints that are due. Later records are read and appended again (rule E7).
    4. A watermark message to every partition, acknowledged. If a partition lacks it, its time stands until the next one.
    5. For each shard read to its end: END to every partition, acknowledged. The next owner reads the empty rest and ENDs it
       again; a second END changes nothing.
    6. Its checkpoint `finished` to every partition of `checkpoints`, its home last; the home's copy is marked as announced.
       Until the home has it, the next owner does 5 and 6 again, even if it has read a copy from another partition. A worker
       that has read such a copy may read the child shard, because 5 was done (rule T5).
    """

    def __init__(self, share: Share, book: ShardBook, ports: ReaderPorts) -> None:
        self.book = book
        self._share = share
        self._ports = ports
        self._stream, self._append, self._record, self._clock = ports
        self._readers: dict[str, tuple[ShardReader, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()
        self._ticked = False

    def waiting_for(self) -> str | None:
        """None once a watermark message is in every partition and no shard waits for an upgrade; else the reason to wait."""
        for reader, _ in self._readers.values():
            if (reason := reader.upgrades.reason()) is not None:
                return reason
        return None if self._ticked else "the list of shards"

    async def run(self) -> None:
        """Turn every `tick_interval_s`, and at once when a reader has reached its shard's end, until `stop`.

        Raises:
            Exception: a reader or a send raised it. The outcome of sends is then unknown and the process must end.
        """
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                started_s = self._clock.monotonic_s()
                await self.turn()
                left_s = self._share.tick_interval_s - (self._clock.monotonic_s() - started_s)
                tasks = [task for _, task in self._readers.values()]
                await asyncio.wait([stop, *tasks], timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
            await self._stop_readers(list(self._readers))
            await self._checkpoint()
        finally:
            stop.cancel()
            for _, task in self._readers.values():
                task.cancel()

    def stop(self) -> None:
        """Make `run` stop its readers, send their checkpoints, and return."""
        self._stopping.set()

    async def turn(self) -> None:
        """One round: list, record, read, checkpoint, watermark, end. Raises the exception of a send or a reader."""
        await self._survey()
        await self._run_readers()
        await self._checkpoint()
        if await self._tick():
            for ending in self.book.endings():
                await self._end(ending)

    async def _survey(self) -> None:
        """Ask Kinesis for the list; without an answer the last list stays."""
        asked_at_ms = self._clock.now_ms()
        try:
            shards = await self._stream.shards()
        except OutsideError as exc:
            LIST_FAILURES.inc()
            log.warning("shards cannot be listed", reason=str(exc))
            return
        self.book.survey({s.shard_id: Listed(s.parents, s.ending_sequence) for s in shards}, asked_at_ms)
        for shard in self.book.unrecorded():
            await self._put(Checkpoint(shard))
            self.book.learn(Checkpoint(shard))

    async def _run_readers(self) -> None:
        """Start readers of shards that are ready; remove readers that are done."""
        await self._stop_readers([shard for shard in self._readers if self.book.phase(shard) is not Phase.READING])
        for shard, (_, task) in self._readers.items():
            if task.done():  # its shard is not at its end, so the reader failed
                task.result()
                raise RuntimeError(f"the pump of {shard} ended before its shard did")
        for shard in self.book.startable():
            self.book.start(shard)
            reader = ShardReader(shard, self.book, self._share.cluster, self._ports)
            self._readers[shard] = (reader, self.launch(reader))
            log.info("shard is pumped", shard=shard, after=self.book.sequence(shard))
        READERS.set(len(self._readers))

    def launch(self, reader: ShardReader) -> asyncio.Task[None]:
        """The task that runs a reader; a simulation that turns readers itself overrides this."""
        return asyncio.ensure_future(reader.run())

    async def _stop_readers(self, shards: Sequence[str]) -> None:
        """Stop these readers, wait for their reads and sends in flight, and raise the exception of one of them."""
        going = [self._readers.pop(shard) for shard in shards]
        for reader, _ in going:
            reader.stop()
        if not going:
            return
        tasks = [task for _, task in going]
        _, pending = await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for task in pending:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for (reader, _), result in zip(going, results, strict=True):
            self.book.stopped(reader.shard)
            reader.upgrades.clear()
            _forget(reader.shard)
            if isinstance(result, asyncio.CancelledError):
                log.warning("a read or send was cut off; it comes again", shard=reader.shard)
            elif isinstance(result, BaseException):
                raise result

    async def _checkpoint(self) -> None:
        """Send the checkpoint of each own shard that moved.

        Every record that it claims was acknowledged before (rule T1).
        """
        for checkpoint in self.book.due_checkpoints():
            await self._put(checkpoint)
            self.book.learn(checkpoint)

    async def _tick(self) -> bool:
        """Append a watermark message to every partition and wait for the broker.

        False if there is none to send (rule T3).
        """
        tick = self.book.tick()
        if tick is None:
            return False
        await self._append_everywhere(encode_control(tick))
        self.book.published()
        self._ticked = True
        WATERMARK_MESSAGES.inc()
        for shard, watermark_ms in tick.watermarks.items():
            WATERMARK_MS.labels(shard).set(watermark_ms)
        return True

    async def _end(self, ending: Ending) -> None:
        """Send END to every partition, then `finished` to every partition of `checkpoints`, its home last (rule T5)."""
        shard = ending.shard
        if ending.alarm is not None:
            log.error(ending.alarm, shard=shard, after=self.book.sequence(shard), alarm=True)
        await self._append_everywhere(encode_control(End(shard)))
        ENDS.labels("read" if ending.alarm is None else "expired").inc()
        checkpoint = self.book.ended(shard)
        home = home_of(shard, self._share.checkpoint_partitions)
        others = [n for n in range(self._share.checkpoint_partitions) if n != home]
        announcement = msgspec.structs.replace(checkpoint, announced=False)
        await asyncio.gather(*[self._record(n, announcement) for n in others])
        await self._put(checkpoint)
        self.book.learn(checkpoint)
        _forget(shard)
        log.info("shard is finished", shard=shard, sequence=checkpoint.sequence)

    async def _append_everywhere(self, message: bytes) -> None:
        acks = [await self._append(partition, message) for partition in range(self._share.cluster.partitions)]
        await asyncio.gather(*acks)

    async def _put(self, checkpoint: Checkpoint) -> None:
        """Record a checkpoint at its shard's home."""
        await self._record(home_of(checkpoint.shard, self._share.checkpoint_partitions), checkpoint)
        CHECKPOINTS.inc()


def _forget(shard: str) -> None:
    """Drop a shard's gauges: this worker no longer reports it."""
    for gauge in (BEHIND_MS, WATERMARK_MS):
        with suppress(KeyError):
            gauge.remove(shard)
