"""A process of the simulated world: it can be killed between any two calls, stopped and woken, and its clock is its own.

What it calls goes over a wire: a request takes time, may be refused, happen twice, happen after the caller gave up, or its
answer may be lost. A dead process's requests on the wire may still arrive; nothing ever returns to it.
"""

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from app.errors import OutcomeUnknown, OutsideError, ServiceUnavailable
from tests.simulation.faults import Fault
from tests.simulation.virtual_loop import GoneError

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMEOUT_S = 10.0
"""How long a caller waits for an answer that does not come."""


class ProcessClock:
    """The world's time, as one machine's clock shows it."""

    def __init__(self, world: "World", slot: str) -> None:
        self._world = world
        self._slot = slot

    @property
    def skew_ms(self) -> int:
        """How far it is ahead of the true time; somebody may set it right."""
        return self._world.skew_of(self._slot)

    def now_ms(self) -> int:
        return self._world.now_ms() + self.skew_ms

    def monotonic_s(self) -> float:
        return self._world.loop.time()


class Process:
    """One incarnation of a role's process; what it was before it died is another object."""

    def __init__(self, world: "World", role: str, slot: str, incarnation: int) -> None:
        self.world = world
        self.role, self.slot = role, slot
        self.name = f"{slot}#{incarnation}"
        self.random = random.Random(f"{world.seed}-{self.name}")
        self.clock = ProcessClock(world, slot)
        self.alive = True
        self.crash_reason: BaseException | None = None
        self.calls_left: int | None = None
        self.sessions: list[Any] = []
        self._awake = asyncio.Event()
        self._awake.set()
        self._tasks: list[asyncio.Task[Any]] = []
        self._died: list[Callable[[], None]] = []
        self.ended = world.loop.create_future()

    # --- life

    @property
    def paused(self) -> bool:
        return not self._awake.is_set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> "asyncio.Task[Any]":
        """Run something of this process; an exception that nobody catches ends it."""
        task = self.world.loop.create_task(self._guarded(work), name=f"{self.name} {name}")
        self._tasks.append(task)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (asyncio.CancelledError, GoneError):
            raise
        except BaseException as exc:
            self.fail(exc)

    def fail(self, reason: BaseException) -> None:
        """End by an exception, as a worker does."""
        if self.alive:
            self.crash_reason = reason
            self.world.judge_crash(self, reason)
            self.die(f"ends: {type(reason).__name__}: {reason}")

    async def crash(self, reason: BaseException) -> None:
        """What production code calls with whatever it was that ended its work."""
        if not isinstance(reason, GoneError):
            self.fail(reason)

    def die(self, why: str) -> None:
        """From here on nothing returns to it."""
        if not self.alive:
            return
        self.world.tell(self.name, why)
        self.alive = False
        self._awake.set()
        for session in self.sessions:
            self.world.loop.call_later(self.world.chance.choice([0.0, 0.01, 2.0]), session.drop)
        for call in self._died:
            call()
        if not self.ended.done():
            self.ended.set_result(None)

    def when_dead(self, call: Callable[[], None]) -> None:
        self._died.append(call)

    def pause(self) -> None:
        self._awake.clear()

    def wake(self) -> None:
        self._awake.set()

    def count_call(self) -> None:
        """One more point at which it may be killed."""
        if self.calls_left is not None and self.alive:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.calls_left = None
                self.world.faults.note(Fault.CRASH, self.role)
                self.die("is killed at a call")

    async def gate(self) -> None:
        """Return only to a process that lives and is not stopped."""
        while True:
            if self.world.closing:
                raise GoneError
            if not self.alive:
                await self.world.never()
            if self._awake.is_set():
                return
            await self._awake.wait()

    # --- the wire

    def remote(self, twin: Any, service: str, **attributes: Any) -> Any:
        """What this process sees of a service."""
        return Remote(self, twin, service, attributes)

    async def call(self, service: str, name: str, effect: Callable[[], Any], *, writes: bool = True) -> Any:
        """One request and its answer.

        Args:
            service: for the narration.
            name: likewise.
            effect: what happens at the service, at once.
            writes: whether a lost answer leaves the outcome open (OutcomeUnknown) or is a mere failure.
        """
        await self.gate()
        self.count_call()
        await self.gate()
        faults, loop = self.world.faults, self.world.loop
        there_s, back_s = self.delay_s(), self.delay_s()
        lost = OutcomeUnknown if writes else ServiceUnavailable
        answer: asyncio.Future[Any] = loop.create_future()
        announced = f"{service}.{name}"
        if faults.happens(Fault.FAILS) or self.world.is_away(service):
            faults.note(Fault.FAILS, self.role)
            self.world.tell(self.name, f"{announced} fails")
            await self.sleep(there_s + back_s)
            raise ServiceUnavailable(f"{announced}: refused by the simulation")
        if faults.happens(Fault.SLOW):
            faults.note(Fault.SLOW)
            there_s += self.world.chance.choice([0.5, 3.0, TIMEOUT_S - 1])
        is_late = faults.happens(Fault.LATE)
        loop.call_later(there_s + (TIMEOUT_S + 5 if is_late else 0), self._land, announced, effect, answer)
        if writes and faults.happens(Fault.REPEATED):
            faults.note(Fault.REPEATED, self.role)
            self.world.tell(self.name, f"{announced} happens twice")
            loop.call_later(there_s + self.world.chance.choice([0.01, 1.0, 20.0]), self._land, announced, effect, None)
        if is_late or faults.happens(Fault.LOST):
            faults.note(Fault.LATE if is_late else Fault.LOST, self.role)
            self.world.tell(self.name, f"{announced} {'comes late' if is_late else 'is not answered'}")
            await self.sleep(TIMEOUT_S)
            raise lost(f"{announced}: no answer")
        try:
            result = await answer
        except OutsideError:
            await self.sleep(back_s)
            raise
        await self.sleep(back_s)
        self.count_call()
        await self.gate()
        return result

    def _land(self, announced: str, effect: Callable[[], Any], answer: "asyncio.Future[Any] | None") -> None:
        """The request arrives. One of a process that died meanwhile may have been lost with it."""
        if self.world.closing or (not self.alive and self.world.chance.random() < 0.5):
            return
        try:
            result = effect()
        except Exception as exc:
            self.world.tell(self.name, f"{announced} -> {type(exc).__name__}")
            if answer is not None and not answer.done():
                answer.set_exception(exc)
                answer.exception()
            return
        self.world.tell(self.name, announced)
        if answer is not None and not answer.done():
            answer.set_result(result)

    def delay_s(self) -> float:
        """How long a message takes."""
        return self.random.choice([0.0005, 0.001, 0.002, 0.005, 0.02, 0.05])

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.gate()


