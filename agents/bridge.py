"""The bridge: Kinesis -> Kafka `blocks`, at least once, and the ticks by which time passes (rules T1 to T5).

Who owns a partition of topic `checkpoints` pumps the shards that have their home there. On assignment an owner sends a
barrier through each of its partitions; when the agent has met it, the table holds all that former owners recorded, and the
worker starts. On revoke it stops first: rebalances are eager, everything is taken and given anew.
"""

import asyncio
import uuid
from typing import Any, Final

import structlog

from agents.bridge_worker import BridgeWorker, Share
from agents.pump import Cluster, Outside
from app.apps import bridge as app
from app.core.checkpoint import Barrier, Checkpoint, decode, encode
from app.core.shards import ShardBook
from app.errors import WorkerStalled
from app.topics import topics_of
from tables.checkpoints import checkpoint_table

log = structlog.get_logger(__name__)

topics: Final = topics_of(app.settings)
blocks = app.source_topic(topics.blocks.name, topics.blocks.partitions)
checkpoints = app.source_topic(topics.checkpoints.name, topics.checkpoints.partitions)
table = checkpoint_table(app, topics)


class Ownership:
    """What this process does between being given partitions and losing them."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._worker: BridgeWorker | None = None
        self._barriers: dict[str, asyncio.Event] = {}
        self._next_offsets: dict[Any, int] = {}

    async def begin(self, assignment: frozenset[Any]) -> None:
        """Start the share of these partitions."""
        await self.end()
        owned = frozenset(tp.partition for tp in assignment if tp.topic == topics.checkpoints.name)
        if owned:
            self._task = asyncio.ensure_future(self._serve(owned))

    async def end(self) -> None:
        """Stop all pumps, checkpoint, and let go."""
        task, worker, self._task, self._worker = self._task, self._worker, None, None
        self._barriers.clear()
        self._next_offsets.clear()
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

    def take(self, event: Any) -> None:
        """Note a message of topic `checkpoints`: into the table, and to the worker that runs."""
        message = decode(event.value)
        tp, offset = event.message.tp, event.message.offset
        self._next_offsets[tp] = offset + 1
        if isinstance(message, Checkpoint):
            furthest = table.advance(tp.partition, message)
            if self._worker is not None:
                self._worker.book.learn(furthest)
        elif message.token in self._barriers:
            self._barriers[message.token].set()

    def positions(self) -> dict[Any, int]:
        """Owned partitions and the offset that the agent takes next, for the watchdog."""
        return dict(self._next_offsets)

    def waiting_for(self) -> str | None:
        """What /ready answers."""
        if self._task is None:
            return None  # more workers than partitions: a spare is as ready as it gets
        return "checkpoints" if self._worker is None else self._worker.waiting_for()

    async def _serve(self, owned: frozenset[int]) -> None:
        """Catch up with the topic, then work until `end`; an error ends the process."""
        try:
            await self._catch_up(owned)
            book = ShardBook(owned, topics.checkpoints.partitions, round(app.settings.slack_s * 1000))
            for checkpoint in table.of(owned):
                book.learn(checkpoint)
            self._worker = BridgeWorker(_share(), book, Outside(app.ports.blocks, append, record, app.ports.clock))
            log.info("bridge serves", partitions=sorted(owned))
            await self._worker.run()
        except Exception as exc:
            log.exception("bridge failed")
            await app.crash(exc)

    async def _catch_up(self, owned: frozenset[int]) -> None:
        """Return when the agent has read everything that was on the owned partitions when this was called.

        Raises:
            WorkerStalled: it does not get there.
        """
        tokens = {partition: uuid.uuid4().hex for partition in owned}
        met = [self._barriers.setdefault(token, asyncio.Event()) for token in tokens.values()]
        for partition, token in tokens.items():
            await (await checkpoints.send(key=None, value=encode(Barrier(token)), partition=partition))
        try:
            await asyncio.wait_for(asyncio.gather(*[event.wait() for event in met]), app.settings.stall_timeout_s)
        except TimeoutError as exc:
            raise WorkerStalled(f"the end of {topics.checkpoints.name} {sorted(owned)} is not reached") from exc


def _share() -> Share:
    settings = app.settings
    return Share(Cluster(settings.epoch, settings.partitions), settings.checkpoint_partitions, settings.tick_interval_s)


async def append(partition: int, value: bytes) -> Any:
    """Hand a message to the producer for `blocks`; awaiting what this gives waits for the broker."""
    return await blocks.send(key=None, value=value, partition=partition)


async def record(partition: int, checkpoint: Checkpoint) -> None:
    """Put a checkpoint on its topic and wait for the broker."""
    await (await checkpoints.send(key=checkpoint.shard.encode(), value=encode(checkpoint), partition=partition))


ownership: Final = Ownership()
app.when_assigned(ownership.begin)
app.when_leaving(ownership.end)
app.watchdog.watch(ownership.positions)
app.ready_when(ownership.waiting_for)


@app.agent(checkpoints)  # type: ignore[untyped-decorator]
async def keep_checkpoints(stream: Any) -> None:
    """Take each checkpoint into the table, wait for its changelog, acknowledge."""
    async for event in stream.noack().events():
        if app.is_current(event.message.generation_id):
            ownership.take(event)
            await table.settle()
            event.ack()
