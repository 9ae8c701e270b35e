"""One history: services, processes, clients and faults under one seed and one clock; then calm, and what must hold."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from builders import BASE_MS
from faults import Fault, Faults
from kafka_client import SESSION_S, Group, Logs
from process import GoneError, Process
from roles import MAKERS
from traffic import Traffic
from virtual_loop import VirtualLoop

from app.adapters.memory import MemoryBlockStream, MemoryObjectStore, MemoryRegistry, MemoryWarehouse
from app.core.batch import cut_again
from app.core.counting import Counted, Verdict
from app.core.registry_item import BatchState
from app.core.step_message import StepMessage, decode_step
from app.errors import OutsideError, SourceGap, StepConflict, WorkerStalled
from app.settings import Settings
from app.topics import topics_of
from tables.memory_engine import Disk

TRAFFIC_S = 45.0
CALM_S = 40.0
"""After the faults: what comes late has come by then."""
PATIENCE_S = 500.0
"""From the end of the faults until everything must be in the warehouse."""
OLDEST_S = 25.0
"""How long a message may wait: an idle sink commits every 15 s."""
EXPECTED_CRASHES = (OutsideError, StepConflict, SourceGap, WorkerStalled)
"""What may end a worker: a service that failed, somebody else's step. Anything else is a defect."""
MAX_SHARDS = 10


