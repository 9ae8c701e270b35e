"""The bridge: Kinesis -> Kafka `blocks`, at least once, and the watermark messages that move stream time (rules T1 to T5).

The owner of a partition of topic `checkpoints` reads the shards that have their home there. On assignment an owner sends a
barrier through each of its partitions. When the agent has read the barrier, the table holds all records of former owners,
and the worker starts. On revoke the worker stops first: rebalances are eager, all partitions are taken and assigned anew.
"""

from functools import partial
from typing import Any, Final

from agents.bridge.ownership import Ownership
from app.apps import bridge as app
from app.core.formats.checkpoint import Barrier, Checkpoint, encode
from app.topics import topics_of
from tables.checkpoints import checkpoint_table

topics: Final = topics_of(app.settings)
blocks = app.source_topic(topics.blocks.name, topics.blocks.partitions)
checkpoints = app.source_topic(topics.checkpoints.name, topics.checkpoints.partitions)
table = checkpoint_table(app, topics)


async def append(partition: int, value: bytes) -> Any:
    """Hand a message to the producer for `blocks`; the returned awaitable waits for the broker."""
    return app.ports.calls.follow("kafka", "append", await blocks.send(key=None, value=value, partition=partition))


async def record(partition: int, message: Checkpoint | Barrier) -> None:
    """Put a message on topic `checkpoints` and wait for the broker."""
    key = message.shard.encode() if isinstance(message, Checkpoint) else None
    with app.ports.calls.during("kafka", "append"):
        await (await checkpoints.send(key=key, value=encode(message), partition=partition))


ownership: Final = Ownership(app, table, append, record)
app.when_assigned(ownership.begin)
app.when_leaving(ownership.end)
app.watchdog.watch(ownership.positions)
app.ready_when(ownership.waiting_for)


@app.agent(checkpoints)  # type: ignore[untyped-decorator]
async def keep_checkpoints(stream: Any) -> None:
    """Take each checkpoint into the table, wait for its changelog, acknowledge."""
    async for event in stream.noack().events():
        current = partial(app.is_current, event.message.generation_id)
        if current() and await ownership.in_order(event) and current() and ownership.take(event):
            await table.settle()
            event.ack()
