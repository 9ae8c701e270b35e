"""Waiting for an upgrade: what a worker does where the next bytes are a newer version's (rule E10).

It stays alive and not ready, says in /ready, in its log and in a metric what it cannot read and which role to upgrade, and
takes, skips and acknowledges nothing there; everything else it goes on with. A start with newer code reads on from there.
"""

from typing import Final

import structlog
from prometheus_client import Gauge

from app.errors import NewerFormat

log = structlog.get_logger(__name__)

WAITING: Final = Gauge("instream_waits_for_upgrade", "Places where a newer format is next and the worker waits", ["place"])


def remedy(role: str, exc: NewerFormat) -> str:
    """What an operator is told: what cannot be read, where, and which role to upgrade."""
    return f"{exc}: upgrade the {role} first"


class UpgradeWaits:
    """Where a worker waits for its upgrade.

    Args:
        role: The worker's.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._places: dict[str, str] = {}

    def __contains__(self, place: object) -> bool:
        return place in self._places

    def begin(self, place: str, exc: NewerFormat) -> None:
        """Wait at a place; said once a place and reason."""
        text = remedy(self._role, exc)
        if self._places.get(place) != text:
            log.error("waits for an upgrade", place=place, reason=text, alarm=True)
        self._places[place] = text
        WAITING.labels(place).set(1)

    def end(self, place: str) -> None:
        """Wait there no longer; nothing where there was no wait."""
        if self._places.pop(place, None) is not None:
            WAITING.remove(place)

    def clear(self) -> None:
        """Wait nowhere: the partitions are gone."""
        for place in list(self._places):
            self.end(place)

    def reason(self) -> str | None:
        """What /ready answers: None where it waits nowhere."""
        return next(iter(self._places.values()), None)
