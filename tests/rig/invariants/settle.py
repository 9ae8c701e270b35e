"""I7: once nothing disturbs a stack, its lag returns to nothing and the audit has no open batch."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from app.adapters.kafka import LogReader, committed_offsets
from app.adapters.loaded_ledger import WarehouseLedger
from app.core.formats.object_keys import chain_prefix
from app.core.sink.chain import ChainId
from app.errors import OutsideError
from app.settings import Settings
from app.topics import topics_of
from tests.rig.invariants.gather import Ports
from tests.rig.invariants.violation import Violation, listed

POLL_S: Final = 1.0
Say = Callable[[str], None]
Look = Callable[[], Awaitable[str]]
"""The work that is still to come, in words; empty once there is none."""


async def settle(ports: Ports, timeout_s: float, say: Say) -> list[Violation]:
    """Wait until no batch is open, and then until all messages and transactions that exist by then are done.

    Watermark messages never end, so "lag 0" means: all messages that were in a topic at the look are acknowledged.

    Returns: the work that was not done in time.
    """
    deadline = time.monotonic() + timeout_s
    if why := await _until(lambda: _open_batches(ports), deadline, say):
        return [Violation("I7", f"after {timeout_s:g} s: {why}")]
    ends = await _insist(lambda: _ends(ports.settings), deadline)
    if why := await _until(lambda: _lags(ports.settings, ends), deadline, say):
        return [Violation("I7", f"after {timeout_s:g} s: {why}")]
    heads = await _insist(lambda: _heads(ports), deadline)
    if why := await _until(lambda: _undelivered(ports.settings, heads), deadline, say):
        return [Violation("I7", f"after {timeout_s:g} s: {why}")]
    return []


async def _until(look: Look, deadline: float, say: Say) -> str:
    """Look until there is no more work. Returns: the work that is left when the time is up."""
    announced = ""
    while True:
        try:
            why = await look()
        except OutsideError as exc:
            why = f"{type(exc).__name__}: {exc}"
        if not why or time.monotonic() > deadline:
            return why
        if (short := why.partition(" (")[0]) != announced:
            say(f"waiting: {short}")
            announced = short
        await asyncio.sleep(POLL_S)


async def _insist(ask: Callable[[], Awaitable[dict[tuple[str, int], int]]], deadline: float) -> dict[tuple[str, int], int]:
    """An answer of a service; the call is repeated until there is one."""
    while True:
        try:
            return await ask()
        except OutsideError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_S)


async def _open_batches(ports: Ports) -> str:
    found = [item.batch_id async for item in ports.registry.open_batches(2**53)]
    return f"open batches: {listed(found)}" if found else ""


async def _ends(settings: Settings) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the end of its log now, of the topics that consumers must get through."""
    topics = topics_of(settings)
    found = {}
    async with LogReader(settings) as logs:
        for topic in (topics.blocks.name, topics.rows.name):
            for partition, end in (await logs.end_offsets(topic, range(settings.partitions))).items():
                found[topic, partition] = end
    return found


async def _lags(settings: Settings, ends: dict[tuple[str, int], int]) -> str:
    topics = topics_of(settings)
    words = []
    for role, topic in (("etl", topics.blocks.name), ("sink", topics.rows.name)):
        committed = await committed_offsets(settings, f"instream-{role}-e{settings.epoch}")
        behind = {p: end - committed.get((t, p), 0) for (t, p), end in ends.items() if t == topic}
        late = {partition: count for partition, count in behind.items() if count > 0}
        if late:
            words.append(f"{role} lags by {late}")
    return ", ".join(words)


async def _heads(ports: Ports) -> dict[tuple[str, int], int]:
    """Number of transactions in each chain now."""
    epoch, heads = ports.settings.epoch, {}
    for partition in range(ports.settings.partitions):
        prefix = chain_prefix(*ChainId(epoch, partition))
        heads[prefix, partition] = len([info async for info in ports.objects.list(prefix)])
    return heads


async def _undelivered(settings: Settings, heads: dict[tuple[str, int], int]) -> str:
    warehouse = WarehouseLedger(settings.warehouse_url)
    try:
        delivery = await warehouse.delivery(settings.epoch)
    finally:
        await warehouse.close()
    behind = {p: head - delivery.number(p) for (_, p), head in heads.items() if head > delivery.number(p)}
    return f"delivery lags by {behind}" if behind else ""
