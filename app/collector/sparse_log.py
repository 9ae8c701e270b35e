"""One log line for many refusals: a hostile client must not fill the log, and no line holds what a client sent."""

from collections.abc import Callable
from typing import Final

import structlog

from app.collector.metrics import CLIENT_FAULTS

log = structlog.get_logger(__name__)

EVERY_S: Final = 10.0
"""A kind of fault is logged at most this often; the line says how many there were."""


class SparseLog:
    """Counts the faults of clients by kind. The kinds are names in the code, so there are few of them."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._unsaid: dict[str, int] = {}
        self._said_s: dict[str, float] = {}

    def note(self, kind: str, remedy: str) -> None:
        """Count a fault; log it, with those before it, unless a line of its kind was logged a moment ago."""
        CLIENT_FAULTS.labels(kind).inc()
        self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
        now_s = self._now_s()
        if now_s - self._said_s.get(kind, -EVERY_S) < EVERY_S:
            return
        self._said_s[kind] = now_s
        log.warning("clients are refused", kind=kind, count=self._unsaid.pop(kind), remedy=remedy)
