"""Messages on our topics that are not ours: readers pass them over, count them, and name their place (rules E2, E8)."""

from typing import Final

import structlog
from prometheus_client import Counter

log = structlog.get_logger(__name__)

FOREIGN: Final = Counter(
    "instream_foreign_messages_total", "Messages that are not of their topic's format: a reader passed them over", ["topic"]
)


def note_foreign(topic: str, partition: int, offset: int, reason: str) -> None:
    """Count a message that is passed over, and log an alarm that names its place and the remedy."""
    FOREIGN.labels(topic).inc()
    log.error(
        "foreign message passed over", topic=topic, partition=partition, offset=offset, reason=reason, alarm=True,
        remedy="find the program that writes to this topic, and take its right to write away; if a reader of rows "
        "stops on a gap behind it, it was a step: `instream repair-log`",
    )  # fmt: skip
