"""The audit as a process: the rounds of the only auditor, wired as `agents.audit.agent` wires them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.audit.auditor import Auditor
from agents.audit.ports import AuditPorts
from agents.audit.report import AuditReport
from app.errors import ServiceUnavailable
from app.settings import Settings
from app.shell.owned_loop import OwnedLoop
from app.testing.memory import MemoryLoadedLedger
from tests.simulation.faults import Fault
from tests.simulation.kafka_client import Event, Member, MemberRole
from tests.simulation.process import Process
from tests.simulation.services import ports_of


class Audit(MemberRole):
    """The rounds, and the agent that holds the turn."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._process, self._ports = process, ports_of(process)
        self.member = Member(process, world.groups["audit"], (world.topics.audit.name,), self._ports, world.settings)
        self._rounds = OwnedLoop(self.member, world.topics.audit, self._open_auditor, Auditor.run)
        self.member.when_assigned(self._rounds.begin)
        self.member.when_leaving(self._rounds.end)
        self.member.serve(self._ignore)

    async def _ignore(self, event: Event) -> None:
        event.ack()

    @asynccontextmanager
    async def _open_auditor(self, _: list[int]) -> AsyncIterator[Auditor]:
        process, world, ports = self._process, self._process.world, self._ports

        async def lags(partitions: frozenset[int]) -> dict[str, int]:
            found: dict[str, int] = await process.call("kafka", "lag", lambda: world.lags(partitions), writes=False)
            return found

        audit_ports = AuditPorts(ports.objects, ports.registry, ports.blocks, ledger_of(process), lags, process.clock)
        yield WatchedAuditor(process, audit_ports, world.settings)


class WatchedAuditor(Auditor):
    """Has no reason for an alarm: nothing is lost in the simulated world, nor anything damaged."""

    def __init__(self, process: Process, ports: AuditPorts, settings: Settings) -> None:
        super().__init__(ports, settings)
        self._process = process

    async def round(self) -> AuditReport:
        report, world = await super().round(), self._process.world
        counts = f"{report.judged} judged, {report.completed} complete, {report.replayed} replayed, {report.waiting} waiting"
        world.tell(self._process.name, f"audit round: {counts} {report.waits_for}")
        world.faults.counts["audit replays"] += report.replayed
        if report.alarms:
            world.violation("audit", f"alarm: lost {report.lost}, excess {report.excess}, damaged {report.damaged}: "
                                     f"{report.named}")  # fmt: skip
        return report


def ledger_of(process: Process) -> MemoryLoadedLedger:
    """What the warehouse says was loaded; every question passes the process's gate, takes time, and may go wrong."""
    world = process.world
    ledger = MemoryLoadedLedger(world.warehouse)

    async def before(_: str, __: str) -> None:
        await process.gate()
        process.count_call()
        await process.sleep(process.delay_s())
        if world.is_away("warehouse") or world.faults.happens(Fault.FAILS):
            raise ServiceUnavailable("the warehouse does not answer")

    async def after(_: str, __: str) -> None:
        await process.sleep(process.delay_s())

    ledger.before, ledger.after = before, after
    return ledger
