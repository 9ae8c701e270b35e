"""I2 to I4 by a second opinion: `instream audit --deep` finds no difference (`agents.audit.deep`)."""

from agents.audit.deep.audit import audit_deep
from agents.audit.deep.ports import open_ports
from app.settings import Settings
from tests.rig.invariants.violation import Violation, listed


async def judge_deep(settings: Settings) -> list[Violation]:
    """Audit a stack that has settled: it must be clean, whatever was done to it before."""
    async with open_ports(settings) as ports:
        report = await audit_deep(ports, settings)
    named = [f"{one.kind} {one.txn_id or one.batch_id} {one.flow} {one.detail}" for one in report.differences]
    return [Violation("I4", f"audit --deep: {listed([*named, *report.unchecked])}")] if not report.is_clean else []
