"""The collector as a process: the batcher behind `POST /v1/events`."""

from app.collector.batcher import Batcher, CollectorPorts
from app.collector.budget import MemoryBudget
from app.collector.clock_guard import ClockGuard
from app.collector.requests import BodyLimits, RequestBody, read_lines
from app.collector.storage_health import StorageHealth
from tests.simulation.process import Process
from tests.simulation.services import ports_of


class Collector:
    """The batcher behind `POST /v1/events`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self.process, self._ports = process, ports_of(process)
        settings = world.settings
        self._budget = MemoryBudget(settings.max_buffered_bytes)
        health = StorageHealth(process.clock.monotonic_s)
        self._guard = ClockGuard(self._ports.objects, settings.max_clock_skew_s, health)
        ports = CollectorPorts(
            self._ports.objects, self._ports.registry, self._ports.blocks, process.clock, process.random.randbytes
        )
        self._batcher = Batcher(settings, ports, self._budget, self._guard, world.threads)
        process.spawn(self._guard.watch(), "guard")
        process.spawn(self._batcher.resender.run(), "resender")
        world.collectors[process.slot] = self

    async def collect(self, body: bytes, user_agent: str, ip: str) -> str:
        """What the server does with an NDJSON body; the batch's id. Raises RequestRejected."""
        self._guard.check()
        settings = self.process.world.settings
        with self._budget.reserve() as held:
            sent = RequestBody(body, "application/x-ndjson", "server", self.process.clock.now_ms(), ip, user_agent)
            lines = read_lines(sent, held, BodyLimits(settings.max_decompressed_bytes, settings.max_lines))
            return await self._batcher.add(lines, held.hand_over())

    async def stop(self) -> None:
        await self._batcher.close()
