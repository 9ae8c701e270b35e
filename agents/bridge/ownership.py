"""The work of a bridge process from the assignment of partitions of `checkpoints` to their revoke (rules T1, T5)."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog
from faust.types import TP

from agents.bridge.bridge import BridgeWorker, Share
from agents.bridge.shard_reader import ROLE, Append, BlockScope, ReaderPorts
from app.adapters.kafka import reads_next
from app.adapters.ports import BlockStream, Logs
from app.core.bridge.shards import ShardBook
from app.core.formats.checkpoint import Barrier, Checkpoint, decode
from app.core.formats.decoding import placed
from app.errors import FormatInvalid, NewerFormat, WorkerStalled
from app.shell.foreign import note_foreign
from app.shell.owned_loop import OwnedLoop
from app.shell.ports import ClockPorts, RoleProcess
from app.shell.seeker import Repositions, Seeker
from app.shell.upgrade import UpgradeWaits
from app.topics import topics_of

log = structlog.get_logger(__name__)


PutMessage = Callable[[int, Checkpoint | Barrier], Awaitable[Any]]
"""Put (partition, message) on topic `checkpoints`; returns when the broker has it."""


class BridgePorts(ClockPorts, Protocol):
    """The adapters that a bridge uses."""

    @property
    def blocks(self) -> BlockStream:
        """The Kinesis stream."""


class BridgeProcess(RoleProcess, Repositions, Protocol):
    """The process around the bridge."""

    @property
    def ports(self) -> BridgePorts:
        """Its adapters."""

    @property
    def group(self) -> str:
        """The name of its consumer group."""

    async def logs(self) -> Logs:
        """Kafka's logs."""


class Checkpoints(Protocol):
    """Table `checkpoints`: `tables.checkpoints.CheckpointTable`."""

    def advance(self, partition: int, checkpoint: Checkpoint) -> Checkpoint:
        """Take a checkpoint that came on `partition`; the shard's furthest one."""

    def of(self, partitions: Collection[int]) -> list[Checkpoint]:
        """Every checkpoint that came on one of these partitions."""


def _random_token() -> str:
    return uuid.uuid4().hex


