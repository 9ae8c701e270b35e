"""Rows of the warehouse whose transaction is in no chain."""

from collections.abc import AsyncIterator, Collection
from typing import Final

from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import DeepReport, Span
from app.adapters.warehouse_port import LoadedSpan
from app.core.audit.deep.rows import TransactionOutput, foreign_rows, normalised
from app.core.formats import object_keys
from app.core.formats.flows import OUTPUTS
from app.core.sink.chain import ChainId, decode_record
from app.errors import ChainBroken, NewerFormat, ObjectMissing

PAGE: Final = 5000
"""Transactions in one answer of the warehouse."""


async def find_stray_rows(
    ports: DeepPorts, known: Collection[str], span: Span, report: DeepReport
) -> AsyncIterator[int]:  # fmt: skip
    """Look at the transaction ids in every table. Yields: 1 for each table that is done.

    Args:
        ports: what is read.
        known: transactions that were found in a chain.
        span: of the time of the load; only a span that is not everything leaves rows out.
        report: gets the differences.
    """
    loaded = None if span.is_everything else LoadedSpan(span.since_ms, min(span.until_ms, ports.clock.now_ms() + PAGE))
    for flow in OUTPUTS:
        after = ""
        while page := await ports.rows.transactions(flow.name, after, PAGE, loaded):
            after = page[-1][0]
            for txn_id, _ in page:
                if txn_id not in known and not await _is_committed(ports, txn_id):
                    await _note(ports, flow.name, txn_id, report)
        yield 1


async def _is_committed(ports: DeepPorts, txn_id: str) -> bool:
    """Whether a chain has the transaction under its number."""
    if not object_keys.is_txn_id(txn_id):
        return False
    epoch, partition, number = (int(part) for part in txn_id.split("-")[:3])
    try:
        body = await ports.store.get(object_keys.record_key(epoch, partition, number))
        return decode_record(body, ChainId(epoch, partition), number).txn_id == txn_id
    except ObjectMissing:
        return False
    except (ChainBroken, NewerFormat):
        return True  # the record is named elsewhere, and its rows may be its own


async def _note(ports: DeepPorts, output: str, txn_id: str, report: DeepReport) -> None:
    rows = normalised(output, await ports.rows.rows(output, [txn_id]))
    parts = [int(part) for part in txn_id.split("-")[1:3]] if object_keys.is_txn_id(txn_id) else [-1, -1]
    what = TransactionOutput(output, txn_id, None, *parts)
    report.note(foreign_rows(what, rows, f"no chain has transaction {txn_id}"))
