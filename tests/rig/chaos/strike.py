"""Carries a plan out: every fault at its time, each kind by its own method; all strikes are noted."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog

from app.errors import InstreamError, LocalStackError
from app.local.services.aws_faults import AwsFault, Rates
from app.local.stack.probe import await_true
from tests.rig.chaos import state
from tests.rig.chaos.items import Items
from tests.rig.chaos.messages import Messages
from tests.rig.chaos.objects import Objects
from tests.rig.chaos.plan import EXTRA, ROLES, STOPPABLE, STORM, Fault, Kind
from tests.rig.chaos.report import Journal
from tests.rig.chaos.services import Services
from tests.rig.chaos.workers import Workers
from tests.worlds.waiting import HANGS_S

log = structlog.get_logger(__name__)

ROLL_BACK_AFTER_S: Final = 15.0
"""Seconds between the copy of a RocksDB directory and its return."""
BACK_S: Final = 40.0
"""Time for a worker to run again, so that its copy can be put back."""
STORM_S: Final = 6.0
AGAIN_S: Final = 0.5
"""Pause before a fault without a target is tried again."""
GIVE_UP_S: Final = HANGS_S
"""Longest time that a fault may wait for a target."""
OFTEN: Final = (
    AwsFault.S3_ERROR, AwsFault.S3_SLOW_DOWN, AwsFault.S3_RESET, AwsFault.S3_LOST, AwsFault.THROTTLED, AwsFault.PARTIAL,
    AwsFault.PUT_TWICE, AwsFault.PAGE_TWICE,
)  # fmt: skip
"""Failures of calls that strike some in a minute of traffic."""
_WAREHOUSE: Final = {
    Kind.DISK_FULL: "disk_full", Kind.LOCK_TIMEOUT: "lock_timeout", Kind.SERIALIZATION: "serialization",
    Kind.REFUSED: "refuse", Kind.DROP_MID_COPY: "drop_mid_copy", Kind.DROP_BEFORE_COMMIT: "drop_before_commit",
    Kind.DROP_AFTER_COMMIT: "drop_after_commit", Kind.UNREADABLE: "unreadable",
}  # fmt: skip
"""The stand-in's names of them; the stand-in counts their strikes."""
KIND_OF_WAREHOUSE: Final = {name: kind for kind, name in _WAREHOUSE.items()}
_SEVERAL: Final = frozenset({Kind.DISK_FULL, Kind.SERIALIZATION, Kind.LOCK_TIMEOUT})


class Damages(NamedTuple):
    """What is damaged beside the processes."""

    messages: Messages
    objects: Objects
    items: Items