class Ownership(OwnedLoop[BridgeWorker]):
    """The work of this process from assignment to revoke: catch up with the topic, then read shards."""

    def __init__(
        self,
        process: BridgeProcess,
        table: Checkpoints,
        append: Append,
        record: PutMessage,
        new_token: Callable[[], str] = _random_token,
    ) -> None:
        topic = topics_of(process.settings).checkpoints
        super().__init__(process, topic, self._open_worker, BridgeWorker.run, BridgeWorker.stop)
        self._bridge = process
        self._table = table
        self._append = append
        self._record = record
        self._new_token = new_token
        self._barriers: dict[str, asyncio.Event] = {}
        self._next_offsets: dict[TP, int] = {}
        self._seekers: dict[TP, Seeker] = {}
        self._upgrades = UpgradeWaits(ROLE)

    async def end(self) -> None:
        """Stop all readers, send checkpoints, and give the partitions up."""
        self._barriers.clear()
        self._next_offsets.clear()
        self._seekers.clear()
        self._upgrades.clear()
        await super().end()

    async def in_order(self, event: Any) -> bool:
        """Whether a message of topic `checkpoints` may be taken; over a gap the partition is sought back.

        After a message of a newer bridge no message may be taken: its partition waits for this bridge's upgrade (rule E10).

        If the `finished` message of a shard is skipped, nobody sends it again, and the child shards are never read.

        Raises:
            SourceGap: a message never comes.
        """
        tp, offset = TP(event.message.tp.topic, event.message.tp.partition), event.message.offset
        if _place(tp) in self._upgrades:
            return False
        if tp not in self._next_offsets:
            wanted = await reads_next(await self._bridge.logs(), self._bridge.group, tp.topic, tp.partition)
            self._next_offsets.setdefault(tp, wanted)
        seeker = self._seekers.setdefault(tp, Seeker(self._bridge, self._bridge.ports.clock, tp))
        if offset > self._next_offsets[tp]:
            await seeker.seek_back(self._next_offsets[tp], offset)
            return False
        seeker.came()
        return True

    def take(self, event: Any) -> bool:
        """Take a message of topic `checkpoints` that is `in_order`.

        Put it into the table, and give it to the running worker.

        Returns: whether the message was taken. False: the message, or its shard's checkpoint in the table, is of a newer
        version.
        """
        tp, offset = TP(event.message.tp.topic, event.message.tp.partition), event.message.offset
        furthest: Checkpoint | None = None
        message: Checkpoint | Barrier | None = None
        try:
            with placed(f"{_place(tp)}@{offset}"):
                message = decode(event.value)
                if isinstance(message, Checkpoint):
                    furthest = self._table.advance(tp.partition, message)
        except NewerFormat as exc:
            self._upgrades.begin(_place(tp), exc)
            return False
        except FormatInvalid as exc:
            note_foreign(tp.topic, tp.partition, offset, str(exc))
        self._next_offsets[tp] = max(offset + 1, self._next_offsets.get(tp, 0))
        if furthest is not None and self.worker is not None:
            self.worker.book.learn(furthest)
        elif isinstance(message, Barrier) and message.token in self._barriers:
            self._barriers[message.token].set()
        return True

    def positions(self) -> dict[TP, int]:
        """Owned partitions, each with the agent's next offset, for the watchdog.

        Partitions that wait for an upgrade are left out.
        """
        return {tp: offset for tp, offset in self._next_offsets.items() if _place(tp) not in self._upgrades}

    def waiting_for(self) -> str | None:
        """The answer of /ready."""
        if not self.owned():
            return None  # more workers than partitions: a spare is ready
        if (reason := self._upgrades.reason()) is not None:
            return reason
        return "checkpoints" if self.worker is None else self.worker.waiting_for()

    @asynccontextmanager
    async def _open_worker(self, owned: list[int]) -> AsyncIterator[BridgeWorker]:
        """Catch up with the topic, then make the worker."""
        await self._catch_up(owned)
        settings, ports = self._bridge.settings, self._bridge.ports
        book = ShardBook(frozenset(owned), settings.checkpoint_partitions, round(settings.slack_s * 1000))
        try:
            checkpoints = self._table.of(owned)
        except NewerFormat as exc:  # no worker runs until the process is upgraded, or loses its partitions
            self._upgrades.begin(f"table {self._topic.name}", exc)
            await asyncio.Event().wait()
        for checkpoint in checkpoints:
            book.learn(checkpoint)
        scope = BlockScope(settings.epoch, settings.partitions)
        share = Share(scope, settings.checkpoint_partitions, settings.tick_interval_s)
        log.info("bridge serves", partitions=owned)
        yield BridgeWorker(share, book, ReaderPorts(ports.blocks, self._append, self._record, ports.clock))

    async def _catch_up(self, owned: list[int]) -> None:
        """Return when the agent has read every message that was on the owned partitions at the call.

        Raises:
            WorkerStalled: the agent does not reach the end.
        """
        tokens = {partition: self._new_token() for partition in owned}
        met = [self._barriers.setdefault(token, asyncio.Event()) for token in tokens.values()]
        for partition, token in tokens.items():
            await self._record(partition, Barrier(token))
        waiting = asyncio.ensure_future(asyncio.gather(*[event.wait() for event in met]))
        try:
            done, _ = await asyncio.wait([waiting], timeout=self._bridge.settings.stall_timeout_s)
            if not done and self._upgrades.reason() is None:
                raise WorkerStalled(f"the end of {self._topic.name} {owned} is not reached")
            await waiting  # for the upgrade, if it must
        finally:
            waiting.cancel()


def _place(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"
