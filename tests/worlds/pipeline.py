"""The whole pipeline in memory, on two partitions; a test moves each stage by hand, so that lines stop where it wants."""

import json
import random
from itertools import count
from typing import Any

from agents.audit.stages.stages import StagePorts, Stages
from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from agents.sink.encoder import encoder
from agents.sink.partition import SinkPartition, SinkPorts, commit_rules
from app.core.enrich.enrich import Enricher
from app.core.etl.step import PartitionEtl
from app.core.events.parse import parse_line
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.block import WatermarkMessage, decode_header, encode_control
from app.core.formats.registry_item import RegistryItem
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import NO_PREDECESSOR, encode_step
from app.core.rules import EtlRules
from app.core.sink.chain import ChainId, LogBounds
from app.core.state.tables import MemoryState
from app.settings import Settings
from app.testing.memory import MemoryLoadedLedger, MemoryLogs, MemoryObjectStore, MemoryRegistry, MemoryWarehouse
from tests.worlds.sink import StandingClock

PARTITIONS = 2
SETTINGS = Settings(partitions=PARTITIONS, join_window_s=90, join_grace_s=30, join_reorder_s=10)
BLOCKS, ROWS = "blocks-e1", "rows-e1"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"


class Pipeline:
    """Collector, bridge, etl, sink and delivery over one registry, bucket, Kafka and warehouse."""

    def __init__(self) -> None:
        self.clock = StandingClock()
        self.logs = MemoryLogs(self.clock)
        self.store = MemoryObjectStore(self.clock)
        self.registry = MemoryRegistry()
        self.warehouse = MemoryWarehouse(self.store, self.clock)
        self.ledger = MemoryLoadedLedger(self.warehouse)
        self.kinesis: list[bytes] = []
        """Blocks that the bridge has not read."""
        self._etls = [_Etl(partition) for partition in range(PARTITIONS)]
        self._random = count()
        self.deliverer = self.another_deliverer()
        self.stages = Stages(StagePorts(self.store, self.ledger, self.logs), SETTINGS)

    def another_deliverer(self) -> Deliverer:
        """A deliverer of this warehouse that knows nothing yet."""
        load = WarehouseLoad(self.store, self.warehouse.connect, SETTINGS, self.clock)
        return Deliverer(self.store, load, SETTINGS, self.clock, random.Random(1))

    async def collect(self, *events: dict[str, Any] | str) -> RegistryItem:
        """A batch of these events, received now; a text is a malformed line. Its blocks are in Kinesis."""
        now_ms = self.clock.now_ms()
        texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
        lines = [parse_line(text.encode(), "browser", now_ms, "203.0.113.7", CHROME) for text in texts]
        sealed = seal(new_batch_id(now_ms, next(self._random).to_bytes(10)), 1, PARTITIONS, lines)
        await self.store.put(sealed.item.raw_key, sealed.raw)
        await self.registry.register(sealed.item)
        self.kinesis += sealed.blocks
        return sealed.item

    def event(self, event_id: str, event_type: str, view: str = "v1", **fields: Any) -> dict[str, Any]:
        """An event that occurs now."""
        common = {"event_id": event_id, "event_type": event_type, "page_view_id": view, "occurred_at": self.clock.now_ms()}
        return {**common, **fields}

    def bridge(self) -> None:
        """Copy everything in Kinesis to topic `blocks`, and a watermark of now to each partition."""
        for block in self.kinesis:
            self.logs.append(BLOCKS, decode_header(block).partition, block)
        self.kinesis.clear()
        watermark = encode_control(WatermarkMessage({"s": self.clock.now_ms()}, {"s": []}))
        for partition in range(PARTITIONS):
            self.logs.append(BLOCKS, partition, watermark)

    def etl(self) -> None:
        """Take everything in topic `blocks`."""
        for etl in self._etls:
            etl.run(self.logs)

    async def sink(self) -> None:
        """Commit everything on topic `rows`."""
        for partition in range(PARTITIONS):
            await self._sink(partition)

    async def _sink(self, partition: int) -> None:
        async def announce(_: bytes) -> None:
            """Delivery looks by itself."""

        async def bounds() -> LogBounds:
            return LogBounds(*await self.logs.bounds(ROWS, partition))

        def random_hex() -> str:
            return f"{next(self._random):08x}"

        ports = SinkPorts(self.store, announce, bounds, self.clock, random_hex, encode=encoder(SETTINGS))
        sink = SinkPartition(ChainId(1, partition), commit_rules(SETTINGS), ports)
        offset = await sink.open()
        for message in self.logs.read(ROWS, partition, offset, 10_000):
            sink.take(message.offset, message.value)
        if sink.holds_messages:
            await sink.commit()

    async def deliver(self) -> None:
        """Load everything that is ready."""
        await self.deliverer.round(range(PARTITIONS))

    async def drain(self) -> None:
        """Let every stage do what it can."""
        self.bridge()
        self.etl()
        await self.sink()
        await self.deliver()


class _Etl:
    """The etl of one partition."""

    def __init__(self, partition: int) -> None:
        rules = EtlRules(
            epoch=1, partitions=PARTITIONS, join=SETTINGS.join, dedup_window_ms=86_400_000, message_bytes=1 << 24
        )
        self._partition = partition
        self._state = MemoryState()
        self._core = PartitionEtl.load(partition, rules, Enricher({}, {}), self._state, None, -1)
        self._number, self._last, self._taken = 0, NO_PREDECESSOR, 0

    def run(self, logs: MemoryLogs) -> None:
        found = logs.read(BLOCKS, self._partition, self._taken, 10_000)
        waiting = [SourceMessage(*message) for message in found]
        while waiting or self._core.leftover:
            taken = self._core.take(waiting)
            step = self._core.decide(waiting[:taken], self._number + 1, self._last).message
            self._state.apply(step.changes)
            self._core.advance(step)
            self._number, self._last = step.number, logs.append(ROWS, self._partition, encode_step(step))
            self._taken += taken
            waiting = waiting[taken:]
