"""Once a day delivery deletes the rows of delivery_log that are older than RETENTION_LOG_DAYS (rule D6)."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

import structlog

from agents.delivery.load import LoadStopped, WarehouseLoad
from app.clock import Clock
from app.core.retention import DAY_MS
from app.settings import Settings

log = structlog.get_logger(__name__)

AGAIN_MS: Final = 3_600_000
"""Pause after a failure."""


class LogPruning:
    """Prunes at the first chance, then once a day. The owner of partition 0 does it for all partitions."""

    def __init__(self, load: WarehouseLoad, settings: Settings, clock: Clock) -> None:
        self._load = load
        self._kept_ms = settings.retention_log_days * DAY_MS
        self._clock = clock
        self._due_ms = 0

    async def when_due(self, partitions: Collection[int]) -> None:
        """Prune if it is due. A failure changes nothing and is logged: loads never wait for it."""
        now_ms = self._clock.now_ms()
        if not self._kept_ms or 0 not in partitions or now_ms < self._due_ms:
            return
        try:
            await self._load.prune_log(datetime.fromtimestamp((now_ms - self._kept_ms) / 1000, UTC).replace(tzinfo=None))
            self._due_ms = now_ms + DAY_MS
        except LoadStopped as stopped:
            log.warning("delivery_log is not pruned", reason=stopped.failure.reason, detail=stopped.failure.detail)
            self._due_ms = now_ms + AGAIN_MS
