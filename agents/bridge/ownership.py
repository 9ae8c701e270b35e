"""What a bridge process does between being given partitions of `checkpoints` and losing them (rules T1, T5)."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple, Protocol

import structlog
from faust.types import TP

from agents.bridge.bridge import BridgeWorker, Share
from agents.bridge.shard_reader import ROLE, Append, BlockScope, ReaderPorts, Record
from app.adapters.ports import BlockStream
from app.clock import Clock
from app.core.bridge.shards import ShardBook
from app.core.formats.checkpoint import Barrier, Checkpoint, decode
from app.core.formats.decoding import placed
from app.errors import NewerFormat, WorkerStalled
from app.shell.role_process import RoleProcess
from app.shell.seeker import Seeker
from app.shell.upgrade import UpgradeWaits
from app.topics import topics_of

log = structlog.get_logger(__name__)


class BridgePorts(Protocol):
    """The adapters that a bridge uses."""

    @property
    def blocks(self) -> BlockStream:
        """The Kinesis stream."""

    @property
    def clock(self) -> Clock:
        """The process's clock."""


class BridgeProcess(RoleProcess, Protocol):
    """The process around it."""

    @property
    def ports(self) -> BridgePorts:
        """Its adapters."""

    async def reposition(self, tp: TP, offset: int) -> None:
        """Read `tp` from `offset` on."""


class Checkpoints(Protocol):
    """Table `checkpoints`: `tables.checkpoints.CheckpointTable`."""

    def advance(self, partition: int, checkpoint: Checkpoint) -> Checkpoint:
        """Take a checkpoint that came on `partition`; the shard's furthest one."""

    def of(self, partitions: Collection[int]) -> list[Checkpoint]:
        """Every checkpoint that came on one of these partitions."""


class KafkaPorts(NamedTuple):
    """Where a bridge writes; all of Kafka."""

    append: Append
    record: Record
    mark: Callable[[int, Barrier], Awaitable[Any]]
    """Put (partition, barrier) on topic `checkpoints`; returns when the broker has it."""
    begins_at: Callable[[int], Awaitable[int]]
    """Given a partition of `checkpoints`: the offset that the group reads next, or the earliest there is behind it."""


def _random_token() -> str:
    return uuid.uuid4().hex


