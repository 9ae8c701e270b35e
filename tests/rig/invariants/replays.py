"""I5: every batch once more through Kinesis changes no row."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from agents.audit.ports import open_ports
from agents.audit.replay import EVERY, Replayed, replay
from app.adapters.warehouse import Connection
from app.core.formats.flows import FLOWS, LEDGER, REPLAYS
from app.shell.ports import Ports as AppPorts
from tests.rig.invariants.gather import Ports
from tests.rig.invariants.settle import Say, settle
from tests.rig.invariants.violation import Violation, listed

POLL_S: Final = 1.0
Digests = dict[str, Any]


async def digests(connection: Connection) -> Digests:
    """Table -> its number of rows and a digest of all their columns, independent of their order."""
    found = {}
    async with connection.transaction():
        for table in (*FLOWS, LEDGER):
            query = f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM analytics.{table.name} AS t"
            found[table.name] = await (await connection.execute(query.encode())).fetchone()
    return found


async def check_replays(ports: Ports, timeout_s: float, say: Say) -> list[Violation]:
    """Send every batch again, wait until the warehouse has a report of each block, and compare all tables.

    Only for a settled stack without traffic.

    Raises:
        ServiceUnavailable: the stack does not answer.
    """
    before = await digests(ports.warehouse)
    async with open_ports(AppPorts(ports.settings)) as audit_ports:
        report = await replay(audit_ports, ports.settings, EVERY)
    say(f"{len(report.replayed)} batches ({report.blocks} blocks) are sent again")
    violations = [
        Violation("I5", f"{what}: {listed(found)}")
        for what, found in (("Kinesis refused", report.refused), ("damaged", report.damaged))
        if found
    ]
    deadline = time.monotonic() + timeout_s
    while missing := await _unreported(ports.warehouse, report.replayed):
        if time.monotonic() > deadline:
            violations.append(Violation("I5", f"replayed blocks without a report after {timeout_s:g} s: {listed(missing)}"))
            break
        await asyncio.sleep(POLL_S)
    violations += await settle(ports, timeout_s, say)
    return violations + judge_digests(before, await digests(ports.warehouse))


def judge_digests(before: Digests, after: Digests) -> list[Violation]:
    """The changes between two looks at the tables."""
    return [
        Violation("I5", f"{table}: rows and digest were {before[table]}, are {after[table]}")
        for table in before
        if before[table] != after[table]
    ]


async def _unreported(connection: Connection, replayed: Sequence[Replayed]) -> list[str]:
    """Blocks, as `batch/number`, whose replay the warehouse has no report of."""
    query = f"SELECT DISTINCT batch_id, block, attempt FROM analytics.{REPLAYS.name}"
    async with connection.transaction():
        found = set(await (await connection.execute(query.encode())).fetchall())
    return [
        f"{batch.batch_id}/{block}"
        for batch in replayed
        for block in range(batch.blocks)
        if (batch.batch_id, block, batch.attempt) not in found
    ]
