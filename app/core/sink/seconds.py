"""How many rows were received in which second, and how long page views waited for their second events."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import polars as pl

MOST_SECONDS: Final = 120
"""An output of more seconds than this counts by minutes: rows of an outage are spread over hours."""
_RECEIVED: Final = "received_at"


class EmittedPart(NamedTuple):
    """The rows of one step."""

    stream: bytes
    """Arrow IPC stream."""
    stream_time_ms: int
    """The step's stream time."""


def received_seconds(frame: pl.DataFrame) -> tuple[tuple[int, int], ...]:
    """(second since the epoch, number of rows received in it), ascending; empty for an output without that column."""
    if _RECEIVED not in frame.columns:
        return ()
    found = _counted(frame[_RECEIVED].drop_nulls() // 1000)
    return found if len(found) <= MOST_SECONDS else _counted(frame[_RECEIVED].drop_nulls() // 60_000 * 60 + 30)


def _counted(seconds: pl.Series) -> tuple[tuple[int, int], ...]:
    counts = seconds.value_counts().sort(seconds.name)
    return tuple((int(second), int(rows)) for second, rows in counts.iter_rows())


def join_waits(parts: Iterable[EmittedPart]) -> dict[int, int]:
    """Whole seconds of waiting -> rows, of page views: from their receipt to the stream time that closed them."""
    waits: Counter[int] = Counter()
    for part in parts:
        received = pl.read_ipc_stream(part.stream, columns=[_RECEIVED])[_RECEIVED].drop_nulls()
        for wait_s, rows in ((part.stream_time_ms - received) // 1000).value_counts().iter_rows():
            waits[max(0, int(wait_s))] += int(rows)
    return dict(waits)


def emitted_parts(streams: Sequence[bytes], stream_times_ms: Sequence[int]) -> list[EmittedPart]:
    """The rows of each step with its stream time."""
    return [EmittedPart(*each) for each in zip(streams, stream_times_ms, strict=True)]
