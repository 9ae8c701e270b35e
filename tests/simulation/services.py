"""The services as one process of the simulated world meets them."""

from types import SimpleNamespace
from typing import Any

from app.adapters.ports import PutOutcome
from app.errors import OutcomeUnknown, ServiceUnavailable
from tests.simulation.faults import Fault
from tests.simulation.process import Process


def ports_of(process: Process) -> Any:
    """The process's adapters."""
    world = process.world
    return SimpleNamespace(
        clock=process.clock,
        objects=process.remote(world.objects, "s3", clock_skew_ms=lambda: process.clock.skew_ms),
        registry=process.remote(world.registry, "registry"),
        blocks=Stream(process),
        logs=process.remote(world.logs, "kafka"),
    )


class Stream:
    """Kinesis over the wire: throttled, and puts that fail in part."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._remote = process.remote(process.world.stream, "kinesis")

    async def put(self, blocks: Any) -> Any:
        """Failures of a call are outcomes."""
        faults = self._process.world.faults
        if faults.happens(Fault.THROTTLED):
            faults.note(Fault.THROTTLED)
            await self._process.sleep(0.01)
            return [PutOutcome("ProvisionedThroughputExceededException")] * len(blocks)
        refused = {n for n in range(len(blocks)) if faults.happens(Fault.PARTIAL)}
        faults.counts[Fault.PARTIAL.value] += bool(refused)
        taken = [self._spoilt(block) for n, block in enumerate(blocks) if n not in refused]
        try:
            outcomes = iter(await self._remote.put(taken) if taken else [])
        except (ServiceUnavailable, OutcomeUnknown) as exc:
            return [PutOutcome(type(exc).__name__)] * len(blocks)
        return [PutOutcome("InternalFailure") if n in refused else next(outcomes) for n in range(len(blocks))]

    def _spoilt(self, block: bytes) -> bytes:
        """The block, now and then without its end."""
        world = self._process.world
        if not world.faults.happens(Fault.UNREADABLE):
            return block
        world.faults.note(Fault.UNREADABLE, self._process.role)
        world.unreadable.add(block[:-6])
        return block[:-6]

    async def shards(self) -> Any:
        return await self._remote.shards()

    async def iterator(self, shard: str, after: str | None) -> Any:
        return await self._remote.iterator(shard, after)

    async def records(self, iterator: str, limit: int) -> Any:
        faults, world = self._process.world.faults, self._process.world
        if faults.happens(Fault.THROTTLED):
            faults.note(Fault.THROTTLED)
            raise ServiceUnavailable("records: ProvisionedThroughputExceededException")
        if faults.happens(Fault.EXPIRED):
            faults.note(Fault.EXPIRED)
            world.stream.expire_iterators()
        return await self._remote.records(iterator, world.chance.choice([1, 3, limit]))
