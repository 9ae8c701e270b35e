"""How many rows were received in which second, and how long page views waited for their second events."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np

from app.core.formats.flow_files import Moments

MOST_SECONDS: Final = 120
"""An output of more seconds than this counts by minutes: rows of an outage are spread over hours."""


def received_seconds(received_ms: Moments) -> tuple[tuple[int, int], ...]:
    """(second since the epoch, number of rows received in it), ascending."""
    found = _counted(received_ms // 1000)
    return found if len(found) <= MOST_SECONDS else _counted(received_ms // 60_000 * 60 + 30)


def _counted(numbers: Moments) -> tuple[tuple[int, int], ...]:
    found, counts = np.unique(numbers, return_counts=True)
    return tuple(zip(found.tolist(), counts.tolist(), strict=True))


def join_waits(received_ms: Iterable[Moments], stream_times_ms: Iterable[int]) -> dict[int, int]:
    """Whole seconds of waiting -> rows, of page views: from their receipt to the stream time that closed them.

    Args:
        received_ms: for each step, when the page views that it emits were received.
        stream_times_ms: the stream time of each of these steps.
    """
    waits: Counter[int] = Counter()
    for received, stream_time_ms in zip(received_ms, stream_times_ms, strict=True):
        waits.update(dict(_counted(np.maximum(0, (stream_time_ms - received) // 1000))))
    return dict(waits)
