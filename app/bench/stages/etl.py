"""`etl`: a real faust worker on a real broker, its topic preloaded; every event is decoded, joined, closed and counted.

CPU is the worker process's, from its first step to its last one, which closes everything. Then single-event blocks measure
the latency of an idle worker.
"""

import asyncio
import statistics
import threading
import time
from collections import Counter
from typing import Any, Final

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.adapters import kafka_clients
from app.bench.cluster import BenchCluster, BenchWorker, cluster
from app.bench.measure import BenchRun
from app.bench.plan import BenchPlan
from app.bench.traffic import RATE_PER_S, PartitionTraffic, Shape
from app.core.formats.step_message import StepMessage, decode_step
from app.errors import BenchmarkWrong
from app.topics import topics_of

PARTITIONS: Final = 4
QUIET_S: Final = 300
SAMPLE_S: Final = 0.02
PROBES: Final = 20
PATIENCE_S: Final = 600


class Loaded:
    """The content of topic `blocks`."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.ends: dict[int, int] = {}
        self.blocks = 0
        self.bytes = 0
        self.end_ms = 0


class CpuClock(threading.Thread):
    """Notes the CPU time of a process every few milliseconds."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._samples: list[tuple[float, float]] = []
        self.peak_rss_bytes = 0

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._done.wait(SAMPLE_S):
            self._samples.append((time.time(), self.now_s()))
            self.peak_rss_bytes = max(self.peak_rss_bytes, self._process.memory_info().rss)

    def now_s(self) -> float:
        """CPU time of the process so far."""
        used = self._process.cpu_times()
        return float(used.user + used.system)

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self.join()

    def at(self, moment_s: float) -> float:
        """CPU time at a moment of the wall clock."""
        return max((cpu for at, cpu in self._samples if at <= moment_s), default=self._samples[0][1])


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: the rows are not the traffic's.
    """
    return [_run_once(plan) for _ in range(plan.repeats)]


def _run_once(plan: BenchPlan) -> BenchRun:
    with cluster(PARTITIONS) as world:
        loaded = asyncio.run(_preload(world, plan))
        with world.worker("etl", "etl") as worker:
            clock = CpuClock(worker.pid)
            clock.start()
            worker.await_ready()
            with plan.profiled(worker.pid):
                steps = asyncio.run(_read_steps(world, loaded, worker))
            clock.stop()
            idle_ms = asyncio.run(_probe(world, loaded))
        made: Counter[str] = Counter()
        for _, step in steps:
            for entry in step.ledger:
                made[entry.outcome] += entry.lines
        if made != loaded.outcomes:
            raise BenchmarkWrong(f"the ETL made {dict(made)} of {dict(loaded.outcomes)}")
    first_s, last_s = steps[0][0], steps[-1][0]
    cpu_s = clock.at(last_s) - clock.at(first_s)
    return BenchRun(
        events=sum(made.values()), cpu_s=cpu_s, wall_s=last_s - first_s, peak_rss_bytes=clock.peak_rss_bytes,
        bytes_in=loaded.bytes, bytes_out=sum(len(packed) for _, step in steps for packed in step.rows.values()),
        more={
            "steps": len(steps), "blocks_per_s": loaded.blocks / cpu_s, "idle_block_to_rows_ms": idle_ms,
        },
    )  # fmt: skip


async def _preload(world: BenchCluster, plan: BenchPlan) -> Loaded:
    topic, loaded = topics_of(world.settings).blocks.name, Loaded()
    start_ms = int(time.time() * 1000) - 1000 * (plan.events // RATE_PER_S + QUIET_S + 60)
    producer: Any = AIOKafkaProducer(**kafka_clients.producer(world.settings))
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            shape = Shape(plan.events // PARTITIONS, plan.block_lines, PARTITIONS, start_ms)
            traffic = PartitionTraffic(shape, partition)
            end_ms = start_ms
            for entry in traffic:
                await producer.send(topic, entry.value, partition=partition)
                loaded.blocks += entry.lines > 0
                loaded.bytes += len(entry.value)
                end_ms = entry.end_ms
            for second in range(1, QUIET_S):
                await producer.send(topic, traffic.tick(end_ms + 1000 * second).value, partition=partition)
            sent = await producer.send_and_wait(topic, traffic.tick(end_ms + 1000 * QUIET_S).value, partition=partition)
            loaded.ends[partition] = sent.offset
            loaded.outcomes += traffic.outcomes
            loaded.end_ms = max(loaded.end_ms, end_ms + 1000 * QUIET_S)
    finally:
        await producer.stop()
    return loaded


async def _read_steps(world: BenchCluster, loaded: Loaded, worker: BenchWorker) -> list[tuple[float, StepMessage]]:
    """Every step with its broker time, in order of time, once all are there."""
    topic, ends = topics_of(world.settings).rows.name, loaded.ends
    consumer: Any = AIOKafkaConsumer(**kafka_clients.log_reader(world.settings))
    await consumer.start()
    try:
        parts = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(parts)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:  # look seldom: a second reader would take CPU time on the broker's core
            worker.check()
            tails = [part for part, end in (await consumer.end_offsets(parts)).items() if end]
            done = 0
            for part in tails:
                consumer.seek(part, (await consumer.end_offsets([part]))[part] - 1)
                done += decode_step((await consumer.getone(part)).value).source_last >= ends[part.partition]
            if done == PARTITIONS:
                break
            if time.monotonic() > deadline_s:
                raise BenchmarkWrong(f"the worker is not done after {PATIENCE_S} s")
            await asyncio.sleep(0.5)
        steps = []
        for part, end in (await consumer.end_offsets(parts)).items():
            consumer.seek(part, 0)
            for _ in range(end):
                message = await consumer.getone(part)
                steps.append((message.timestamp / 1000, decode_step(message.value)))
        return sorted(steps, key=lambda found: found[0])
    finally:
        await consumer.stop()


async def _probe(world: BenchCluster, loaded: Loaded) -> float:
    """Median milliseconds from the send of a block with one event to its rows, in an idle worker."""
    topics = topics_of(world.settings)
    producer: Any = AIOKafkaProducer(**kafka_clients.producer(world.settings))
    consumer: Any = AIOKafkaConsumer(**kafka_clients.log_reader(world.settings, fetch_max_wait_ms=5))
    await producer.start()
    await consumer.start()
    try:
        part = TopicPartition(topics.rows.name, 0)
        consumer.assign([part])
        consumer.seek(part, (await consumer.end_offsets([part]))[part])
        shape = Shape(PROBES, 1, PARTITIONS, loaded.end_ms + 1000, seed=2)
        took_ms = []
        for entry in PartitionTraffic(shape):
            if entry.lines:
                start_s = time.perf_counter()
                await producer.send_and_wait(topics.blocks.name, entry.value, partition=0)
                await consumer.getone(part)
                took_ms.append(1000 * (time.perf_counter() - start_s))
        return statistics.median(took_ms)
    finally:
        await consumer.stop()
        await producer.stop()
