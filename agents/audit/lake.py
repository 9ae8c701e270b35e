"""The missing batches as Hive's SQL over the bucket finds them, and the audit of just these (rule A1).

The registry's export and the ledger's files are all that it reads: no warehouse, no stream. So it answers when these are
down, and it is a second opinion on the audit.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from agents.audit.auditor import Auditor
from agents.audit.ports import AuditPorts
from agents.audit.report import AuditReport
from app.adapters.athena import SqlEngine
from app.adapters.ports import Registry
from app.core.formats.athena import Lake, statements
from app.core.formats.registry_item import BatchState, RegistryItem
from app.settings import Settings
from app.sql import missing_batches

FIRST_DAY: Final = "2024-01-01"
"""No file is older."""


class MissingBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is not covered, or not completed."""

    batch_id: str
    finding: str
    """missing, excess or uncompleted."""
    state: str
    line_count: int
    covered_lines: int
    """Lines in the ledger files of committed transactions; one of them may wait for its load, or be quarantined."""
    attempts: int
    received_at_ms: int


def lake_of(settings: Settings) -> Lake:
    """Where the tables are made."""
    return Lake(settings.athena_database, settings.bucket, FIRST_DAY)


async def make_tables(engine: SqlEngine, settings: Settings) -> list[str]:
    """Make the tables and views. Returns: their names.

    Raises:
        ConfigurationError: a statement is refused.
        OutsideError: the engine does not answer.
    """
    made = statements(lake_of(settings))
    for statement in made:
        await engine.run(statement.sql)
    return [statement.name for statement in made]


async def find_missing(
    engine: SqlEngine, settings: Settings, export: str, since_ms: int, until_ms: int
) -> list[MissingBatch]:
    """The batches of a time range that are missing or not completed, oldest first.

    Args:
        engine: has the tables.
        settings: database and epoch.
        export: the registry's export that is read; batches registered later are not in it.
        since_ms: first received_at of the range.
        until_ms: first received_at behind it.

    Raises:
        ConfigurationError: the query is refused.
        OutsideError: the engine does not answer.
    """
    rows = await engine.run(missing_batches(settings.athena_database, export, settings.epoch, since_ms, until_ms))
    return [msgspec.convert(row, MissingBatch, strict=False) for row in rows]


async def judge(ports: AuditPorts, settings: Settings, batch_ids: Sequence[str]) -> AuditReport:
    """One round of the audit over these batches, whatever their age: complete, send again, or say what they wait for."""
    return await Auditor(ports._replace(registry=_Named(ports.registry, batch_ids)), settings).round(0)


class _Named:
    """The registry, of which only the named batches are listed as open."""

    def __init__(self, registry: Registry, batch_ids: Sequence[str]) -> None:
        self._batch_ids = batch_ids
        self.register, self.get, self.all_batches = registry.register, registry.get, registry.all_batches
        self.complete, self.record_attempt, self.restore = registry.complete, registry.record_attempt, registry.restore

    async def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        """Those of the named batches that are open."""
        for batch_id in self._batch_ids:
            item = await self.get(batch_id)
            if item is not None and item.state is BatchState.OPEN and item.received_at_ms < received_before_ms:
                yield item
