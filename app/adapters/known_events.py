"""The events that the warehouse has, by their ids (port `KnownEvents`): for lines that a repair decides again."""

from collections.abc import Sequence
from typing import Any, Final

from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import moment_ms
from app.adapters.warehouse_questions import Questions
from app.core.delivery.statements import table
from app.core.formats.flows import FLOWS, PAGE_VIEWS

IDS_PER_QUERY: Final = 500


class WarehouseEvents:
    """The real one."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._questions = Questions(url, login)

    async def counted(self, event_ids: Sequence[str]) -> list[tuple[str, str | None]]:
        """(event id, page view id) of each event of these ids that counted."""
        found: list[tuple[str, str | None]] = []
        for flow in FLOWS:
            view = "page_view_id" if "page_view_id" in flow.names else "CAST(NULL AS VARCHAR)"
            found += await self._of(f"SELECT event_id, {view} FROM {table(flow.name)} WHERE event_id IN", event_ids)
        joined = f"SELECT engagement_id, page_view_id FROM {table(PAGE_VIEWS.name)} WHERE engagement_id IN"
        return [*found, *(await self._of(joined, event_ids))]

    async def first_events(self, page_view_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """(page view id, event id, received_at in ms) of each first event of these page views."""
        query = f"SELECT page_view_id, event_id, received_at FROM {table(PAGE_VIEWS.name)} WHERE page_view_id IN"
        return [(view, event, moment_ms(at)) for view, event, at in await self._of(query, page_view_ids)]

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        await self._questions.close()

    async def _of(self, query: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows of a query that ends in `IN`, for all ids."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), IDS_PER_QUERY):
            some = ids[start : start + IDS_PER_QUERY]
            rows += await self._questions.rows(f"{query} ({', '.join(['%s'] * len(some))})", some)
        return rows
