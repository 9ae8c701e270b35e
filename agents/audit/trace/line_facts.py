"""Reads the facts about lines: the warehouse's ledger first, then what holds the lines that it does not have."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
from pyroaring import BitMap

from agents.audit.stages.block_search import BlockName, BlockSearch, WantedBlock
from agents.audit.stages.stages import StagePorts, Stages
from agents.audit.trace.ports import TracePorts
from app.adapters.warehouse_port import TimeRange
from app.core.audit.reconcile import read_lines
from app.core.audit.stages import BatchStage, Stage
from app.core.audit.trace.facts import HeldLine, LineFacts, LoadedOutcome, RawLine, RowFacts
from app.core.formats.flows import FLOWS, JOINED
from app.core.formats.object_keys import record_key
from app.core.sink.chain import ChainId, decode_record
from app.errors import ChainBroken, NewerFormat, ObjectMissing, ServiceUnavailable
from app.settings import Settings
from app.topics import topics_of

log = structlog.get_logger(__name__)

LOOKS: Final = 3
"""How often the ledger is read again because a load brought lines meanwhile."""
OFFSETS_WITHIN_S: Final = 2
"""An offset is only shown: a trace does not wait longer for it, neither for Kafka nor for a long search."""
_FLOWS: Final = frozenset(flow.name for flow in FLOWS)
_IN_TRANSACTIONS: Final = (Stage.QUARANTINED, Stage.DELIVERY)
Name = tuple[str, int]
"""Batch id and line."""


class FactReader:
    """Reads the facts about lines of one pipeline."""

    def __init__(self, ports: TracePorts, settings: Settings) -> None:
        """Ask nothing yet."""
        self._ports = ports
        self._settings = settings
        self._blocks = topics_of(settings).blocks.name
        self._files: dict[str, Mapping[str, str]] = {}
        """Transaction -> output -> data file."""

    async def of(self, lines: Sequence[RawLine]) -> list[LineFacts]:
        """The facts about each line, in order.

        Order of reads: ledger, then the stages behind it, then the ledger again for lines that were loaded meanwhile. A line
        only moves on, so it is found at its old place or at its new one.

        Raises:
            ServiceUnavailable: the warehouse or S3 does not answer. Kafka is not needed for what is loaded.
        """
        loaded: dict[Name, list[LoadedOutcome]] = {}
        held: dict[Name, HeldLine] = {}
        left = list(lines)
        for _ in range(LOOKS):
            loaded |= await self._loaded(left)
            left = [line for line in left if not loaded[name_of(line)]]
            held = await self._held([line for line in left if line.item is not None])
            if not any(each.stage is Stage.LOADED for each in held.values()):
                break
        offsets = await self._offsets(lines)
        rows = await self._rows(lines, loaded)
        found = []
        for line in lines:
            entries = loaded[name_of(line)]
            row = rows.get(name_of(line))
            first = await self._first(line) if entries and entries[0].outcome == JOINED else None
            at = row or first
            found.append(LineFacts(
                line, entries, row, first, held.get(name_of(line)),
                None if line.block is None else offsets.get((line.batch_id, line.block)),
                None if not entries or at is None else await self._file(at.txn_id, _table_of(entries[0])),
            ))  # fmt: skip
        return found

    async def _loaded(self, lines: Sequence[RawLine]) -> dict[Name, list[LoadedOutcome]]:
        """The ledger's rows of each line."""
        found: dict[Name, list[LoadedOutcome]] = {}
        for batch_id, some in _by_batch(lines).items():
            entries = [
                (entry, read_lines(entry.line_set) or BitMap()) for entry in await self._ports.fates.outcomes(batch_id)
            ]
            for line in some:
                found[name_of(line)] = [entry for entry, members in entries if line.line in members]
        return found

    async def _held(self, lines: Sequence[RawLine]) -> dict[Name, HeldLine]:
        """The stage that holds each line; the reason in its place if a service cannot tell it."""
        if not lines:
            return {}
        items = {line.batch_id: line.item for line in lines if line.item is not None}
        epoch = self._settings.epoch
        other = {name_of(line): line.item.epoch for line in lines if line.item is not None and line.item.epoch != epoch}
        if other:
            own = await self._held([line for line in lines if name_of(line) not in other])
            return own | {name: HeldLine(None, f"its batch is of epoch {was}, not {epoch}") for name, was in other.items()}
        try:
            stages = Stages(StagePorts(self._ports.store, self._ports.ledger, await self._ports.logs()), self._settings)
            found = await stages.of(list(items.values()))
        except (ServiceUnavailable, ChainBroken, NewerFormat) as exc:
            return {name_of(line): HeldLine(None, f"{type(exc).__name__}: {exc}") for line in lines}
        held = {}
        for line in lines:
            held[name_of(line)] = one = _held_by(found[line.batch_id], line.line)
            if one.stage is Stage.QUARANTINED and one.txn_id is not None:
                refusal = await self._ports.fates.refusal(one.txn_id)
                held[name_of(line)] = one._replace(detail=f"{one.detail}: {refusal}" if refusal else one.detail)
        return held

    async def _offsets(self, lines: Sequence[RawLine]) -> dict[BlockName, int]:
        """The offset of each line's block in topic `blocks`; none if Kafka does not answer or has forgotten it."""
        wanted: dict[BlockName, WantedBlock] = {}
        for line in lines:
            if line.item is not None and line.block is not None and line.item.epoch == self._settings.epoch:
                wanted[line.batch_id, line.block] = WantedBlock(line.item, line.block)
        if not wanted:
            return {}
        try:
            async with asyncio.timeout(OFFSETS_WITHIN_S):
                found = await BlockSearch(await self._ports.logs(), self._blocks).find(wanted.values())
        except (ServiceUnavailable, TimeoutError) as exc:
            log.warning("offsets are not known", reason=f"{type(exc).__name__}: {exc}")
            return {}
        return {name: search.copies[0].offset for name, search in found.items() if search.copies}

    async def _rows(self, lines: Sequence[RawLine], loaded: Mapping[Name, Sequence[LoadedOutcome]]) -> dict[Name, RowFacts]:
        """The row of each line that became one."""
        found: dict[Name, RowFacts] = {}
        for batch_id, some in _by_batch(lines).items():
            flows: dict[str, list[RawLine]] = {}
            for line in some:
                for entry in loaded[name_of(line)][:1]:
                    flows.setdefault(entry.outcome, []).append(line)
            for flow in flows.keys() & _FLOWS:
                own = flows[flow]
                rows = await self._ports.fates.rows_of(flow, batch_id, [line.line for line in own], _received(own))
                found |= {(row.batch_id, row.line): row for row in rows}
        return found

    async def _first(self, second: RawLine) -> RowFacts | None:
        """The row that a second event is part of."""
        fields, join = second.fields, self._settings.join
        if fields.page_view_id is None or fields.event_id is None:
            return None
        near = None
        if fields.received_at is not None:
            near = TimeRange(fields.received_at - join.upper_ms, fields.received_at + join.lower_ms)
        rows = await self._ports.fates.firsts_of(fields.page_view_id, fields.event_id, near)
        if not rows and near is not None:  # the bounds of the join were others when it joined
            rows = await self._ports.fates.firsts_of(fields.page_view_id, fields.event_id, None)
        return rows[0] if rows else None

    async def _file(self, txn_id: str, output: str) -> str | None:
        """The data file that a transaction has of an output; None if its record cannot be read."""
        if txn_id not in self._files:
            self._files[txn_id] = await self._read_files(txn_id)
        return self._files[txn_id].get(output)

    async def _read_files(self, txn_id: str) -> Mapping[str, str]:
        try:
            epoch, partition, number = map(int, txn_id.split("-")[:3])
            body = await self._ports.store.get(record_key(epoch, partition, number))
            record = decode_record(body, ChainId(epoch, partition), number)
        except (ValueError, ObjectMissing, ChainBroken, NewerFormat):
            return {}
        if record.txn_id != txn_id:
            return {}
        return {out.output: out.data_key for out in record.outputs if out.data_key is not None}


