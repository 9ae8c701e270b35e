"""Data files that are lost or damaged are made again (rules R4, R6).

Topic `rows` is the source as long as it has the transaction's messages: the same rows, nearly always in the same bytes.
After that the raw files are the source, decided again as the transaction's ledger says. Rows that were made so may have
other bytes than the record names. Then a file repair says what the file is now.

Effects of such a mend, in order, and what a crash right after each leaves:
  1 PUT repairs/files/<txn>/<output>.json   a file that is damaged as before; the next repair makes both again
  2 PUT the data file                       manifests of another length; the deep audit names them, and a repair writes them
  3 PUT manifests, ready.json last          nothing
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import polars as pl
from msgspec import UNSET
from pyroaring import BitMap

from agents.audit.erase.stored import erased_lines
from agents.audit.repair.chains import Chains, encoded
from agents.audit.repair.log_again import RowsLog
from agents.audit.repair.ports import RepairPorts
from agents.audit.repair.raw_lines import blocks_with, registered
from agents.etl.owner import etl_rules
from app.core.audit.deep.lines import outcome_lines
from app.core.audit.deep.rows import normalised
from app.core.delivery.statements import LOADED
from app.core.erase.files import Lines, without_lines
from app.core.formats import object_keys
from app.core.formats.flow_files import encode_output
from app.core.formats.flows import BY_NAME, DUPLICATE, ENGAGEMENTS, FLOWS, LEDGER, PAGE_VIEWS
from app.core.formats.read_files import decode_output
from app.core.formats.transaction_record import TransactionRecord
from app.core.rebuild.lost_lines import PartitionRules
from app.core.rebuild.rows_again import Outcomes, as_loaded, lines_of_rows, rows_again, with_reasons
from app.core.repair.file_repair import FileRepair, encode_file_repair
from app.core.sink.open_transaction import Encoded
from app.errors import RepairRefused
from app.settings import Settings

OTHER_BYTES: Final = "topic rows has the same rows; this version, or this kind of processor, writes them in other bytes"
_FLOW_NAMES: Final = frozenset(flow.name for flow in FLOWS)


class Sources(NamedTuple):
    """What is left of a transaction whose messages are gone from topic `rows`."""

    record: TransactionRecord
    damaged: Collection[str]
    files: Mapping[str, pl.DataFrame]
    """Output -> the normalised rows of its data file, where that is whole."""
    loaded: Mapping[str, pl.DataFrame]
    """Output -> the normalised rows in the warehouse; none if the transaction is not loaded."""


class FileMends:
    """Makes data files again."""

    def __init__(self, ports: RepairPorts, settings: Settings, chains: Chains, log: RowsLog) -> None:
        self._ports = ports
        self._deep = ports.deep
        self._settings = settings
        self._chains = chains
        self._log = log

    async def restore(self, partition: int | None, number: int | None, flows: Collection[str]) -> None:
        """Make damaged data files of a transaction again, and store those that are proven.

        Raises:
            RepairRefused: neither topic `rows` nor raw files and ledger give the rows that the record counts.
        """
        record = await self._chains.whole_record(partition, number)
        damaged = (await self._chains.files(record, flows)).damaged
        if not damaged:
            return
        try:
            made, source = await self._of_log(record), OTHER_BYTES
        except RepairRefused as exc:
            made, source = await self._of_raw(record, exc), f"raw files and the ledger have the rows: {exc}"
        others = []
        for file in (made[name] for name in damaged if name in made):
            out = record.output(file.output)
            if out.data_key is not None and file.sha256 == out.sha256:
                await self._deep.store.put(out.data_key, file.body)
            elif file.rows == out.rows:
                others.append(file)
        if others:
            await self._store(record, others, source)
        if left := (await self._chains.files(record, flows)).damaged:
            raise RepairRefused(f"nothing has the rows of {', '.join(left)} that the record counts")
        if others and not (await self._chains.files(record)).damaged:
            await self._chains.write_manifests(record.partition, record.number)

    async def _store(self, record: TransactionRecord, files: Sequence[Encoded], source: str) -> None:
        """Store files with other bytes, each behind its file repair."""
        if await self._chains.record(record.partition, record.number + 1) is None:
            raise RepairRefused(
                "the bytes are others than recorded, and the transaction is the last of its chain: its sink finishes it at "
                "each start, and would refuse them. Try again once another transaction follows"
            )
        for file in files:
            out = record.output(file.output)
            said = FileRepair(
                txn_id=record.txn_id, output=file.output, recorded_sha256=out.sha256, sha256=file.sha256,
                bytes=len(file.body), rows=file.rows, columns_version=BY_NAME[file.output].version,
                made_at_ms=self._deep.clock.now_ms(), source=source,
            )  # fmt: skip
            await self._deep.store.put(object_keys.file_repair_key(record.txn_id, file.output), encode_file_repair(said))
            await self._deep.store.put(out.data_key or "", file.body)

    async def _of_log(self, record: TransactionRecord) -> dict[str, Encoded]:
        """Output -> its file, from topic `rows`."""
        before = await self._chains.whole_record(record.partition, record.number - 1) if record.number > 1 else None
        open_ = await self._log.transaction(record.partition, before, record.last_offset)
        files = await encoded(open_, record.txn_id)
        if record.erasures is not UNSET:  # the log has the lines that were erased since (rule R7)
            lines = await erased_lines(self._deep.store, record.erasures)
            files = await asyncio.to_thread(lambda: [_erased(file, lines) for file in files])
        if {file.output: file.rows for file in files if file.rows} != {o.output: o.rows for o in record.outputs if o.rows}:
            raise RepairRefused(f"topic rows has other rows than transaction {record.number} counts")
        return {file.output: file for file in files}

    # --- from raw files

    async def _of_raw(self, record: TransactionRecord, why: RepairRefused) -> dict[str, Encoded]:
        """Output -> its file, of the outputs that can be made without topic `rows`."""
        sources = await self._sources(record)
        ledger = sources.files.get(LEDGER.name, sources.loaded.get(LEDGER.name))
        if ledger is None or ledger.height != record.output(LEDGER.name).rows:
            raise RepairRefused(f"{why}; and nothing has the transaction's ledger")
        by_outcome = outcome_lines(ledger)
        frames: dict[str, pl.DataFrame] = {}
        if wanted := _FLOW_NAMES.intersection(sources.damaged):
            frames = await self._flows(sources, by_outcome)
            frames = {name: frames[name] for name in wanted if name in frames}
        if LEDGER.name in sources.damaged:
            _refuse_contradiction(sources, by_outcome)
        for name in set(sources.damaged) - _FLOW_NAMES:
            frame = sources.loaded.get(name)
            if frame is not None:
                frames[name] = frame.sort(frame.columns)
        return {name: await asyncio.to_thread(_encoded, name, frame) for name, frame in frames.items()}

    async def _sources(self, record: TransactionRecord) -> Sources:
        found = await self._chains.files(record)
        files = {}
        for out in found.record.outputs:
            if out.data_key is not None and out.output not in found.damaged:
                body = await self._deep.store.get(out.data_key)
                decoded = await asyncio.to_thread(decode_output, out.output, body, out.columns_version)
                files[out.output] = normalised(out.output, decoded)
        log = await self._deep.rows.log(record.epoch, record.partition, record.number, record.number)
        loaded = {}
        is_pruned = not log and self._settings.retention.is_pruned(record.committed_at_ms, self._deep.clock.now_ms())
        if is_pruned or any(entry.status == LOADED and entry.txn_id == record.txn_id for entry in log):
            for out in record.outputs:
                rows = await self._deep.rows.rows(out.output, [record.txn_id])
                loaded[out.output] = normalised(out.output, rows)
        return Sources(record, found.damaged, files, loaded)

    async def _flows(self, sources: Sources, ledger: Outcomes) -> dict[str, pl.DataFrame]:
        """Flow -> its rows, decided again from raw files as the ledger says."""
        record, settings = sources.record, self._settings
        envelopes = []
        for batch_id in sorted({batch_id for name, lines in ledger.items() if name != DUPLICATE for batch_id in lines}):
            item = await registered(self._deep.registry, batch_id)
            some = [lines.get(batch_id, BitMap()) for name, lines in ledger.items() if name != DUPLICATE]
            envelopes += await blocks_with(self._deep.store, item, record.partition, BitMap.union(*some))
        core = PartitionRules(record.partition, etl_rules(settings), self._ports.enricher)
        made = await asyncio.to_thread(rows_again, core, envelopes, ledger, record.txn_id)
        if (engagements := made.get(ENGAGEMENTS.name)) is not None:
            first_events = await self._first_events(engagements, made.get(PAGE_VIEWS.name))
            made[ENGAGEMENTS.name] = with_reasons(engagements, settings.join, first_events)
        return {
            name: as_loaded(rows, sources.loaded[name]) if name in sources.loaded else rows
            for name, rows in ((name, normalised(name, frame)) for name, frame in made.items())
        }

    async def _first_events(self, engagements: pl.DataFrame, page_views: pl.DataFrame | None) -> dict[str, int]:
        """Page view -> receipt of the first event that joins for it: a row of the warehouse, or of this transaction."""
        views = engagements["page_view_id"].unique().to_list()
        known = [(view, at_ms, event_id) for view, event_id, at_ms in await self._ports.events.first_events(views)]
        if page_views is not None:
            own = page_views.filter(pl.col("page_view_id").is_in(views))
            known += own.select("page_view_id", "received_at", "event_id").rows()
        return {view: at_ms for view, at_ms, _ in sorted(known, reverse=True)}


def _refuse_contradiction(sources: Sources, ledger: Outcomes) -> None:
    """See that the flows have the lines that the warehouse's ledger says: the ledger's own file is gone.

    Raises:
        RepairRefused: they have not.
    """
    for flow in FLOWS:
        rows = sources.files.get(flow.name, sources.loaded.get(flow.name))
        found = {} if rows is None else lines_of_rows(rows)
        count = sources.record.output(flow.name).rows
        if found != ledger.get(flow.name, {}) or sum(map(len, found.values())) != count:
            raise RepairRefused(f"the warehouse's ledger of the transaction contradicts its rows of {flow.name}")


def _erased(file: Encoded, lines: Lines) -> Encoded:
    """The file without some lines."""
    if not file.rows:
        return file
    kept = without_lines(file.output, decode_output(file.output, file.body), lines)
    if not kept.height:
        return Encoded(file.output, 0, b"", "")
    return _encoded(file.output, kept)


def _encoded(output: str, frame: pl.DataFrame) -> Encoded:
    body = encode_output(output, frame)
    return Encoded(output, frame.height, body, hashlib.sha256(body).hexdigest())