class Remote:
    """A service's twin, reached over the wire: its coroutines become requests, its listings too."""

    def __init__(self, process: Process, twin: Any, service: str, attributes: dict[str, Any]) -> None:
        self._process = process
        self._twin = twin
        self._service = service
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        if name in self._attributes:
            found = self._attributes[name]
            return found() if callable(found) else found
        target = getattr(self._twin, name)
        if inspect.iscoroutinefunction(target):
            return partial(self._call, name, target)
        if inspect.isasyncgenfunction(target):
            return partial(self._list, name, target)
        return target

    def _call(self, name: str, target: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Awaitable[Any]:
        writes = name in {"put", "put_if_absent", "copy", "delete", "register", "complete", "record_attempt"}
        subject = next((a for a in args if isinstance(a, str)), "")
        announced = f"{name} {subject}".strip()
        return self._process.call(self._service, announced, lambda: at_once(target(*args)), writes=writes)

    async def _list(self, name: str, target: Any, *args: Any, **more: Any) -> AsyncIterator[Any]:
        subject = str(args[0]) if args else ""
        found = await self._process.call(
            self._service, f"{name} {subject}", lambda: at_once(_gathered(target(*args, **more))), writes=False
        )
        for item in found:
            yield item


async def _gathered(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError(f"{work} waited")