def name_of(line: RawLine) -> Name:
    """The batch id and number of a line."""
    return line.batch_id, line.line


def _by_batch(lines: Sequence[RawLine]) -> dict[str, list[RawLine]]:
    batches: dict[str, list[RawLine]] = {}
    for line in lines:
        batches.setdefault(line.batch_id, []).append(line)
    return batches


def _table_of(entry: LoadedOutcome) -> str:
    """The table that has the row, or the row that the line is part of."""
    return "page_views" if entry.outcome == JOINED else entry.outcome


def _received(lines: Sequence[RawLine]) -> TimeRange | None:
    """The time in which lines were received; None if one of them does not say it."""
    times = [line.fields.received_at for line in lines if line.fields.received_at is not None]
    return TimeRange(min(times), max(times)) if len(times) == len(lines) else None


def _held_by(found: BatchStage, line: int) -> HeldLine:
    block = found.block_of(line)
    stage = block.stage_of(line)
    detail, txn_id = block.detail, None
    if stage in _IN_TRANSACTIONS and (txn_ids := block.txn_ids.get(stage)):
        txn_id = txn_ids[0] if len(txn_ids) == 1 else None
        detail = f"{'transaction' if len(txn_ids) == 1 else 'one of the transactions'} {', '.join(txn_ids)}"
    elif stage is Stage.SINK and block.step_offsets:
        detail = f"a step on topic rows, partition {block.partition}, offset {block.step_offsets[0]}"
    return HeldLine(stage, detail, block.until_ms if stage is Stage.JOIN else None, txn_id)
