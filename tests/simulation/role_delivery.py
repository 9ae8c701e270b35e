"""Delivery as a process: rounds over the partitions of `manifests`, wired as `agents.delivery.agent` wires them."""

from collections.abc import Callable, Iterable
from typing import Any

from agents.delivery.deliverer import Deliverer, DeliveryReport
from agents.delivery.load import WarehouseLoad
from agents.delivery.owner import DeliveryOwner
from app.errors import ServiceUnavailable, WarehouseError
from tests.simulation.faults import Fault
from tests.simulation.kafka_client import Event, Member, MemberRole
from tests.simulation.process import Process
from tests.simulation.services import ports_of


class Delivery(MemberRole):
    """The rounds, and the agent that wakes them."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._process, self._ports = process, ports_of(process)
        self._load_ids = iter(range(10**9))
        topic = world.topics.manifests.name
        self.member = Member(process, world.groups["delivery"], (topic,), self._ports, world.settings)
        self._owner = DeliveryOwner(self.member, self._new_deliverer)
        self.member.when_assigned(self._owner.begin)
        self.member.when_leaving(self._owner.end)
        self.member.watchdog.watch_commits(self._owner.owned)
        self.member.serve(self._look)

    async def _look(self, event: Event) -> None:
        self._owner.look_sooner()
        event.ack()

    def _new_deliverer(self) -> Deliverer:
        process, settings, objects = self._process, self._process.world.settings, self._ports.objects
        load = WarehouseLoad(
            objects, connector(process), settings, process.clock, lambda: f"{process.slot}{next(self._load_ids):06d}"
        )
        return WatchedDeliverer(process, objects, load, settings, process.clock, process.random)


class WatchedDeliverer(Deliverer):
    """Sets nothing aside: every file of the simulated world is sound."""

    def __init__(self, process: Process, *parts: Any) -> None:
        super().__init__(*parts)
        self._process = process

    async def round(self, partitions: Iterable[int]) -> DeliveryReport:
        report = await super().round(partitions)
        for txn_id in report.quarantined:
            self._process.world.violation("quarantine", f"{txn_id} was set aside although its files are sound")
        if report.deferred is not None and report.deferred.reason == "schema":
            self._process.world.wait_begins("the warehouse", report.deferred.detail)
        return report


REFUSALS = ("53100", "57014", "40001", "XX000")
"""Disk full, cancelled while it waited for a lock, serialization, an internal error that names no file."""


def connector(process: Process) -> Callable[[], Any]:
    """Opens sessions whose every call passes the process's gate, takes time, and may go wrong."""
    world = process.world

    async def before(call: str, _: str) -> None:
        await process.gate()
        process.count_call()
        await process.sleep(process.delay_s())
        if call in {"rollback", "close"}:
            return
        if world.is_away("warehouse"):
            raise WarehouseError(None, "the warehouse is away")
        if world.faults.happens(Fault.WAREHOUSE):
            world.faults.note(Fault.WAREHOUSE)
            code = world.chance.choice(REFUSALS)
            world.tell(process.name, f"warehouse.{call} is refused: {code}")
            raise WarehouseError(code, "1023 serializable isolation violation" if code == "XX000" else "refused")
        if world.faults.happens(Fault.DROPPED):
            world.faults.note(Fault.DROPPED)
            world.tell(process.name, f"warehouse.{call}: connection lost before")
            raise WarehouseError(None, "dropped")

    async def after(call: str, _: str) -> None:
        world.tell(process.name, f"warehouse.{call}")
        if call != "rollback" and world.faults.happens(Fault.DROPPED):
            world.faults.note(Fault.DROPPED)
            world.tell(process.name, f"warehouse.{call}: connection lost after")
            raise WarehouseError(None, "dropped")
        await process.sleep(process.delay_s())
        process.count_call()
        await process.gate()

    async def connect() -> Any:
        await process.gate()
        process.count_call()
        await process.sleep(process.delay_s())
        if world.is_away("warehouse") or world.faults.happens(Fault.FAILS):
            raise ServiceUnavailable("the warehouse does not answer")
        session = await world.warehouse.connect()
        session.before, session.after = before, after
        process.sessions.append(session)
        return session

    return connect
