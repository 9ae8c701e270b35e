"""`index`: the audit's index of ids over a day of raw files, and the look-ups in it; S3 is in memory.

An event is a line. Measured are the rounds of the indexer, merges included. Then ids of lines are looked up as
`instream trace` does, each to its line in the raw file, with an S3 that takes `S3_ANSWERS_S` for an answer. Raw files that
are not looked up are dropped once they are indexed, so that ten million lines fit into memory.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from agents.audit.trace.id_search import IdKind, IdSearch, WantedId
from agents.audit.trace.indexer import Indexer
from agents.audit.trace.raw_lines import RawLines
from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.plan import BenchPlan
from app.bench.traffic import PartitionTraffic, Shape
from app.core.formats.batch import new_batch_id
from app.core.formats.block import frame_of, open_frame
from app.core.formats.object_keys import INDEX, raw_key
from app.core.formats.raw_file import ids_in
from app.core.formats.registry_item import BlockPlace, RegistryItem
from app.errors import BenchmarkWrong
from app.settings import Settings
from app.testing.memory import MemoryObjectStore, MemoryRegistry

BLOCKS_A_BATCH: Final = 8
BATCHES_A_ROUND: Final = 10
HOURS: Final = 24
HOUR_MS: Final = 3_600_000
START_MS: Final = 486_111 * HOUR_MS
"""An hour's first moment."""
LOOK_UPS: Final = 300
S3_ANSWERS_S: Final = 0.1
"""Source: Amazon S3 user guide, "Performance design patterns": first bytes after roughly 100 to 200 ms."""


class _Clock:
    """A clock that the run moves."""

    def __init__(self) -> None:
        self.at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000


class _Batch(NamedTuple):
    frames: list[bytes]
    lines: list[int]
    """Lines of each frame."""

    def item(self, number: int, at_ms: int) -> RegistryItem:
        """The batch in the registry."""
        batch_id = new_batch_id(at_ms, number.to_bytes(10, "big"))
        places, line, byte = [], 0, 0
        for frame, lines in zip(self.frames, self.lines, strict=True):
            places.append(BlockPlace(0, line, lines, byte, len(frame)))
            line, byte = line + lines, byte + len(frame)
        return RegistryItem(
            batch_id=batch_id, epoch=1, line_count=line, byte_count=byte, sha256="0" * 64, raw_key=raw_key(batch_id, at_ms),
            blocks=places, received_at_ms=at_ms,
        )  # fmt: skip


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: a line was not indexed, or is not found.
    """
    like_a_worker()
    with plan.profiled():
        return [asyncio.run(_Run(plan).run()) for _ in range(plan.repeats)]


class _Run:
    """One run."""

    def __init__(self, plan: BenchPlan) -> None:
        self._plan = plan
        self._clock = _Clock()
        self._store, self._registry = MemoryObjectStore(self._clock), MemoryRegistry()
        self._indexer = Indexer(self._store, self._clock, Settings())
        self._meter = Meter()
        self._batches = max(1, -(-plan.events // (plan.block_lines * BLOCKS_A_BATCH)))
        self._looked_up: list[tuple[str, str, int]] = []
        """Event id, batch and line."""
        self._indexed = self._raw_bytes = 0

    async def run(self) -> BenchRun:
        """Index all lines, settle every hour, and look some of them up."""
        chance, waiting = random.Random(1), list[str]()
        sampled = set(chance.sample(range(self._batches), min(LOOK_UPS, self._batches)))
        for number, batch in enumerate(self._traffic()):
            self._clock.at_ms = START_MS + number * HOURS * HOUR_MS // self._batches
            item = batch.item(number, self._clock.at_ms)
            self._raw_bytes += item.byte_count
            await self._store.put(item.raw_key, b"".join(batch.frames))
            if number in sampled:
                await self._registry.register(item)
                line = chance.randrange(batch.lines[0])
                event_id = ids_in(open_frame(batch.frames[0]))[line].event_id or ""
                self._looked_up.append((event_id, item.batch_id, line))
            else:
                waiting.append(item.raw_key)
            if number % BATCHES_A_ROUND == BATCHES_A_ROUND - 1:
                await self._round()
                await self._store.delete(waiting)
                waiting.clear()
        self._clock.at_ms = START_MS + (HOURS + 1) * HOUR_MS
        await self._round()
        if self._indexed != self._plan.events:
            raise BenchmarkWrong(f"{self._indexed} of {self._plan.events} lines are indexed")
        sizes = [info.size async for info in self._store.list(INDEX) if info.size]
        took_s = await self._look_up()
        return BenchRun(
            events=self._plan.events, cpu_s=self._meter.cpu_s, wall_s=self._meter.wall_s, peak_rss_bytes=peak_rss_bytes(),
            bytes_in=self._raw_bytes, bytes_out=sum(sizes),
            more={
                "segments": len(sizes), "index_bytes_a_line": sum(sizes) / self._plan.events,
                "raw_bytes_a_line": self._raw_bytes / self._plan.events,
                "look_up_p50_ms": 1000 * statistics.median(took_s),
                "look_up_p99_ms": 1000 * statistics.quantiles(took_s, n=100, method="inclusive")[-1],
            },
        )  # fmt: skip

    def _traffic(self) -> Iterator[_Batch]:
        batch = _Batch([], [])
        for entry in PartitionTraffic(Shape(self._plan.events, self._plan.block_lines)):
            if not entry.lines:
                continue
            batch.frames.append(frame_of(entry.value))
            batch.lines.append(entry.lines)
            if len(batch.frames) == BLOCKS_A_BATCH:
                yield batch
                batch = _Batch([], [])
        if batch.frames:
            yield batch

    async def _round(self) -> None:
        self._meter.start()
        self._indexed += (await self._indexer.round()).lines
        self._meter.stop()

    async def _look_up(self) -> list[float]:
        """The seconds of each look-up, one after the other."""

        async def answer(_: str, __: str) -> None:
            await asyncio.sleep(S3_ANSWERS_S)

        self._store.before = answer
        took_s = []
        for event_id, batch_id, line in self._looked_up:
            start_s, wanted = time.perf_counter(), WantedId(IdKind.EVENT, event_id)
            found = await IdSearch(self._store).find([wanted])
            lines = [
                raw
                for place in found.lines[wanted]
                for raw in (await RawLines(self._store, self._registry).read(place.batch_id, [place.line])).lines
                if wanted.is_in(raw.fields)
            ]
            took_s.append(time.perf_counter() - start_s)
            if (batch_id, line) not in {(raw.batch_id, raw.line) for raw in lines}:
                raise BenchmarkWrong(f"event {event_id} is not found in batch {batch_id} line {line}")
        return took_s
