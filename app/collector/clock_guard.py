"""Compares this machine's clock with S3's: received_at and batch ids must be right, or time-based rules fail."""

import asyncio
from typing import Final

import structlog

from app.adapters.ports import ObjectStore
from app.collector.metrics import CLOCK_SKEW_S
from app.collector.storage_health import StorageHealth
from app.errors import OutsideError, RequestRejected

log = structlog.get_logger(__name__)

PROBE_KEY: Final = "raw/clock-probe"
"""The object need not exist: any answer carries a Date header."""
MEASURE_INTERVAL_S: Final = 5.0


class ClockGuard:
    """Decides from the store's last answer whether requests may be taken."""

    def __init__(self, store: ObjectStore, max_skew_s: float, health: StorageHealth) -> None:
        self.health = health
        self._store = store
        self._max_skew_s = max_skew_s

    def fault(self) -> str | None:
        """The reason why no request may be taken, or None."""
        skew_ms = self._store.clock_skew_ms
        if skew_ms is None:
            return None
        CLOCK_SKEW_S.set(skew_ms / 1000)
        if abs(skew_ms) <= self._max_skew_s * 1000:
            return None
        return f"this collector's clock is {skew_ms / 1000:+.1f} s off the object store's; at most {self._max_skew_s:g} s"

    def check(self) -> None:
        """Check that the clock is right.

        Raises:
            RequestRejected: 503, the clock is wrong.
        """
        if (fault := self.fault()) is not None:
            raise RequestRejected(503, "clock_skew", fault, retry_after_s=int(MEASURE_INTERVAL_S))

    async def measure(self) -> None:
        """Ask the store for anything, so that its Date header is seen, and note its answer."""
        self.health.asks("s3", "read")
        try:
            await self._store.head(PROBE_KEY)
        except OutsideError as exc:
            self.health.failed("s3", "read", exc.kind)
            log.warning("clock not measured", error=str(exc))
        else:
            self.health.succeeded("s3", "read")

    async def watch(self) -> None:
        """Measure again and again, so that no answer, good or bad, is used for too long."""
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_INTERVAL_S)
