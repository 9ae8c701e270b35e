"""What is stored twice is the same twice, of a stack that has settled: by the deep audit, and by SQL over the bucket."""

from collections.abc import Sequence

from agents.audit.deep.audit import audit_deep
from agents.audit.deep.ports import open_ports
from agents.audit.deep.report import Span
from app.core.audit.differences import in_ranges
from app.core.formats.batch import batch_time_ms
from app.local.traffic.run import TrafficRun
from tests.rig.invariants.gather import Ports
from tests.rig.invariants.lake import judge_lake
from tests.rig.invariants.violation import Violation, listed


async def judge_copies(ports: Ports, runs: Sequence[TrafficRun]) -> list[Violation]:
    """Compare what the runs have left: raw files, registry, ledger, chains, files, manifests, topic `rows`, loaded rows."""
    began_ms = min(batch_time_ms(batch_id) for run in runs for batch_id in run.sent.acknowledged_at_ms)
    async with open_ports(ports.settings) as deep_ports:
        report = await audit_deep(deep_ports, ports.settings, Span(since_ms=began_ms))
    said = [
        f"{one.kind.value} {one.batch_id or one.key or one.txn_id} {one.flow} {in_ranges(one.lines)}: {one.detail}"
        for one in report.differences
    ]
    said += [f"not looked at: {reason}" for reason in report.unchecked]
    return ([Violation("deep audit", listed(said))] if said else []) + await judge_lake(ports)
