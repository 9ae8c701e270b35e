"""Kafka as a process meets it: a producer that keeps its order, a member that is given partitions and loses them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from faust.types import TP

from app.errors import OutcomeUnknown
from app.shell.hooks import AssignedHook, LeavingHook, OwnershipHooks
from app.shell.watchdog import Watchdog
from app.testing.memory.kafka import MemoryMessage
from tests.simulation.faults import Fault
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.kafka_broker import Group

PRODUCER_TIMEOUT_S = 30.0
FETCH_S = 0.15
FETCHED_AT_ONCE = 20
COMMIT_S = 1.0
LOOK_S = 10.0


class Producer:
    """Messages of one process to one partition land in the order in which they were sent."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._behind: dict[tuple[str, int], float] = {}

    async def send(self, topic: str, partition: int, value: bytes) -> "asyncio.Future[int]":
        """Hand a message to the producer; the future is its offset once the broker acknowledged it."""
        process, world, loop = self._process, self._process.world, self._process.world.loop
        await process.gate()
        process.count_call()
        await process.gate()
        answer: asyncio.Future[int] = loop.create_future()
        lands_s = max(self._behind.get((topic, partition), 0.0), loop.time() + process.delay_s())
        announced = f"kafka.send {topic}[{partition}]"
        timeout = loop.call_later(PRODUCER_TIMEOUT_S, self._give_up, announced, answer)
        faults = world.faults
        is_lost = faults.happens(Fault.LOST)
        is_late = faults.happens(Fault.LATE)
        if is_late:  # its retries reach the broker when nobody counts on it any more
            lands_s += PRODUCER_TIMEOUT_S + 5
        if faults.happens(Fault.SLOW):
            faults.note(Fault.SLOW)
            lands_s += world.chance.choice([0.5, 4.0])
        if is_late or is_lost:
            faults.note(Fault.LATE if is_late else Fault.LOST, process.role)
        self._behind[topic, partition] = lands_s
        acknowledged = None if is_late or is_lost else (answer, timeout)
        loop.call_at(lands_s, self._land, (topic, partition), value, acknowledged, announced)
        if faults.happens(Fault.REPEATED):  # as a producer without idempotence, or somebody who copies topics, would
            faults.note(Fault.REPEATED, process.role)
            again_s = lands_s + world.chance.choice([0.0, 0.001, 2.0])
            loop.call_at(again_s, self._land, (topic, partition), value, None, announced)
        return answer

    def _give_up(self, announced: str, answer: "asyncio.Future[int]") -> None:
        if not answer.done():
            self._process.world.tell(self._process.name, f"{announced} is not acknowledged")
            answer.set_exception(OutcomeUnknown(f"{announced}: no answer"))
            answer.exception()

    def _land(self, place: tuple[str, int], value: bytes, acknowledged: Any, announced: str) -> None:
        process, world = self._process, self._process.world
        if world.closing or (not process.alive and world.chance.random() < 0.5):
            return
        if world.is_away("kafka"):  # the producer tries again until its time is over
            world.loop.call_later(0.5, self._land, place, value, acknowledged, announced)
            return
        offset = world.logs.append(*place, value)
        world.tell(process.name, f"{announced} = {offset}")
        if acknowledged is not None:
            answer, timeout = acknowledged
            world.loop.call_later(process.delay_s(), self._acknowledge, answer, timeout, offset)

    def _acknowledge(self, answer: "asyncio.Future[int]", timeout: asyncio.TimerHandle, offset: int) -> None:
        timeout.cancel()
        if not answer.done():
            answer.set_result(offset)


class SimulatedMessage:
    """What Faust's message has that ours reads."""

    __slots__ = ("generation_id", "offset", "partition", "timestamp", "topic", "tp", "value")

    def __init__(self, tp: TP, generation: int, message: MemoryMessage) -> None:
        self.tp, self.topic, self.partition = tp, tp.topic, tp.partition
        self.generation_id = generation
        self.offset, self.value, self.timestamp = message.offset, message.value, message.append_ms / 1000


class Event:
    """A message on its way through a worker."""

    __slots__ = ("_member", "message", "value")

    def __init__(self, member: "Member", message: SimulatedMessage) -> None:
        self._member = member
        self.message = message
        self.value = message.value

    def ack(self) -> None:
        """Acknowledge it."""
        self._member.acknowledge(self.message.tp, self.message.generation_id, self.message.offset)


