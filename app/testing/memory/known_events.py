"""The events of a warehouse in memory, by their ids."""

from collections.abc import Sequence

from app.core.formats.flows import FLOWS, PAGE_VIEWS
from app.testing.memory.hooks import Hooked
from app.testing.memory.warehouse import MemoryWarehouse


class MemoryKnownEvents(Hooked):
    """`KnownEvents` over the committed rows of a MemoryWarehouse."""

    def __init__(self, warehouse: MemoryWarehouse) -> None:
        self._warehouse = warehouse

    async def counted(self, event_ids: Sequence[str]) -> list[tuple[str, str | None]]:
        """(event id, page view id) of each event of these ids that counted."""
        await self._enter("counted")
        rows = [row for flow in FLOWS for row in self._warehouse.rows(flow.name)]
        found = [(row["event_id"], row.get("page_view_id")) for row in rows if row["event_id"] in event_ids]
        views = self._warehouse.rows(PAGE_VIEWS.name)
        found += [(row["engagement_id"], row["page_view_id"]) for row in views if row["engagement_id"] in event_ids]
        await self._leave("counted")
        return found

    async def first_events(self, page_view_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """(page view id, event id, received_at in ms) of each first event of these page views."""
        await self._enter("first_events")
        views = [row for row in self._warehouse.rows(PAGE_VIEWS.name) if row["page_view_id"] in page_view_ids]
        await self._leave("first_events")
        return [(row["page_view_id"], row["event_id"], row["received_at"]) for row in views]
