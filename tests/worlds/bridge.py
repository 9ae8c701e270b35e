"""A simulated world for the bridge: the real worker and readers over the stream's twin and two logs in memory.

The world moves at every call they make, so an answer is old by the time it is used, and any call may be a process's last.
The invariants are checked from the logs alone (`tests.worlds.bridge_checks`).
"""

import asyncio
import random
import uuid
from collections import deque
from typing import Any

import msgspec

from agents.bridge.bridge import BridgeWorker, Share
from agents.bridge.shard_reader import BlockScope, ReaderPorts, ShardReader
from app.core.bridge.shards import ShardBook
from app.core.formats.block import (
    BlockHeader,
    End,
    WatermarkMessage,
    decode_control,
    decode_header,
    encode_block,
    is_control,
)
from app.core.formats.checkpoint import Checkpoint, order_of
from app.errors import ServiceUnavailable
from app.testing.memory.kinesis import MemoryBlockStream

PARTITIONS = 2
HOMES = 4
EPOCH = 3
START_MS = 1_000_000


class KilledError(Exception):
    """The process is gone: its calls have no effect from now on."""


class WorldClock:
    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class SimulatedWorker(BridgeWorker):
    """A worker whose readers turn only when the schedule calls them."""

    def launch(self, reader: ShardReader) -> asyncio.Task[None]:
        return asyncio.ensure_future(reader._stopping.wait())  # type: ignore[arg-type]

    @property
    def pumps(self) -> list[ShardReader]:
        return [reader for reader, _ in self._readers.values()]


class Ack:
    """The broker's answer to a sent message; an await waits for it."""

    def __init__(self, process: "Process", partition: int, value: bytes) -> None:
        self._waits = (process, partition, value)

    def __await__(self) -> Any:
        process, partition, value = self._waits
        return process.acknowledged(partition, value).__await__()


