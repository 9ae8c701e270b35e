"""Whether S3 and the registry take batches, as their last answers say: /ready and the answers 503 name the reason."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from app.collector.metrics import STORAGE_FAULT
from app.errors import OutsideError

log = structlog.get_logger(__name__)

ANSWER_S: Final = 5.0
"""A call without an answer for so long is a fault."""
FORGET_S: Final = 30.0
"""A failed write is a fault for so long. A load balancer sends no requests to a collector that is not ready, so no write can
show that storage is back; the next request after this time finds out."""
PROBE_INTERVAL_S: Final = 5.0
PROBE_ID: Final = "ready-probe"
"""No batch has this id: the registry answers that it has none."""
NAMES: Final = {"s3": "the object store", "registry": "the registry", "": "the collector"}

_Operation = tuple[str, str]


class StorageHealth:
    """The last outcome of each operation of each service."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._asked_s: dict[_Operation, float] = {}
        self._failed: dict[_Operation, tuple[float, str]] = {}

    def asks(self, service: str, operation: str) -> None:
        """A call begins."""
        self._asked_s.setdefault((service, operation), self._now_s())

    def succeeded(self, service: str, operation: str) -> None:
        """The service did it; a write that succeeds also makes up for reads that fail."""
        for known in [*self._failed]:
            if known[0] == service and (known[1] == operation or operation == "write"):
                del self._failed[known]
        self._asked_s.pop((service, operation), None)

    def failed(self, service: str, operation: str, kind: str) -> None:
        """The service refused, failed, or did not answer."""
        self._asked_s.pop((service, operation), None)
        self._failed[service, operation] = (self._now_s(), kind)

    def gives_up(self, service: str) -> str:
        """A write is given up after its time: note it as failed; the last failure, or that there was no answer."""
        known = self._failed.get((service, "write"))
        waits_s = self._now_s() - self._asked_s.get((service, "write"), self._now_s())
        kind = known[1] if known is not None and waits_s < ANSWER_S else "no answer in time"
        self.failed(service, "write", kind)
        return kind

    def fault(self) -> str | None:
        """The service that takes no batches, and its last word; None if all is well."""
        now_s = self._now_s()
        found: str | None = None
        for (service, operation), (at_s, kind) in self._failed.items():
            if now_s - at_s < FORGET_S:
                found = found or f"{NAMES[service]} fails to {operation}: {kind}"
        for (service, operation), at_s in self._asked_s.items():
            if now_s - at_s >= ANSWER_S:
                found = found or f"{NAMES[service]} does not answer a {operation} for {now_s - at_s:.0f} s"
        STORAGE_FAULT.set(found is not None)
        return found


async def probe(health: StorageHealth, service: str, read: Callable[[], Awaitable[object]]) -> None:
    """Read from a service for ever, so that a fault is seen without any request."""
    while True:
        health.asks(service, "read")
        try:
            await read()
        except OutsideError as exc:
            health.failed(service, "read", exc.kind)
            log.warning("storage fails", service=service, error=str(exc))
        except Exception as exc:  # the loop must go on: without it a fault would stay for ever
            health.failed(service, "read", type(exc).__name__)
            log.exception("storage was not read", service=service)
        else:
            health.succeeded(service, "read")
        await asyncio.sleep(PROBE_INTERVAL_S)
