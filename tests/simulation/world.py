"""One history: services, processes, clients and faults under one seed and one clock; then calm, and what must hold."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.core.formats.batch import cut_again
from app.core.formats.registry_item import BatchState
from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import StepMessage, decode_step
from app.errors import OutsideError, RequestRejected, SourceGap, StepConflict, WorkerStalled
from app.settings import Settings
from app.testing.memory import MemoryBlockStream, MemoryObjectStore, MemoryRegistry, MemoryWarehouse
from app.testing.memory.engine import Disk
from app.topics import topics_of
from tests.builders.source_log import BASE_MS
from tests.simulation.faults import Fault, Faults
from tests.simulation.kafka_broker import Group, Logs
from tests.simulation.process import Process
from tests.simulation.roles import MAKERS
from tests.simulation.strikes import Strikes
from tests.simulation.traffic import Traffic
from tests.simulation.virtual_loop import GoneError, VirtualLoop

TRAFFIC_S = 45.0
CALM_S = 40.0
"""After the faults: what comes late has come by then."""
PATIENCE_S = 500.0
"""From the end of the faults until everything must be in the warehouse."""
OLDEST_S = 25.0
"""How long a message may wait: an idle sink commits every 15 s."""
EXPECTED_CRASHES = (OutsideError, StepConflict, SourceGap, WorkerStalled)
"""What may end a worker: a service that failed, somebody else's step. Anything else is a defect."""


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

    patience_s = PATIENCE_S
    dedup_windows_s = (200, 3600)
    crashes: tuple[type[BaseException], ...] = EXPECTED_CRASHES
    refusals: tuple[type[Exception], ...] = (RequestRejected,)
    """What a collector answers a client; several versions have several classes."""

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
        self.given: dict[str, Any] = dict(
            partitions=self.chance.choice([1, 2, 2, 3]), checkpoint_partitions=3, replication_factor=1,
            min_insync_replicas=1, join_window_s=8, join_grace_s=3, join_reorder_s=2, slack_s=4,
            dedup_window_s=self.chance.choice(self.dedup_windows_s), commit_interval_s=3,
            commit_bytes=self.chance.choice([20_000, 10_000_000]), idle_commit_interval_s=15, delivery_interval_s=2,
            audit_interval_s=5, audit_grace_s=15, tick_interval_s=1, linger_ms=300, write_keys={"k": "server"},
            request_timeout_s=12,
        )  # fmt: skip
        self.settings = Settings(**self.given)
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
        self.wanted: set[str] = set()
        self._kept: set[str] = set()
        self._incarnations: dict[str, int] = {}
        self.skews: dict[str, int] = {}
        self.every_skew: dict[str, int] = {}
        """Also those that were set right."""
        self.away: dict[str, float] = {}
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
        return self.loop.time() < self.away.get(service, 0.0)

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
        if not isinstance(reason, self.crashes):
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

    def wait_begins(self, place: str, reason: str) -> None:
        """A worker waits for an upgrade: with one version there is none."""
        self.violation("E10", f"waits at {place}: {reason}")

    @property
    def digest(self) -> str:
        """Identifies the history."""
        return self._digest.hexdigest()

    # --- the history

    async def play(self) -> None:
        """Faults, then calm, until everything must have arrived."""
        self._start_processes()
        self.traffic.start()
        strikes = Strikes(self)
        moments = [self.spawn(strikes.at_moments(fault, mean_s)) for fault, mean_s in self.faults.moments.items()]
        await self._faulty_time()
        self.faults.on = False
        self.tell("world", "the faults end")
        for task in moments:
            task.cancel()
        self.away.clear()
        for process in self.processes.values():
            process.calls_left = None
            process.wake()
        ends_s = self.loop.time()
        await asyncio.sleep(CALM_S)
        while (why := self._unsettled()) is not None:
            if self.loop.time() > ends_s + self.patience_s:
                self.violation("I7", f"not settled {self.patience_s:.0f} s after the faults: {why}")
                return
            await asyncio.sleep(1)
        self.tell("world", "everything has arrived")

    async def _faulty_time(self) -> None:
        """While it lasts, faults happen."""
        await asyncio.sleep(TRAFFIC_S + 5)

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
                self.want(slot)
        if self.faults.skewed and chance.random() < 0.6:
            self.skews["collector-0"] = 9000
            self.faults.note(Fault.AHEAD)
            self.loop.call_later(20, self.skews.pop, "collector-0", None)
        self.every_skew = dict(self.skews)

    def want(self, slot: str) -> None:
        self.wanted.add(slot)
        if slot not in self._kept:  # else the process that is to end is followed by another
            self._kept.add(slot)
            self.spawn(self._keep(slot))

    async def _keep(self, slot: str) -> None:
        """Start a slot's process, and start it again when it has ended: never two at a time, as a supervisor does."""
        while slot in self.wanted and not self.closing:
            await asyncio.sleep(self.chance.choice([0.1, 0.5, 2.0]))
            self._incarnations[slot] = number = self._incarnations.get(slot, 0) + 1
            self.processes[slot] = process = self._new_process(slot, number)
            self.tell(process.name, "starts")
            self.roles[slot] = self._new_role(process)
            await process.ended
        self._kept.discard(slot)

    def _new_process(self, slot: str, incarnation: int) -> Process:
        return Process(self, slot.split("-", maxsplit=1)[0], slot, incarnation)

    def _new_role(self, process: Process) -> Any:
        return MAKERS[process.role](process)

    # --- what its logs and services hold

    def counted_steps(self, partition: int) -> list[StepMessage]:
        """The one history of a partition of `rows`."""
        return list(self.steps_by_offset(partition).values())

    def steps_by_offset(self, partition: int) -> dict[int, StepMessage]:
        """The same, each step under its offset."""
        accepted, steps = Accepted(), {}
        for offset, message in enumerate(self.logs.messages.get((self.topics.rows.name, partition), [])):
            step = decode_step(message)
            if accepted.judge(step.number, step.predecessor) is StepVerdict.ACCEPT:
                accepted = accepted.advance(offset)
                steps[offset] = step
        return steps

    def as_decided(self, flow: str, row: dict[str, Any]) -> dict[str, Any]:
        """The oracle's row of a flow as the processes' versions write it: one version writes it as it is."""
        return row

    def source_applied(self, partition: int) -> int:
        """Offset on `blocks` up to which steps have taken it."""
        steps = self.counted_steps(partition)
        return steps[-1].source_last if steps else -1

    def resend(self, item: Any, attempt: int) -> None:
        raw = self.objects._objects.get(item.raw_key)
        if raw is not None:
            for block in cut_again(raw[0], item, attempt):
                self.stream._put(0, block)
