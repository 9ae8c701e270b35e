"""I1: the six flows have the rows that the runs must lead to, and no others."""

from collections.abc import Mapping, Sequence

from app.adapters.warehouse import Connection
from app.local.traffic.compare import compare
from app.local.traffic.expect import ExpectedArrival, expect
from app.local.traffic.run import TrafficRun
from app.local.traffic.stories import Timing
from tests.rig.invariants.violation import Violation


async def judge_rows(
    connection: Connection, runs: Sequence[TrafficRun], timing: Timing, arrived: Mapping[str, ExpectedArrival],
    totals: Mapping[str, int] | None,
) -> list[Violation]:  # fmt: skip
    """Compare every row of every run with the sent lines.

    Args:
        connection: to the warehouse.
        runs: everything that was sent; each kept its bodies.
        timing: the join's rules on this stack.
        arrived: the real time of receipt of each event.
        totals: flow -> rows in its table, if only the runs sent events; else None.
    """
    violations: list[Violation] = []
    found: dict[str, int] = {}
    least = most = duplicates = 0
    batches: dict[str, int] = {}
    for run in runs:
        expected = expect(run.sent, timing, arrived)
        compared = await compare(connection, run.run, run.sent, expected)
        violations += [Violation("I1", f"run {run.run}: {example}") for example in compared.examples]
        bounds = {**compared.flows, "joined page views": compared.joined}
        for name, counts in bounds.items():
            if not counts.holds:
                text = f"run {run.run}: {counts.found} in {name}, must be {counts.least} to {counts.most}"
                violations.append(Violation("I1", text))
        unnamed = compared.missing + compared.extra + compared.different - len(compared.examples)
        if unnamed > 0:
            violations.append(Violation("I1", f"run {run.run}: {unnamed} more differences"))
        for flow, counts in compared.flows.items():
            found[flow] = found.get(flow, 0) + counts.found
        least, most = least + compared.duplicates.least, most + compared.duplicates.most
        batches |= run.sent.acknowledged_at_ms
    duplicates = await _duplicates(connection, list(batches))
    if not least <= duplicates <= most:
        violations.append(Violation("I1", f"{duplicates} lines are duplicates, must be {least} to {most}"))
    for flow, total in (totals or {}).items():
        if total != found.get(flow, 0):
            violations.append(Violation("I1", f"{flow} has {total - found.get(flow, 0)} rows of events that nobody sent"))
    return violations


async def _duplicates(connection: Connection, batches: Sequence[str]) -> int:
    """Lines of these batches that the ledger calls duplicates."""
    query = b"SELECT coalesce(sum(lines), 0) FROM analytics.ledger WHERE outcome = 'duplicate' AND batch_id = ANY(%s)"
    row = await (await connection.execute(query, [list(batches)])).fetchone()
    return int(row[0]) if row else 0