class Member:
    """The part of `app.shell.faust_app.InstreamApp` that runners and ownerships use, over a simulated group."""

    def __init__(self, process: Process, group: "Group", topics: tuple[str, ...], ports: Any, settings: Any) -> None:
        self.process = process
        self.ports = ports
        self.settings = settings
        self.topics = topics
        self.consumer_generation_id = -1
        self.rebalancing = True
        self.group = group.state.name
        self.in_worker = False
        self.watchdog = Watchdog(self, settings.stall_timeout_s)
        self._group = group
        self.hooks = OwnershipHooks(self)
        self._recover: AssignedHook | None = None
        self._positions: dict[TP, int] = {}
        self._acked: dict[TP, int] = {}
        self._give: Callable[[Event], Awaitable[None]] | None = None
        self.should_stop = False
        self._taking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    # --- what production code asks of its app

    def when_assigned(self, hook: AssignedHook) -> AssignedHook:
        self.hooks.assigned.append(hook)
        return hook

    def when_leaving(self, hook: LeavingHook) -> LeavingHook:
        self.hooks.leaving.append(hook)
        return hook

    def ready_when(self, check: Any) -> None:
        """Nobody asks."""

    def is_current(self, generation_id: int) -> bool:
        return not self.rebalancing and not self.should_stop and generation_id == self.consumer_generation_id

    async def reposition(self, tp: TP, offset: int) -> None:
        await self.process.gate()
        if tp in self._positions:
            self._positions[tp] = offset  # what was taken before it and not acknowledged stays so
            self._news.set()

    async def crash(self, reason: BaseException) -> None:
        await self.process.crash(reason)

    # --- what the watchdog asks

    def readiness(self) -> str | None:
        return "rebalance" if self.rebalancing else None

    def recovery_progress(self) -> Any:
        return self.consumer_generation_id if self.rebalancing else None

    def ask_consumer(self) -> "Future[None]":
        """The consumer's thread is not simulated."""
        answered: Future[None] = Future()
        answered.set_result(None)
        return answered

    def acknowledged(self) -> dict[TP, int]:
        return self._acked

    async def logs(self) -> Any:
        return self.ports.logs

    # --- what the role sets

    def serve(self, give: Callable[[Event], Awaitable[None]], recover: AssignedHook | None = None) -> None:
        """Join, and hand every message to `give`; `recover` runs first whenever partitions are given."""
        self._give, self._recover = give, recover
        self.process.when_dead(lambda: self._group.lost(self))
        self.process.world.logs.tell_of(self.topics, self._news)
        self.process.spawn(self._fetch(), "fetch")
        self.process.spawn(self._commit_often(), "commit")
        self.process.spawn(self._look_often(), "watchdog")
        self._group.add(self)

    # --- the group's side

    async def leave_partitions(self) -> None:
        """Let go: the hooks, then what they acknowledged."""
        await self.process.gate()
        self.rebalancing = True
        if self._taking is not None:
            self._taking.cancel()
        if self._positions:
            await self.hooks.leave("revoke")
            await self._commit()
        self._positions.clear()
        self._acked.clear()

    def give(self, generation: int, partitions: tuple[int, ...]) -> None:
        """Be given partitions; the next rebalance ends a recovery that is under way."""
        self._taking = self.process.spawn(self._take_partitions(generation, partitions), "take")

    async def _take_partitions(self, generation: int, partitions: tuple[int, ...]) -> None:
        """Recover, go on where the group is, run the hooks."""
        process, world = self.process, self.process.world
        await process.gate()
        assignment = frozenset(TP(topic, p) for topic in self.topics for p in partitions)
        if self._recover is not None:
            await self._recover(assignment)
        await process.gate()
        if generation != self._group.state.membership.generation:
            return
        self.consumer_generation_id = generation
        for tp in sorted(assignment):
            committed = self._group.state.committed((tp.topic, tp.partition))
            start = committed if committed is not None else world.logs.trimmed.get((tp.topic, tp.partition), 0)
            self._positions[tp] = start
        self.rebalancing = False
        self._news.set()
        world.tell(process.name, f"owns {sorted(partitions)} in generation {generation}")
        process.spawn(self.hooks.run_assigned(assignment, generation), "hooks")

    def acknowledge(self, tp: TP, generation: int, offset: int) -> None:
        if generation == self.consumer_generation_id and tp in self._positions:
            self._acked[tp] = max(self._acked.get(tp, 0), offset + 1)

    async def _commit_often(self) -> None:
        while True:
            await self.process.sleep(COMMIT_S)
            if not self.rebalancing:
                await self._commit()

    async def _look_often(self) -> None:
        while True:
            await self.process.sleep(LOOK_S)
            await self.watchdog.look()

    async def _commit(self) -> None:
        offsets: Mapping[tuple[str, int], int] = {(tp.topic, tp.partition): at for tp, at in self._acked.items()}
        generation = self.consumer_generation_id
        self.process.count_call()
        await self.process.gate()
        if not self.process.world.is_away("kafka"):
            kept = self._group.state.commit(self.process.name, generation, offsets)
            self.process.world.tell(self.process.name, f"commits {list(offsets.values())}{'' if kept else ': too late'}")

    async def _fetch(self) -> None:
        process, world = self.process, self.process.world
        while True:
            await self._news.wait()
            await process.sleep(FETCH_S)
            if self.rebalancing or world.is_away("kafka"):
                continue
            self._news.clear()
            generation = self.consumer_generation_id
            for tp in sorted(self._positions):
                await self._fetch_one(tp, generation)

    async def _fetch_one(self, tp: TP, generation: int) -> None:
        faults, world = self.process.world.faults, self.process.world
        if tp not in self._positions:
            return
        messages = world.logs.read(tp.topic, tp.partition, self._positions[tp], FETCHED_AT_ONCE)
        if len(messages) == FETCHED_AT_ONCE:
            self._news.set()
        for message in messages:
            if not self.is_current(generation) or tp not in self._positions:
                return
            if message.offset < self._positions[tp]:
                continue
            if message.offset > self._positions[tp] and not world.logs.trimmed.get((tp.topic, tp.partition)):
                return  # put somewhere else meanwhile
            self._positions[tp] = message.offset + 1
            if faults.happens(Fault.SKIPPED):
                faults.note(Fault.SKIPPED)
                world.tell(self.process.name, f"fetched {tp.topic}[{tp.partition}] {message.offset} is dropped")
                continue
            if self._give is not None:
                await self._give(Event(self, SimulatedMessage(tp, generation, message)))
            if faults.happens(Fault.AGAIN) and tp in self._positions:
                faults.note(Fault.AGAIN)
                self._positions[tp] = max(world.logs.trimmed.get((tp.topic, tp.partition), 0), message.offset - 3)
                self._news.set()
                return


class MemberRole:
    """A role whose process is a member of a consumer group."""

    member: Member

    async def stop(self) -> None:
        """Do in good order what a worker does that is told to stop."""
        await self.member.leave_partitions()
