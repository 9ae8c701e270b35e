"""Waiting for an upgrade: the behaviour of a worker when the next bytes are a newer version's (rule E10).

The worker stays alive and not ready. It shows in /ready, in its log and in a metric what it cannot read and which role to
upgrade. It takes, skips and acknowledges nothing at that place; all its other work goes on. A start with newer code reads on
from there.
"""

from typing import Final

import structlog
from prometheus_client import Gauge

from app.errors import NewerFormat

log = structlog.get_logger(__name__)

WAITING: Final = Gauge("instream_waits_for_upgrade", "Places where a newer format is next and the worker waits", ["place"])


def remedy(role: str, exc: NewerFormat) -> str:
    """The text for an operator: the unreadable thing, its place, and the role to upgrade."""
    return f"{exc}: upgrade the {role} first"


class UpgradeWaits:
    """The places where a worker waits for its upgrade.

    Args:
        role: The worker's.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._places: dict[str, str] = {}

    def __contains__(self, place: object) -> bool:
        return place in self._places

    def begin(self, place: str, exc: NewerFormat) -> None:
        """Wait at a place; logged once a place and reason."""
        text = remedy(self._role, exc)
        if self._places.get(place) != text:
            log.error("waits for an upgrade", place=place, reason=text, alarm=True)
        self._places[place] = text
        WAITING.labels(place).set(1)

    def end(self, place: str) -> None:
        """End the wait at a place; no effect if there was no wait."""
        if self._places.pop(place, None) is not None:
            WAITING.remove(place)

    def clear(self) -> None:
        """Wait nowhere: the partitions are gone."""
        for place in list(self._places):
            self.end(place)

    def reason(self) -> str | None:
        """The answer of /ready: None if it waits nowhere."""
        return next(iter(self._places.values()), None)
