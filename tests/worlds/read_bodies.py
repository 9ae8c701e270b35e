"""A request's lines as the plain path and the kernels read them, so that tests can compare the two."""

from typing import Any

from app.collector.budget import MemoryBudget
from app.collector.requests import BodyLimits, RequestBody, read_lines
from app.core.events.client_lines import LineReader
from app.errors import RequestRejected

LIMITS = BodyLimits(16 * 1024**2, 10_000)


def outcome(sent: RequestBody, reader: LineReader | None, limits: BodyLimits = LIMITS) -> tuple[Any, ...]:
    """All that is kept of a request and answered to it: its lines, or its refusal."""
    with MemoryBudget(1 << 40).reserve() as held:
        try:
            packed = read_lines(sent, held, limits, reader=reader)
        except RequestRejected as exc:
            return exc.status, exc.code, exc.detail
    lines = bytes(packed.text), packed.sizes.tolist(), packed.crcs.tolist()
    return *lines, packed.received_at_ms, packed.malformed, packed.reasons