class WorldClock:
    """The true time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return BASE_MS + int(self._loop.time() * 1000)

    def monotonic_s(self) -> float:
        return self._loop.time()


class World:
    """Everything that one seed decides."""

    def __init__(self, loop: VirtualLoop, seed: int, narrate: Callable[[str], None] | None = None) -> None:
        self.loop, self.seed = loop, seed
        self._narrate = narrate
        self._digest = hashlib.blake2b(digest_size=8)
        self.base_ms = BASE_MS
        self.chance = random.Random(f"world-{seed}")
        self.faults = Faults(seed)
        self.closing = False
        self.violations: list[str] = []
        self._parked: list[Any] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.threads = ThreadPoolExecutor(1)
        clock = WorldClock(loop)
        self.clock = clock
        self.settings = Settings(
            partitions=self.chance.choice([1, 2, 2, 3]), checkpoint_partitions=3, replication_factor=1,
            min_insync_replicas=1, join_window_s=8, join_grace_s=3, join_reorder_s=2, slack_s=4,
            dedup_window_s=self.chance.choice([200, 3600]), commit_interval_s=3,
            commit_bytes=self.chance.choice([20_000, 10_000_000]), idle_commit_interval_s=15, delivery_interval_s=2,
            audit_interval_s=5, audit_grace_s=15, tick_interval_s=1, linger_ms=300, write_keys={"k": "server"},
            request_timeout_s=12,
        )  # fmt: skip
        self.message_bytes = self.chance.choice([16 * 1024 * 1024, 16 * 1024 * 1024, 66_000])
        self.topics = topics_of(self.settings)
        self.objects = MemoryObjectStore(clock)
        self.registry = MemoryRegistry()
        self.stream = MemoryBlockStream(self.chance.choice([1, 2]), clock)
        self.logs = Logs(clock)
        self.warehouse = MemoryWarehouse(self.objects, clock)
        self.disk = Disk()
        self.collectors: dict[str, Any] = {}
        self.processes: dict[str, Process] = {}
        self.roles: dict[str, Any] = {}
        self._wanted: set[str] = set()
        self._kept: set[str] = set()
        self._incarnations: dict[str, int] = {}
        self.skews: dict[str, int] = {}
        self.every_skew: dict[str, int] = {}
        """Also those that were set right."""
        self._away: dict[str, float] = {}
        self.unreadable: set[bytes] = set()
        """Records of Kinesis that lack their end."""
        self.groups = {
            role: Group(self, f"instream-{role}-e1", count)
            for role, count in (
                ("bridge", 3), ("etl", self.settings.partitions), ("sink", self.settings.partitions),
                ("delivery", self.settings.partitions), ("audit", 1),
            )
        }  # fmt: skip
        self.traffic = Traffic(self, TRAFFIC_S)

    # --- what processes ask

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def skew_of(self, slot: str) -> int:
        return self.skews.get(slot, 0)

    def is_away(self, service: str) -> bool:
        return self.loop.time() < self._away.get(service, 0.0)

    def never(self) -> "asyncio.Future[None]":
        """Nothing comes back to a dead process."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._parked.append(future)
        return future

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = self.loop.create_task(self._watched(work))
        self._tasks.append(task)
        return task

    async def _watched(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (asyncio.CancelledError, GoneError):
            raise
        except BaseException as exc:
            self.violation("simulation", f"{type(exc).__name__}: {exc}")
            raise

    def tell(self, who: str, what: str) -> None:
        """One line of the history."""
        line = f"{self.loop.time():9.3f}  {who:<14} {what}"
        self._digest.update(line.encode())
        if self._narrate is not None:
            self._narrate(line)

    def violation(self, invariant: str, what: str) -> None:
        """Something that must never be."""
        text = f"{invariant}: {what}"
        self.tell("VIOLATION", text)
        if len(self.violations) < 50:
            self.violations.append(text)

    def judge_crash(self, process: Process, reason: BaseException) -> None:
        self.faults.counts[f"ended by {type(reason).__name__}"] += 1
        if not isinstance(reason, EXPECTED_CRASHES):
            self.violation("crash", f"{process.name} ended by {type(reason).__name__}: {reason}")

    def lags(self, partitions: frozenset[int]) -> dict[str, int]:
        """Role -> messages that it has before it."""
        out = {}
        for role, topic in (("etl", self.topics.blocks.name), ("sink", self.topics.rows.name)):
            group = self.groups[role].state
            out[role] = sum(
                len(self.logs.messages.get((topic, p), [])) - (group.committed((topic, p)) or 0) for p in partitions
            )
        return out

    @property
    def digest(self) -> str:
        """Identifies the history."""
        return self._digest.hexdigest()

    # --- the history

    async def play(self) -> None:
        """Faults, then calm, until everything must have arrived."""
        self._start_processes()
        self.traffic.start()
        moments = [self.spawn(self._moments(fault, mean_s)) for fault, mean_s in self.faults.moments.items()]
        await asyncio.sleep(TRAFFIC_S + 5)
        self.faults.on = False
        self.tell("world", "the faults end")
        for task in moments:
            task.cancel()
        self._away.clear()
        for process in self.processes.values():
            process.calls_left = None
            process.wake()
        ends_s = self.loop.time()
        await asyncio.sleep(CALM_S)
        while (why := self._unsettled()) is not None:
            if self.loop.time() > ends_s + PATIENCE_S:
                self.violation("I7", f"not settled {PATIENCE_S:.0f} s after the faults: {why}")
                return
            await asyncio.sleep(1)
        self.tell("world", "everything has arrived")

    def _unsettled(self) -> str | None:
        if not self.traffic.done:
            return "clients wait"
        waiting = [i.batch_id[-12:] for i in self.registry._items.values() if i.state is BatchState.OPEN]
        if waiting:
            return f"open batches {waiting[:5]}"
        return self.behind()

    def behind(self) -> str | None:
        """What somebody has had before him for too long, or None."""
        for role, topic in (("etl", self.topics.blocks.name), ("sink", self.topics.rows.name)):
            for partition in range(self.settings.partitions):
                at = self.groups[role].state.committed((topic, partition)) or 0
                waiting = self.logs.read(topic, partition, at, 1)
                if waiting and self.now_ms() - waiting[0].append_ms > OLDEST_S * 1000:
                    return f"{role} has {topic}[{partition}] {at} before it"
        return None

    def _start_processes(self) -> None:
        chance = self.chance
        for role in MAKERS:
            for n in range(chance.choice([1, 2]) if role != "audit" else 1):
                slot = f"{role}-{n}"
                if self.faults.skewed and chance.random() < 0.5:
                    self.skews[slot] = chance.choice([-3000, -1000, 1000, 3000])
                    self.faults.note(Fault.SKEW, role)
                self._want(slot)
        if self.faults.skewed and chance.random() < 0.6:
            self.skews["collector-0"] = 9000
            self.faults.note(Fault.AHEAD)
            self.loop.call_later(20, self.skews.pop, "collector-0", None)
        self.every_skew = dict(self.skews)

    def _want(self, slot: str) -> None:
        self._wanted.add(slot)
        if slot not in self._kept:  # else the process that is to end is followed by another
            self._kept.add(slot)
            self.spawn(self._keep(slot))

    async def _keep(self, slot: str) -> None:
        """Start a slot's process, and start it again when it has ended: never two at a time, as a supervisor does."""
        while slot in self._wanted and not self.closing:
            await asyncio.sleep(self.chance.choice([0.1, 0.5, 2.0]))
            self._incarnations[slot] = number = self._incarnations.get(slot, 0) + 1
            process = Process(self, slot.split("-", maxsplit=1)[0], slot, number)
            self.processes[slot] = process
            self.tell(process.name, "starts")
            self.roles[slot] = MAKERS[process.role](process)
            await process.ended
        self._kept.discard(slot)

    # --- what happens at moments

    async def _moments(self, fault: Fault, mean_s: float) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / mean_s))
            await self._strike(fault)

    def _victim(self, roles: tuple[str, ...] = tuple(MAKERS)) -> Process | None:
        alive = [p for slot, p in sorted(self.processes.items()) if p.alive and p.role in roles and not p.paused]
        return self.chance.choice(alive) if alive else None

    async def _strike(self, fault: Fault) -> None:
        match fault:
            case Fault.CRASH:
                self._crash()
            case Fault.TERM:
                if (process := self._victim()) is not None:
                    self.faults.note(fault, process.role)
                    self.spawn(self._terminate(process))
            case Fault.ZOMBIE:
                if (process := self._victim()) is not None:
                    self.spawn(self._stop_and_wake(process))
            case Fault.MOVED:
                self._move()
            case Fault.SPLIT | Fault.MERGED:
                self._reshard(fault)
            case Fault.STORE_LOST | Fault.STORE_BACK:
                await self._harm_store(fault)
            case Fault.BROKER:
                service = self.chance.choice(["kafka", "kafka", "s3", "warehouse", "kinesis", "registry"])
                self.faults.note(fault)
                self._away[service] = self.loop.time() + self.chance.choice([0.5, 3.0, 12.0])
                self.tell("world", f"{service} is away")
            case Fault.REPLAY:
                self.resend_some()
            case Fault.TRIMMED:
                self._trim()
            case _:
                raise AssertionError(fault)

    def _crash(self) -> None:
        process = self._victim()
        if process is None:
            return
        if self.chance.random() < 0.2:
            self.faults.note(Fault.CRASH, process.role)
            process.die("is killed")
        else:
            process.calls_left = self.chance.randrange(1, 40)

    async def _terminate(self, process: Process) -> None:
        self.tell(process.name, "is told to stop")
        stopping = process.spawn(self.roles[process.slot].stop(), "stop")
        await asyncio.wait([stopping, process.ended], timeout=25, return_when=asyncio.FIRST_COMPLETED)
        if process.alive:
            member = getattr(self.roles[process.slot], "_member", None)
            if member is not None:
                self.groups[process.role].remove(member)
            process.die("has stopped")

    async def _stop_and_wake(self, process: Process) -> None:
        self.faults.note(Fault.ZOMBIE, process.role)
        self.tell(process.name, "is stopped")
        process.pause()
        seconds = self.chance.choice([2.0, 8.0, 15.0])
        if seconds > SESSION_S:
            member = getattr(self.roles[process.slot], "_member", None)
            await asyncio.sleep(SESSION_S)
            if member is not None and process.alive and process.paused:
                self.groups[process.role].expel(member)
            await asyncio.sleep(seconds - SESSION_S)
        else:
            await asyncio.sleep(seconds)
        self.tell(process.name, "is woken")
        process.wake()

    def _move(self) -> None:
        role = self.chance.choice(["bridge", "etl", "etl", "sink", "sink", "delivery"])
        slot = f"{role}-{self.chance.choice([0, 1, 2])}"
        self.faults.note(Fault.MOVED, role)
        others = [s for s in self._wanted if s.startswith(role) and s != slot]
        if slot not in self._wanted:
            self._want(slot)
        elif others:
            self._wanted.discard(slot)
            process = self.processes.get(slot)
            if process is not None and process.alive:
                self.spawn(self._terminate(process))

    def _reshard(self, fault: Fault) -> None:
        shards = sorted((s for s in self.stream._shards.values() if s.ending_sequence is None), key=lambda s: s.first_key)
        if len(self.stream._shards) >= MAX_SHARDS:
            return
        if fault is Fault.SPLIT:
            self.stream.split(self.chance.choice(shards).shard_id)
        elif len(shards) > 1:
            at = self.chance.randrange(len(shards) - 1)
            self.stream.merge(shards[at].shard_id, shards[at + 1].shard_id)
        else:
            return
        self.faults.note(fault)
        self.tell("world", str(fault))

    async def _harm_store(self, fault: Fault) -> None:
        names = [name for name in self.disk.names() if name.startswith("etl")]
        if not names:
            return
        name = self.chance.choice(names)
        slot = name.split("/")[0]
        copy = self.disk.snapshot(name)
        if fault is Fault.STORE_BACK:
            await asyncio.sleep(self.chance.choice([3.0, 10.0]))
        process = self.processes[slot]
        if process.alive:
            process.die("is killed, its store harmed")
        self.faults.note(fault)
        self.tell("world", f"{name}: {fault}")
        if fault is Fault.STORE_BACK:
            self.disk.restore(name, copy)
        else:
            self.disk.remove(name)

    def _trim(self) -> None:
        """While no etl runs, retention takes source messages that none of them has read (rule E4)."""
        topic, partition = self.topics.blocks.name, self.chance.randrange(self.settings.partitions)
        applied = self.source_applied(partition)
        unread = len(self.logs.messages.get((topic, partition), [])) - applied - 1
        if unread < 2:
            return
        for process in self.processes.values():
            if process.role == "etl" and process.alive:
                process.die("is killed, its source trimmed")
        self.faults.note(Fault.TRIMMED)
        first = applied + 1 + self.chance.randrange(1, unread)
        self.tell("world", f"{topic}[{partition}] begins at {first} now")
        self.logs.trim(topic, partition, first)

    def counted_steps(self, partition: int) -> list[StepMessage]:
        """The one history of a partition of `rows`."""
        counted, steps = Counted(), []
        for offset, message in enumerate(self.logs.messages.get((self.topics.rows.name, partition), [])):
            step = decode_step(message)
            if counted.judge(step.number, step.predecessor) is Verdict.COUNT:
                counted = counted.advance(offset)
                steps.append(step)
        return steps

    def source_applied(self, partition: int) -> int:
        """Offset on `blocks` up to which steps have taken it."""
        steps = self.counted_steps(partition)
        return steps[-1].source_last if steps else -1

    def resend_some(self) -> None:
        """Put a batch's blocks again, as an audit does that missed what was under way."""
        items = list(self.registry._items.values())
        if items:
            self.faults.note(Fault.REPLAY)
            self.resend(self.chance.choice(items), 1)

    def resend(self, item: Any, attempt: int) -> None:
        raw = self.objects._objects.get(item.raw_key)
        if raw is not None:
            for block in cut_again(raw[0], item, attempt):
                self.stream._put(0, block)