class Ownership:
    """What this process does between being given partitions and losing them."""

    def __init__(
        self, process: BridgeProcess, table: Checkpoints, kafka: KafkaPorts, new_token: Callable[[], str] = _random_token
    ) -> None:
        self._process = process
        self._table = table
        self._kafka = kafka
        self._new_token = new_token
        self._topic = topics_of(process.settings).checkpoints
        self._task: asyncio.Task[None] | None = None
        self._worker: BridgeWorker | None = None
        self._barriers: dict[str, asyncio.Event] = {}
        self._next_offsets: dict[TP, int] = {}
        self._seekers: dict[TP, Seeker] = {}
        self._upgrades = UpgradeWaits(ROLE)

    async def begin(self, assignment: frozenset[TP]) -> None:
        """Start the share of these partitions."""
        await self.end()
        owned = frozenset(tp.partition for tp in assignment if tp.topic == self._topic.name)
        if owned:
            self._task = asyncio.ensure_future(self._serve(owned))

    async def end(self) -> None:
        """Stop all pumps, checkpoint, and let go."""
        task, worker, self._task, self._worker = self._task, self._worker, None, None
        self._barriers.clear()
        self._next_offsets.clear()
        self._seekers.clear()
        self._upgrades.clear()
        if task is None:
            return
        if worker is None:
            task.cancel()
        else:
            worker.stop()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()

    async def in_order(self, event: Any) -> bool:
        """Whether a message of topic `checkpoints` may be taken; over a gap the partition is sought back.

        Behind one that a newer bridge wrote none is: its partition waits for this bridge's upgrade (rule E10).

        A lost word of a finished shard is said by nobody again: its children would never be pumped.

        Raises:
            SourceGap: a message never comes.
        """
        tp, offset = TP(event.message.tp.topic, event.message.tp.partition), event.message.offset
        if _place(tp) in self._upgrades:
            return False
        if tp not in self._next_offsets:
            wanted = await self._kafka.begins_at(tp.partition)
            self._next_offsets.setdefault(tp, wanted)
        seeker = self._seekers.setdefault(tp, Seeker(self._process, self._process.ports.clock, tp))
        if offset > self._next_offsets[tp]:
            await seeker.seek_back(self._next_offsets[tp], offset)
            return False
        seeker.came()
        return True

    def take(self, event: Any) -> bool:
        """Note a message of topic `checkpoints` that is `in_order`: into the table, and to the worker that runs.

        Returns: whether it is done with; otherwise it is, or its shard's checkpoint in the table, of a newer version.
        """
        tp, offset = TP(event.message.tp.topic, event.message.tp.partition), event.message.offset
        furthest = None
        try:
            with placed(f"{_place(tp)}@{offset}"):
                message = decode(event.value)
                if isinstance(message, Checkpoint):
                    furthest = self._table.advance(tp.partition, message)
        except NewerFormat as exc:
            self._upgrades.begin(_place(tp), exc)
            return False
        self._next_offsets[tp] = max(offset + 1, self._next_offsets.get(tp, 0))
        if furthest is not None and self._worker is not None:
            self._worker.book.learn(furthest)
        elif isinstance(message, Barrier) and message.token in self._barriers:
            self._barriers[message.token].set()
        return True

    def positions(self) -> dict[TP, int]:
        """Owned partitions and the offset that the agent takes next, for the watchdog; none that wait for an upgrade."""
        return {tp: offset for tp, offset in self._next_offsets.items() if _place(tp) not in self._upgrades}

    def waiting_for(self) -> str | None:
        """What /ready answers."""
        if self._task is None:
            return None  # more workers than partitions: a spare is as ready as it gets
        if (reason := self._upgrades.reason()) is not None:
            return reason
        return "checkpoints" if self._worker is None else self._worker.waiting_for()

    async def _serve(self, owned: frozenset[int]) -> None:
        """Catch up with the topic, then work until `end`; an error ends the process."""
        try:
            await self._catch_up(owned)
            book = ShardBook(owned, self._topic.partitions, round(self._process.settings.slack_s * 1000))
            for checkpoint in self._table.of(owned):
                book.learn(checkpoint)
            self._worker = BridgeWorker(self._share(), book, self._ports())
            log.info("bridge serves", partitions=sorted(owned))
            await self._worker.run()
        except NewerFormat as exc:  # in the table; nothing runs until the process is upgraded, or loses its partitions
            self._upgrades.begin(f"table {self._topic.name}", exc)
        except Exception as exc:
            log.exception("bridge failed")
            await self._process.crash(exc)

    async def _catch_up(self, owned: frozenset[int]) -> None:
        """Return when the agent has read everything that was on the owned partitions when this was called.

        Raises:
            WorkerStalled: it does not get there.
        """
        tokens = {partition: self._new_token() for partition in owned}
        met = [self._barriers.setdefault(token, asyncio.Event()) for token in tokens.values()]
        for partition, token in tokens.items():
            await self._kafka.mark(partition, Barrier(token))
        waiting = asyncio.ensure_future(asyncio.gather(*[event.wait() for event in met]))
        try:
            done, _ = await asyncio.wait([waiting], timeout=self._process.settings.stall_timeout_s)
            if not done and self._upgrades.reason() is None:
                raise WorkerStalled(f"the end of {self._topic.name} {sorted(owned)} is not reached")
            await waiting  # for the upgrade, if it must
        finally:
            waiting.cancel()

    def _share(self) -> Share:
        settings = self._process.settings
        return Share(
            BlockScope(settings.epoch, settings.partitions), settings.checkpoint_partitions, settings.tick_interval_s
        )

    def _ports(self) -> ReaderPorts:
        ports = self._process.ports
        return ReaderPorts(ports.blocks, self._kafka.append, self._kafka.record, ports.clock)


def _place(tp: TP) -> str:
    return f"{tp.topic}[{tp.partition}]"
