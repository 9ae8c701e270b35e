"""A rebuild: raw files of a span through the core, into another schema, into a comparison, or both.

Memory is bounded: blocks and rows lie on disk, in a folder that is deleted at the end, and one partition is run at a time.
"""

import asyncio
import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec

from agents.audit.rebuild.diff import DiffRequest, OpenConnection, compare, open_streams
from agents.audit.rebuild.load import Parts, Target, drop_files, load_parts
from agents.audit.rebuild.offline import Core, Made, run_partition, store_in
from agents.audit.rebuild.raw_blocks import BlockFiles, Duplicates, EpochPartition, Told, gather
from agents.audit.rebuild.report import NAMED, RebuildReport
from agents.audit.rebuild.row_files import RowFiles, slices_of
from agents.etl.owner import etl_rules
from app.adapters.ports import ObjectStore, Registry
from app.adapters.rebuilt_schema import check_schema
from app.adapters.warehouse_rows import read_duplicates
from app.clock import Clock
from app.core.enrich.enrich import Enricher
from app.core.formats.dead_letter import DeadLetterLimit
from app.core.rebuild.span import BatchSpan
from app.core.rules import EtlRules
from app.settings import Settings

_NO_LIMIT: Final = DeadLetterLimit(share=1)
LOOK_BACK_S: Final = 3600
"""A rebuild knows the ids of so many seconds before its span, if it is not asked for more."""


class RebuildPorts(NamedTuple):
    """The ports of a rebuild."""

    store: ObjectStore
    registry: Registry
    connect: OpenConnection
    """Opens a connection to the warehouse."""
    enricher: Enricher
    clock: Clock


class RebuildPlan(NamedTuple):
    """The wanted result of a rebuild."""

    span: BatchSpan
    look_back_s: float = LOOK_BACK_S
    schema: str | None = None
    """Load the rows into this schema."""
    diff: bool = False
    """Compare the rows with schema `analytics`."""
    not_compared: Collection[str] = ()
    """Columns that the comparison leaves out."""
    most: int = NAMED


async def rebuild(ports: RebuildPorts, settings: Settings, plan: RebuildPlan, told: Told) -> RebuildReport:
    """Run the raw files of a span through the core.

    Raises:
        ConfigurationError: the schema is none for a rebuild.
        NewerFormat: a newer version wrote a line or a registry item.
        ServiceUnavailable: S3, the registry or the warehouse does not answer.
        WarehouseError: the warehouse refuses a statement; schema `analytics` is only read.
    """
    if plan.schema is not None:
        check_schema(plan.schema)
    with TemporaryDirectory(prefix="instream-rebuild-") as folder:
        return await _Run(ports, settings, plan, told, Path(folder)).run()


class _Run:
    """One rebuild, with a folder of its own."""

    def __init__(self, ports: RebuildPorts, settings: Settings, plan: RebuildPlan, told: Told, folder: Path) -> None:
        self._ports = ports
        self._settings = settings
        self._plan = plan
        self._told = told
        self._folder = folder
        self._blocks = BlockFiles(self._made("blocks"))
        self._state = self._made("state")
        self._files: RowFiles | None = None
        """The rows for the comparison."""
        self._parts: Parts | None = None
        """The rows for another schema."""
        span = plan.span
        self._report = RebuildReport(since=_iso(span.since_ms), until=_iso(span.until_ms), schema=plan.schema)

    def _made(self, name: str) -> Path:
        (self._folder / name).mkdir()
        return self._folder / name

    async def run(self) -> RebuildReport:
        ports, plan, report = self._ports, self._plan, self._report
        started_s = ports.clock.monotonic_s()
        wide = plan.span.widened(self._settings.join, round(plan.look_back_s * 1000))
        batches = await gather(ports.store, ports.registry, wide, self._blocks, self._told("hours of raw files are read"))
        report.unregistered, report.damaged = batches.unregistered, batches.damaged
        lines = {batch_id: count for batch_id, count in batches.lines.items() if plan.span.has(batch_id)}
        report.batches, report.lines = len(lines), sum(lines.values())
        if plan.diff:
            self._files = RowFiles(self._made("rows"), slices_of(lines, plan.span.end_id))
        if plan.schema is not None:
            self._parts = Parts(f"{ports.clock.now_ms():013d}-{secrets.token_hex(8)}")
        async with await ports.connect() as connection:
            duplicates = await read_duplicates(connection, wide.first_id, wide.end_id)
        try:
            await self._run_partitions(duplicates)
            if self._parts is not None and plan.schema is not None:
                target = Target(plan.schema, plan.span)
                async with await ports.connect() as connection:
                    report.loaded = await load_parts(ports.store, connection, self._settings, target, self._parts)
        finally:
            if self._parts is not None:
                await drop_files(ports.store, self._parts)
        if self._files is not None:
            wanted, progress = DiffRequest(plan.not_compared, plan.most), self._told("slices are compared")
            async with open_streams(ports.connect, plan.span) as streams:
                report.difference = await compare(streams, self._files, lines, wanted, progress)
        report.took_s = round(ports.clock.monotonic_s() - started_s, 1)
        return report

    async def _run_partitions(self, duplicates: Duplicates) -> None:
        """Run one partition after the other."""
        settings = self._settings
        open_store = store_in(self._state, settings.state_cache_bytes, settings.dedup_window_ms)
        partitions, progress = self._blocks.partitions(), self._told("partitions are run")
        for done, partition in enumerate(partitions):
            core = Core(rules_of(settings, partition.epoch), self._ports.enricher, open_store)
            steps = run_partition(self._blocks, partition, core, self._plan.span, duplicates)
            while (made := await asyncio.to_thread(next, steps, None)) is not None:
                await self._take(made, partition)
            await self._store_part(partition)
            progress(done + 1, len(partitions))

    async def _take(self, made: Made, partition: EpochPartition) -> None:
        self._report.count(made.rows, made.ledger)
        if self._files is not None:
            await asyncio.to_thread(self._files.add, made)
        if self._parts is not None:
            self._parts.take(made)
            if self._parts.is_full:
                await self._store_part(partition)

    async def _store_part(self, partition: EpochPartition) -> None:
        if self._parts is not None:
            parts = self._parts
            for key, body in await asyncio.to_thread(lambda: list(parts.close(partition))):
                await self._ports.store.put(key, body)


def rules_of(settings: Settings, epoch: int) -> EtlRules:
    """The rules of the ETL, for batches of an epoch; nothing is too unreadable here, because raw files are verified."""
    return msgspec.structs.replace(etl_rules(settings), epoch=epoch, dead_letters=_NO_LIMIT)


def _iso(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