class Striker:
    """The faults of one run against one stack."""

    def __init__(self, workers: Workers, services: Services, journal: Journal, rates: Rates, damages: Damages) -> None:
        self._workers = workers
        self._services = services
        self._journal = journal
        self._rates = rates
        self._outages = 0
        self.unreadable: list[str] = []
        """URLs of the files that the warehouse could not read; known at the end."""
        self._changing = asyncio.Lock()
        self._ordering = asyncio.Lock()
        self._strikes: dict[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.TERM: partial(self._signal, signal.SIGTERM), Kind.KILL: partial(self._signal, signal.SIGKILL),
            Kind.ZOMBIE: self._zombie, Kind.BROKER: self._broker, Kind.REBALANCE: self._rebalance,
            Kind.STATE_DELETED: self._damage, Kind.STATE_TRUNCATED: self._damage, Kind.STATE_ROLLED_BACK: self._roll_back,
            Kind.SPLIT: self._shards, Kind.MERGE: self._shards, Kind.S3_OUTAGE: self._outage, Kind.VACUUM: self._vacuum,
            **dict.fromkeys(_WAREHOUSE, self._warehouse),
            Kind.FOREIGN_MESSAGE: damages.messages.foreign, Kind.DAMAGED_MESSAGE: damages.messages.damaged,
            Kind.ITEM: damages.items.put, Kind.RAW_FILE: damages.objects.damage_raw,
            Kind.READY: damages.objects.delete_ready, Kind.RECORD: damages.objects.damage_record,
            Kind.DATA_FILE: damages.objects.damage_data,
        }  # fmt: skip

    async def run(self, plan: Sequence[Fault], seconds: float) -> None:
        """Begin, strike as planned, and end: then no call fails any more and no process is stopped.

        That is after `seconds`, and not before every fault of the plan has struck and calls have failed in each of the ways
        in `OFTEN`: on a busy machine later. Traffic must go on until then, or the faults have no target.
        """
        for name in EXTRA:
            await self._workers.add(name)
        await self._services.fail_aws(self._rates)
        self._journal.begin()
        try:
            async with asyncio.TaskGroup() as group:
                for fault in plan:
                    await asyncio.sleep(max(0.0, fault.at_s - self._journal.elapsed_s))
                    group.create_task(self._strike(fault))
                await asyncio.sleep(max(0.0, seconds - self._journal.elapsed_s))
            await self._until(self._every_call_failed)
        finally:
            self._workers.wake_all()
            await self._services.fail_aws(Rates())
            self.unreadable = await self._services.unreadable()
            await self._services.mend_warehouse()

    async def _strike(self, fault: Fault) -> None:
        """Carry a fault out; try again if it has no target, or if another fault disturbs it."""
        give_up_s = self._journal.elapsed_s + GIVE_UP_S
        while self._journal.elapsed_s < give_up_s:
            try:
                await self._strikes[fault.kind](fault)
                return
            except (InstreamError, OSError) as exc:
                self._journal.miss(fault.kind, fault.target, f"{type(exc).__name__}: {exc}")
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._journal.miss(fault.kind, fault.target, "the client of a service cancelled its own call")
            await asyncio.sleep(AGAIN_S)

    async def _until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                await await_true(holds, AGAIN_S)

    async def _every_call_failed(self) -> bool:
        struck = await self._services.aws_struck()
        return all(struck.get(kind) for kind in OFTEN)

    # --- processes

    async def _signal(self, number: signal.Signals, fault: Fault) -> None:
        name = await self._workers.eligible(fault.target, [*ROLES, *self._workers.extras])
        pid = self._workers.send(name, number) if name else None
        if not (name and pid):
            raise LocalStackError("nobody runs")
        self._journal.note(fault.kind, name, f"pid {pid}")

    async def _zombie(self, fault: Fault) -> None:
        name = await self._workers.eligible(fault.target, STOPPABLE)
        since_s = self._journal.elapsed_s
        pid = await self._workers.stop_for(name, fault.lasts_s) if name else None
        if not (name and pid):
            raise LocalStackError("nobody runs")
        self._journal.note(fault.kind, name, f"pid {pid}, stopped at {since_s:.1f} s for {fault.lasts_s} s")

    async def _broker(self, fault: Fault) -> None:
        number = signal.SIGKILL if fault.chance % 2 else signal.SIGTERM
        pid = self._workers.send("kafka", number)
        if not pid:
            raise LocalStackError("Kafka does not run")
        self._journal.note(fault.kind, "kafka", f"{number.name} to pid {pid}")

    async def _rebalance(self, fault: Fault) -> None:
        """Remove a worker and add it again, or add and remove it if it is not there: two or more rebalances."""
        async with self._changing:
            name = fault.target
            if name in self._workers.extras:
                await self._workers.remove(name)
                await asyncio.sleep(STORM_S * (fault.chance % 100) / 100)
                await self._workers.add(name)
                self._journal.note(fault.kind, name, "removed and added")
            else:
                await self._workers.add(name)
                await asyncio.sleep(STORM_S + STORM_S * (fault.chance % 100) / 100)
                await self._workers.remove(name)
                self._journal.note(fault.kind, name, "added and removed")

    # --- state

    async def _damage(self, fault: Fault) -> None:
        change = state.delete if fault.kind is Kind.STATE_DELETED else partial(state.truncate, chance=fault.chance)
        async with self._changing:
            name = await self._stateful(fault)
            what = await self._workers.while_down(name, change)
        self._journal.note(fault.kind, name, what)

    async def _roll_back(self, fault: Fault) -> None:
        async with self._changing:
            name = await self._stateful(fault)
            folder = self._workers.folder(name)
            aside = folder.with_name(f"{folder.name}.copy")

            def keep(path: object) -> str:
                state.copy(folder, aside)
                return ""

            await self._workers.while_down(name, keep)
        copied_s = self._journal.elapsed_s
        await asyncio.sleep(ROLL_BACK_AFTER_S)
        async with self._changing:
            if await self._workers.eligible(name, [name], BACK_S) is None:
                raise LocalStackError(f"{name} did not come back in time")
            what = await self._workers.while_down(name, partial(state.roll_back, aside=aside))
        self._journal.note(fault.kind, name, f"{what}, of {copied_s:.1f} s")

    async def _stateful(self, fault: Fault) -> str:
        """The planned etl worker, or another one with a state."""
        workers = (fault.target, "etl", *(name for name in STORM if name.startswith("etl")))
        able = [name for name in workers if state.is_there(self._workers.folder(name))]
        name = await self._workers.eligible(able[0], able) if able else None
        if name is None:
            raise LocalStackError("no etl worker has a state to lose")
        return name

    # --- services

    async def _shards(self, fault: Fault) -> None:
        change = self._services.split if fault.kind is Kind.SPLIT else self._services.merge
        which = await change(fault.chance)
        if not which:  # too many or too few shards: do the opposite
            fault = msgspec.structs.replace(fault, kind=Kind.MERGE if fault.kind is Kind.SPLIT else Kind.SPLIT)
            change = self._services.split if fault.kind is Kind.SPLIT else self._services.merge
            which = await change(fault.chance)
        self._journal.note(fault.kind, "kinesis", which)

    async def _outage(self, fault: Fault) -> None:
        self._outages += 1
        seed = self._rates.seed * 1000 + self._outages
        await self._services.fail_aws(msgspec.structs.replace(self._rates, seed=seed, s3=1.0))
        await asyncio.sleep(fault.lasts_s)
        await self._services.fail_aws(msgspec.structs.replace(self._rates, seed=seed))
        self._journal.note(fault.kind, "s3", f"{fault.lasts_s} s")

    async def _vacuum(self, fault: Fault) -> None:
        await self._services.lock_log(fault.lasts_s)
        self._journal.note(fault.kind, "delivery_log", f"{fault.lasts_s} s")

    async def _warehouse(self, fault: Fault) -> None:
        """Order a failure, and return once it has struck: the next order would remove it."""
        times = 1 + fault.chance % 2 if fault.kind in _SEVERAL else 1
        name = _WAREHOUSE[fault.kind]

        async def has_struck() -> bool:
            return (await self._services.warehouse_struck()).get(name, 0) > before

        async with self._ordering:
            before = (await self._services.warehouse_struck()).get(name, 0)
            await self._services.fail_warehouse(name, times)
            log.info("ordered", fault=fault.kind, times=times)
            await self._until(has_struck)
