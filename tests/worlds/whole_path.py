"""Events from a client's bytes to the warehouse, through the production code of every role, in memory: a program.

It prints table -> rows as JSON, and runs on the version of the project that is first on the path.
"""

import asyncio
import json
import random
import sys
from itertools import count

import structlog

from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from agents.sink.partition import SinkPartition, SinkPorts, commit_rules
from app.core.enrich.enrich import Enricher
from app.core.etl.step import PartitionEtl
from app.core.events.parse import parse_line
from app.core.events.request_body import split_body
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.block import WatermarkMessage, encode_control
from app.core.formats.flows import FLOWS
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import NO_PREDECESSOR, encode_step
from app.core.rules import EtlRules, JoinRules
from app.core.sink.chain import ChainId, LogBounds
from app.core.state.tables import MemoryState
from app.settings import Settings
from app.testing.memory import MemoryObjectStore, MemoryWarehouse

NOW_MS = 1_750_000_000_000
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
COMMON = {"page_view_id": "v1", "occurred_at": NOW_MS}
EVENTS = [
    {
        "event_id": "pv",
        "event_type": "page_view",
        "url": "https://a.example/news/2025/story",
        "page_type": "story",
        **COMMON,
    },
    {"event_id": "vs", "event_type": "video_start", "video_id": "v-1", **COMMON},
]
RULES = EtlRules(epoch=1, partitions=1, join=JoinRules(8000, 3000, 2000), dedup_window_ms=3_600_000, message_bytes=1 << 24)


class StandingClock:
    """Time stands."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 1e9


def collected() -> list[SourceMessage]:
    """The messages that collector and bridge make of a request with `EVENTS`, and of the time after it."""
    body = json.dumps(EVENTS).encode()
    lines = [parse_line(line, "browser", NOW_MS, "203.0.113.7", CHROME) for line in split_body("application/json", body)]
    batch = seal(new_batch_id(NOW_MS, bytes(10)), 1, 1, lines)
    later = encode_control(WatermarkMessage({"shard": NOW_MS + 60_000}, {"shard": []}))
    return [SourceMessage(n, NOW_MS + 90_000, value) for n, value in enumerate([*batch.blocks, later])]


def stepped(messages: list[SourceMessage]) -> list[bytes]:
    """The messages that the etl makes of them."""
    state, log = MemoryState(), list[bytes]()
    etl = PartitionEtl.load(0, RULES, Enricher({}, {}), state, None, -1)
    while messages or etl.leftover:
        taken = etl.take(messages)
        step = etl.decide(messages[:taken], len(log) + 1, len(log) - 1 if log else NO_PREDECESSOR).message
        state.apply(step.changes)
        etl.advance(step)
        log.append(encode_step(step))
        messages = messages[taken:]
    return log


async def loaded(log: list[bytes]) -> MemoryWarehouse:
    """The warehouse after sink and delivery."""
    settings, store, clock, ids = Settings(partitions=1), MemoryObjectStore(), StandingClock(), count()

    async def announce(_: bytes) -> None:
        """Delivery looks by itself."""

    async def bounds() -> LogBounds:
        return LogBounds(0, len(log))

    ports = SinkPorts(store, announce, bounds, clock, lambda: f"{next(ids):08x}")
    sink = SinkPartition(ChainId(1, 0), commit_rules(settings), ports)
    await sink.open()
    for offset, message in enumerate(log):
        sink.take(offset, message)
    await sink.commit()
    warehouse = MemoryWarehouse(store)
    load = WarehouseLoad(store, warehouse.connect, settings, clock)
    report = await Deliverer(store, load, settings, clock, random.Random(1)).round([0])
    if report.deferred is not None:
        raise RuntimeError(f"not loaded: {report.deferred}")
    return warehouse


async def main() -> None:
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    warehouse = await loaded(stepped(collected()))
    json.dump({flow.name: warehouse.rows(flow.name) for flow in FLOWS}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
