"""Questions of a trace to the warehouse: the ledger's rows of a batch, and the rows that its lines became."""

from collections.abc import Sequence
from typing import Any, Final

from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import TimeRange, moment_ms, moment_of
from app.adapters.warehouse_questions import Questions
from app.core.audit.trace.facts import LoadedOutcome, RowFacts
from app.core.delivery.statements import table
from app.core.formats.flows import BY_NAME, PAGE_VIEWS

LINES_PER_QUERY: Final = 500


class WarehouseFates:
    """The real one."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._questions = Questions(url, login)

    async def outcomes(self, batch_id: str) -> list[LoadedOutcome]:
        """The ledger's rows of a batch."""
        rows = await self._questions.rows(
            f"SELECT txn_id, outcome, lines, line_set, loaded_at FROM {table('ledger')} WHERE batch_id = %s", [batch_id]
        )
        return [LoadedOutcome(txn, outcome, count, text, moment_ms(loaded)) for txn, outcome, count, text, loaded in rows]

    async def rows_of(self, flow: str, batch_id: str, lines: Sequence[int], received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of a flow that lines of a batch became."""
        found: list[RowFacts] = []
        for start in range(0, len(lines), LINES_PER_QUERY):
            some = lines[start : start + LINES_PER_QUERY]
            where = f"batch_id = %s AND line IN ({', '.join(['%s'] * len(some))})"
            found += await self._rows(flow, where, [batch_id, *some], received_ms)
        return found

    async def firsts_of(self, page_view_id: str, engagement_id: str, received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of page views that a second event joined."""
        where = "page_view_id = %s AND engagement_id = %s"
        return await self._rows(PAGE_VIEWS.name, where, [page_view_id, engagement_id], received_ms)

    async def refusal(self, txn_id: str) -> str | None:
        """The reason why a transaction is quarantined."""
        rows = await self._questions.rows(f"SELECT detail FROM {table('delivery_log')} WHERE txn_id = %s", [txn_id])
        return rows[0][0] if rows else None

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        await self._questions.close()

    async def _rows(self, flow: str, where: str, values: list[Any], received_ms: TimeRange | None) -> list[RowFacts]:
        """Rows by a condition; the time of receipt lets the warehouse skip most blocks of a table that is sorted by it."""
        names = [name for name in RowFacts._fields if name in BY_NAME[flow].names]
        if received_ms is not None:
            where += " AND received_at BETWEEN %s AND %s"
            values = [*values, *map(moment_of, received_ms)]
        columns = ", ".join(f'"{name}"' for name in names)
        rows = await self._questions.rows(f"SELECT {columns} FROM {table(flow)} WHERE {where}", values)
        return [RowFacts(**dict(zip(names, row, strict=True))) for row in rows]
