"""Traces and the indexer over the whole pipeline in memory."""

from typing import Any

from agents.audit.trace.indexer import Indexer
from agents.audit.trace.ports import TracePorts
from agents.audit.trace.tracer import Tracer, Within
from app.adapters.ports import LogSearch
from app.core.formats.object_keys import INDEX
from app.core.formats.registry_item import RegistryItem
from app.errors import ServiceUnavailable
from app.testing.memory import MemoryFates
from tests.worlds.pipeline import SETTINGS, Pipeline

GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Traced:
    """A pipeline, its indexer, and its traces."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        self.is_kafka_up = True
        pipeline = self.pipeline
        self.store = pipeline.store
        self.indexer = self.new_indexer()
        self.ports = TracePorts(
            pipeline.store, pipeline.registry, pipeline.ledger, MemoryFates(pipeline.warehouse), self._logs, pipeline.clock
        )
        self.tracer = Tracer(self.ports, SETTINGS)

    def new_indexer(self) -> Indexer:
        """An indexer that knows nothing."""
        return Indexer(self.pipeline.store, self.pipeline.clock, SETTINGS)

    async def _logs(self) -> LogSearch:
        if not self.is_kafka_up:
            raise ServiceUnavailable("Kafka does not answer")
        return self.pipeline.logs

    async def collect(self, *events: dict[str, Any] | str) -> RegistryItem:
        return await self.pipeline.collect(*events)

    def pass_s(self, seconds: float) -> None:
        self.pipeline.clock.pass_s(seconds)

    async def index_keys(self) -> list[str]:
        return [info.key async for info in self.store.list(INDEX)]


def since_minutes(world: Traced, minutes: float) -> Within:
    """The time since so many minutes before now."""
    return Within(world.pipeline.clock.now_ms() - round(minutes * 60_000))
