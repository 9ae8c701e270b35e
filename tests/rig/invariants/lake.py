"""I7 by a second opinion: the query over the bucket finds no missing batch either (`agents.audit.lake`)."""

import uuid

from agents.audit.lake import find_missing, make_tables
from app.adapters.registry_export import export_registry
from app.core.formats.decoding import LATEST_MS
from app.local.athena.engine import LocalAthena
from tests.rig.invariants.gather import Ports
from tests.rig.invariants.violation import Violation, listed

POLL_S = 0.1


async def judge_lake(ports: Ports) -> list[Violation]:
    """Ask Athena's stand-in for the missing batches of a stack that has settled; the audit has no open batch."""
    settings, engine = ports.settings, LocalAthena(ports.objects)
    await make_tables(engine, settings)
    export = await export_registry(settings, ports.objects, uuid.uuid4().hex, POLL_S)
    found = await find_missing(engine, settings, export, 0, LATEST_MS)
    named = listed([f"{one.batch_id} ({one.finding}: {one.covered_lines} of {one.line_count})" for one in found])
    return [Violation("I7", f"the query over the bucket finds batches: {named}")] if found else []
