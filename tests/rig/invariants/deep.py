"""What is stored twice is the same twice: the deep audit of a stack that has settled finds no difference."""

from agents.audit.deep.audit import audit_deep
from agents.audit.deep.ports import open_ports
from app.core.audit.differences import in_ranges
from app.settings import Settings
from tests.rig.invariants.violation import Violation, listed


async def judge_deep(settings: Settings) -> list[Violation]:
    """Compare raw files, registry, ledger, chains, files, manifests, topic `rows` and the warehouse's rows."""
    async with open_ports(settings) as ports:
        report = await audit_deep(ports, settings)
    said = [
        f"{one.kind.value} {one.batch_id or one.key or one.txn_id} {one.flow} {in_ranges(one.lines)}: {one.detail}"
        for one in report.differences
    ]
    said += [f"not looked at: {reason}" for reason in report.unchecked]
    return [Violation("deep audit", listed(said))] if said else []
