"""Compares what a rebuild made with the warehouse, slice by slice.

Only batches that the warehouse's ledger covers exactly once are compared: what is on its way is no difference. The ledger is
read first: a row of a batch that it covers is in every later look.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple

import polars as pl
from pyroaring import BitMap

from agents.audit.rebuild.raw_blocks import Progress
from agents.audit.rebuild.report import RebuildComparison
from agents.audit.rebuild.row_files import RowFiles
from app.adapters.warehouse import Connection
from app.adapters.warehouse_rows import RowStream
from app.core.audit.reconcile import LedgerLines, coverage, read_lines
from app.core.formats.flows import FLOWS, LEDGER, Flow
from app.core.rebuild.compare import comparable, compare_rows, found_rows, moved_lines
from app.core.rebuild.span import BatchSpan

OpenConnection = Callable[[], Awaitable[Connection]]
_COLUMNS: Final = {name: LEDGER.names.index(name) for name in ("batch_id", "outcome", "lines", "line_set")}


class Streams:
    """The warehouse's ledger and rows of a span, in the order of batches."""

    def __init__(self, ledger: RowStream, flows: Mapping[str, RowStream]) -> None:
        self._ledger = ledger
        self._flows = flows

    async def entries(self, end_id: str) -> dict[str, list[LedgerLines]]:
        """Batch -> its ledger, of the next batches before `end_id`."""
        found: dict[str, list[LedgerLines]] = {}
        for row in await self._ledger.upto(end_id):
            batch_id, outcome, lines, line_set = (row[at] for at in _COLUMNS.values())
            found.setdefault(batch_id, []).append(LedgerLines(outcome, lines, line_set))
        return found

    async def rows(self, flow: Flow, end_id: str) -> Sequence[tuple[Any, ...]]:
        """The next rows of a flow, those of batches before `end_id`."""
        return await self._flows[flow.name].upto(end_id)


@asynccontextmanager
async def open_streams(connect: OpenConnection, span: BatchSpan) -> AsyncIterator[Streams]:
    """The streams of a span, each with a connection of its own: Redshift keeps one cursor a session."""
    async with AsyncExitStack() as stack:

        async def opened(flow: Flow) -> RowStream:
            stream = RowStream(await stack.enter_async_context(await connect()), flow)
            await stream.open(span.first_id, span.end_id)
            return stream

        ledger = await opened(LEDGER)
        yield Streams(ledger, {flow.name: await opened(flow) for flow in FLOWS})


class DiffRequest(NamedTuple):
    """The wanted answer."""

    left_out: Collection[str]
    """Columns that are not compared."""
    most: int
    """How many differences the answer names."""


async def compare(
    streams: Streams, files: RowFiles, lines: Mapping[str, int], wanted: DiffRequest, progress: Progress
) -> RebuildComparison:
    """Compare all slices of `files`.

    Args:
        streams: the warehouse's rows.
        files: the rebuild's rows.
        lines: batch -> its number of lines.
        wanted: the extent of the answer.
        progress: told after each slice.
    """
    found = RebuildComparison(most=wanted.most, not_compared=sorted(wanted.left_out))
    for each in files.slices:
        entries = await streams.entries(each.end_id)
        covered = {b for b in each.batch_ids if coverage(lines[b], entries.get(b, [])).is_complete}
        for batch_id in each.batch_ids:
            if batch_id not in covered:
                found.leave_out(batch_id)
        found.compared += len(covered)
        made = files.outcomes(each.number)
        for batch_id in sorted(covered):
            found.add_moved(batch_id, moved_lines(_outcomes(entries[batch_id]), made.get(batch_id, {})))
        chosen = pl.Series(sorted(covered), dtype=pl.String)
        for flow in FLOWS:
            there = found_rows(flow, await streams.rows(flow, each.end_id))
            rebuilt = comparable(flow, files.rows(each.number, flow.name))
            there, rebuilt = (side.filter(pl.col("batch_id").is_in(chosen.implode())) for side in (there, rebuilt))
            found.add_rows(flow.name, compare_rows(flow, there, rebuilt, wanted.left_out, wanted.most))
        files.drop(each.number)
        progress(each.number + 1, len(files.slices))
    return found


def _outcomes(entries: Sequence[LedgerLines]) -> dict[str, BitMap]:
    found: dict[str, BitMap] = {}
    for entry in entries:
        found[entry.outcome] = found.get(entry.outcome, BitMap()) | (read_lines(entry.line_set) or BitMap())
    return found
