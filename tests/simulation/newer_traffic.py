"""Clients of the next version: they send its field and its type of event besides everything else, to whatever collector."""

import json
from typing import Any, Final

from tests.builders.source_log import CHROME
from tests.simulation.traffic import Traffic

FIELD: Final = "page_type"
"""A field of page views in the recipe "Add a field"."""
EVENT_TYPE: Final = "video_start"
"""The type of event in the recipe "Add a flow"."""
BUSY_S: Final = 80.0
"""About so long the way up takes."""


class NewerTraffic(Traffic):
    """An older collector keeps the field in `properties` and rejects the event."""

    def _gap_s(self, at_s: float) -> float:
        """The traffic is thinner than in other histories, for it lasts longer: until everything is back."""
        return super()._gap_s(at_s) * (2 if at_s < BUSY_S else 8)

    def _event(self, kind: str, at_s: float, **fields: Any) -> dict[str, Any]:
        event = super()._event(kind, at_s, **fields)
        if kind == "page_view" and self._chance.random() < 0.5:
            event[FIELD] = self._chance.choice(["story", "section", "home"])
            if self._chance.random() < 0.3:
                event["properties"] = {"own": 1}
        return event

    def _visit(self, at_s: float) -> list[tuple[float, bytes]]:
        said = super()._visit(at_s)
        if self._chance.random() < 0.4:
            event = self._event(EVENT_TYPE, at_s, page_view_id=f"v{self._ids}", video_id="film", user_agent=CHROME)
            self.refusable.add(event["event_id"])
            line = json.dumps(event).encode()
            said += [(at_s + 0.2, line)] * self._chance.choice([1] * 9 + [2])
        return said
