"""The sink: topic `rows` becomes transactions in S3, one chain a partition (rules S1-S5)."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from agents.sink.chain_store import sweep
from agents.sink.encoder import encoder
from agents.sink.partition import RANDOM_BYTES, SinkPartition, SinkPorts, commit_rules, serve
from app.apps import sink as app
from app.core.sink.chain import ChainId, LogBounds
from app.shell.inbox import Inbox
from app.shell.owned_loop import crash_on_failure
from app.shell.runners import PartitionRunners
from app.topics import topics_of

SWEEPING_PARTITION: Final = 0
"""The owner of this partition sweeps for all."""
SWEEP_INTERVAL_S: Final = 86_400

_topics = topics_of(app.settings)
rows = app.source_topic(_topics.rows.name, _topics.rows.partitions)
manifests = app.source_topic(_topics.manifests.name, _topics.manifests.partitions)


async def work(inbox: Inbox) -> None:
    """One partition from assignment to revoke."""
    async with _sweeping(inbox.partition):
        await serve(inbox, _sink_of(inbox.partition))


runners = PartitionRunners(app, _topics.rows.name, work)


@app.agent(rows)  # type: ignore[untyped-decorator]
async def write_transactions(stream: Any) -> None:
    """Hand every message to its partition's runner."""
    async for event in stream.noack().events():
        await runners.give(event)


def _sink_of(partition: int) -> SinkPartition:
    """A partition's sink on the real ports."""

    async def announce(ready: bytes) -> None:
        with app.ports.calls.during("kafka", "append"):
            await (await manifests.send(key=b"%d" % partition, value=ready, partition=partition))

    async def bounds() -> LogBounds:
        logs = await app.logs()
        return LogBounds(*await logs.bounds(_topics.rows.name, partition))

    ports = SinkPorts(
        app.ports.objects, announce, bounds, app.ports.clock, random_hex=lambda: secrets.token_hex(RANDOM_BYTES),
        encode=encoder(app.settings),
    )  # fmt: skip
    return SinkPartition(ChainId(app.settings.epoch, partition), commit_rules(app.settings), ports)


@asynccontextmanager
async def _sweeping(partition: int) -> AsyncIterator[None]:
    """Sweep beside the work on one partition; the sweep ends with that work."""
    if partition != SWEEPING_PARTITION:
        yield
        return
    task = asyncio.ensure_future(crash_on_failure(app, _sweep_daily, what="sweep"))
    try:
        yield
    finally:
        task.cancel()


async def _sweep_daily() -> None:
    """Delete files that were staged and never committed (rule S4)."""
    while True:
        await sweep(app.ports.objects, app.ports.clock.now_ms())
        await asyncio.sleep(SWEEP_INTERVAL_S)