class Process:
    """One bridge worker's process; `owned` partitions of checkpoints."""

    def __init__(self, world: "World", owned: frozenset[int]) -> None:
        self.world = world
        self.owned = owned
        self.alive = True
        self.calls_left: int | None = None
        self.read = {home: len(world.checkpoints[home]) for home in owned}
        book = ShardBook(owned, HOMES, slack_ms=0)
        for home in owned:
            for checkpoint in world.checkpoints[home]:
                book.learn(checkpoint)
        share = Share(BlockScope(EPOCH, PARTITIONS), HOMES, 1.0)
        self.worker = SimulatedWorker(share, book, ReaderPorts(self, self.append, self.record, world.clock))  # type: ignore[arg-type]

    # --- its ports: each call moves the world first, and the process may die in it

    async def append(self, partition: int, value: bytes) -> Any:
        await self.step()
        self.world.flying[partition].append((self, value))
        return Ack(self, partition, value)

    async def acknowledged(self, partition: int, value: bytes) -> None:
        """Wait until the message, and all earlier ones of its partition, are in the log."""
        await self.step()
        while any(value is sent for _, sent in self.world.flying[partition]):
            self.world.land(partition)
        await self.step()

    async def record(self, home: int, checkpoint: Checkpoint) -> None:
        await self.step()
        self.world.record(home, checkpoint)
        await self.step()

    async def shards(self) -> Any:
        await self.step()
        if self.world.lists_fail:
            raise ServiceUnavailable("no list")
        listed = await self.world.stream.shards()
        await self.step()
        return listed

    async def iterator(self, shard: str, after: str | None) -> str:
        await self.step()
        return await self.world.stream.iterator(shard, after)

    async def records(self, iterator: str, limit: int) -> Any:
        await self.step()
        page = await self.world.stream.records(iterator, 2 if self.world.moving else limit)
        await self.step()
        if page.next_iterator is None and self.world.endless:  # some services never end a closed shard
            following = iterator.rsplit("/", 2)[0] + f"/{int(iterator.rsplit('/', 2)[1]) + len(page.records)}/{10**9}"
            return msgspec.structs.replace(page, next_iterator=following)
        return page

    async def step(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            self.alive = self.alive and self.calls_left > 0
        if not self.alive:
            raise KilledError
        self.world.drift()
        await asyncio.sleep(0)

    # --- called by the schedule

    def deliver(self) -> None:
        for home in self.owned:
            for checkpoint in self.world.checkpoints[home][self.read[home] :]:
                self.worker.book.learn(checkpoint)
            self.read[home] = len(self.world.checkpoints[home])

    async def turn(self, *, worker: bool, pumps: bool) -> None:
        going = [reader.turn() for reader in self.worker.pumps] if pumps else []
        if worker:
            going.append(self.worker.turn())  # type: ignore[arg-type]
        for result in await asyncio.gather(*going, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, KilledError):
                raise result

    async def leave(self) -> None:
        self.alive = True
        self.worker.stop()
        await self.worker.run()


class World:
    """The stream, the logs, and chance. Each history has its own odds: some have mostly splits, some mostly crashes."""

    def __init__(self, seed: int | None = None) -> None:
        self.clock = WorldClock()
        self.stream = MemoryBlockStream(2, self.clock)
        self.chance = random.Random(seed)
        self.moving = seed is not None
        self.endless = self.chance.random() < 0.5
        self.names = ["rest", "put", "wait", "split", "merge", "list", "expire", "forget", "land"]
        self.odds = [8.0, *(self.chance.random() ** 2 for _ in self.names[1:])]
        self.flying: list[deque[tuple[Process, bytes]]] = [deque() for _ in range(PARTITIONS)]
        self.lists_fail = False
        self.blocks: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.checkpoints: list[list[Checkpoint]] = [[] for _ in range(HOMES)]
        self.put_count = 0
        self.forgotten: set[str] = set()
        self.origin: dict[bytes, tuple[str, int, int]] = {}  # block -> shard, sequence, arrival
        self.parents: dict[str, tuple[str, ...]] = {}
        self.noted: dict[str, int] = {}  # shard -> how many of its records are in origin

    def drift(self) -> None:
        if self.moving:
            number = self.chance.randrange(6)
            match self.chance.choices(self.names, self.odds)[0]:
                case "put":
                    self.put(1 + number)
                case "wait":
                    self.clock.ms += (1, 5, 400)[number // 2]
                case "split":
                    self.split(number)
                case "merge":
                    self.merge(number)
                case "list":
                    self.lists_fail = number < 2
                case "expire":
                    self.stream.expire_iterators()
                case "forget" if number == 0:
                    self.forget()
                case "land":
                    self.land(number % PARTITIONS)
        self.note()

    def land(self, partition: int) -> None:
        """The oldest message in flight reaches the log, or is lost with its sender."""
        if self.flying[partition]:
            sender, value = self.flying[partition].popleft()
            if sender.alive:
                self.append(partition, value)

    def note(self) -> None:
        for shard in self.stream._shards.values():
            self.parents[shard.shard_id] = shard.parents
            for record in shard.records[self.noted.get(shard.shard_id, 0) :]:
                self.origin[record.data] = (shard.shard_id, int(record.sequence), record.arrival_ms)
            self.noted[shard.shard_id] = len(shard.records)

    # --- logs, and invariants of each write

    def append(self, partition: int, value: bytes) -> None:
        if not is_control(value):
            assert decode_header(value).partition == partition
        self.blocks[partition].append(value)

    def record(self, home: int, checkpoint: Checkpoint) -> None:
        landed = {value for log in self.blocks for value in log}
        for value, (shard, sequence, _) in self.origin.items():
            claimed = shard == checkpoint.shard and sequence <= order_of(checkpoint.sequence)
            assert not claimed or value in landed, "a checkpoint claims what Kafka does not have"
        if checkpoint.finished:
            assert all(End(checkpoint.shard) in controls(log) for log in self.blocks), "finished before END is everywhere"
        self.checkpoints[home].append(checkpoint)

    # --- moves

    def put(self, count: int) -> None:
        for _ in range(count):
            self.put_count += 1
            batch = str(uuid.UUID(int=self.put_count))
            header = BlockHeader(EPOCH, batch, 0, 1, 0, 1, self.put_count % PARTITIONS, 0, self.clock.ms)
            self.stream._put(0, encode_block(header, b"lines"))

    def open_shards(self) -> list[str]:
        return [s.shard_id for s in self.stream._shards.values() if s.ending_sequence is None]

    def split(self, which: int) -> None:
        if len(self.stream._shards) < 12:
            shards = self.open_shards()
            self.stream.split(shards[which % len(shards)])

    def merge(self, which: int) -> None:
        by_key = sorted(self.open_shards(), key=lambda s: self.stream._shards[s].first_key)
        if len(by_key) > 1 and len(self.stream._shards) < 12:
            at = which % (len(by_key) - 1)
            self.stream.merge(by_key[at], by_key[at + 1])

    def forget(self) -> None:
        """Retention has passed for the oldest closed shard."""
        shard = next((s.shard_id for s in self.stream._shards.values() if s.ending_sequence is not None), None)
        if shard is not None:
            self.note()
            self.forgotten.add(shard)
            self.stream.forget(shard)


def controls(log: list[bytes]) -> list[WatermarkMessage | End]:
    return [decode_control(value) for value in log if is_control(value)]


async def play(world: World, turns: int) -> None:
    """Run the bridge by chance, then let it catch up without faults."""
    everything, halves = [frozenset(range(HOMES))], [frozenset({0, 2}), frozenset({1, 3})]
    processes = [Process(world, owned) for owned in everything]
    kinds = ["both", "pumps", "worker", "deliver", "crash", "rebalance"]
    odds = [4.0, *(world.chance.random() ** 2 for _ in kinds[1:])]
    for _ in range(turns):
        process = world.chance.choice(processes)
        match world.chance.choices(kinds, odds)[0]:
            case "rebalance":
                for leaving in processes:
                    await (leaving.leave() if leaving.alive and leaving.calls_left is None else gone(leaving))
                processes = [Process(world, owned) for owned in world.chance.choice([everything, halves])]
            case "crash":
                process.calls_left = world.chance.randrange(1, 40)
            case "deliver":
                process.deliver()
            case kind:
                await process.turn(worker=kind != "pumps", pumps=kind != "worker")
    for process in processes:
        await gone(process)
    world.moving, world.lists_fail = False, False
    processes = [Process(world, owned) for owned in halves]
    for _ in range(40):
        world.clock.ms += 1000
        for process in processes:
            process.deliver()
            await process.turn(worker=True, pumps=True)
    for process in processes:
        await gone(process)


async def gone(process: Process) -> None:
    """The rest of a killed process in the event loop: its readers' tasks."""
    process.alive = False
    for reader in process.worker.pumps:
        reader.stop()
    await asyncio.sleep(0)
