"""A trace's view of the warehouse, in memory."""

from collections.abc import Sequence

from app.adapters.warehouse_port import TimeRange
from app.core.audit.trace.facts import LoadedOutcome, RowFacts
from app.core.formats.flows import LEDGER, PAGE_VIEWS
from app.testing.memory.copied_files import CopiedRow
from app.testing.memory.hooks import Hooked
from app.testing.memory.warehouse import MemoryWarehouse


class MemoryFates(Hooked):
    """`LoadedFates` over the committed rows of a MemoryWarehouse."""

    def __init__(self, warehouse: MemoryWarehouse) -> None:
        self.warehouse = warehouse

    async def outcomes(self, batch_id: str) -> list[LoadedOutcome]:
        """The ledger's rows of a batch."""
        await self._enter("outcomes", batch_id)
        rows = [row for row in self.warehouse.rows(LEDGER.name) if row["batch_id"] == batch_id]
        await self._leave("outcomes", batch_id)
        return [
            LoadedOutcome(row["txn_id"], row["outcome"], row["lines"], row["line_set"], row.get("loaded_at", -1))
            for row in rows
        ]

    async def rows_of(self, flow: str, batch_id: str, lines: Sequence[int], received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of a flow that lines of a batch became."""
        rows = [row for row in self.warehouse.rows(flow) if row["batch_id"] == batch_id and row["line"] in lines]
        return [_facts(row) for row in rows if _is_in(row, received_ms)]

    async def firsts_of(self, page_view_id: str, engagement_id: str, received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of page views that a second event joined."""
        return [
            _facts(row)
            for row in self.warehouse.rows(PAGE_VIEWS.name)
            if (row["page_view_id"], row["engagement_id"]) == (page_view_id, engagement_id) and _is_in(row, received_ms)
        ]

    async def refusal(self, txn_id: str) -> str | None:
        """The reason why a transaction is quarantined."""
        return next((row.detail for row in self.warehouse.log if row.txn_id == txn_id), None)


def _facts(row: CopiedRow) -> RowFacts:
    return RowFacts(**{name: row[name] for name in RowFacts._fields if name in row})


def _is_in(row: CopiedRow, received_ms: TimeRange | None) -> bool:
    return received_ms is None or received_ms.first_ms <= row["received_at"] <= received_ms.last_ms
