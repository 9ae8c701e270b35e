"""The raw files of a rebuild: a span of time, and the margins that its rows need.

A batch belongs to the hour of its id, as its raw file does, so the batches of a span lie between two ids. Rows of the span
also depend on its neighbours. A second event joins a first event of up to `settle_ms` before, and a line is a duplicate of
one that came up to the dedup window before. So the files of a margin before and behind the span are read too, and their rows
are left out.
"""

import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import hour_path
from app.core.rules import JoinRules

HOUR_MS: Final = 3_600_000
MADE_WITHIN_MS: Final = 5 * 60_000
"""The id of a batch is made so long after the receipt of its first line at most: linger, and a slow PUT."""


class BatchSpan(NamedTuple):
    """The batches whose id was made at `since_ms` or later, and before `until_ms`."""

    since_ms: int
    until_ms: int

    @property
    def first_id(self) -> str:
        """No batch of the span has a lower id."""
        return lowest_id(self.since_ms)

    @property
    def end_id(self) -> str:
        """Every batch of the span has a lower id."""
        return lowest_id(self.until_ms)

    def has(self, batch_id: str) -> bool:
        """Whether the batch belongs to the span."""
        return self.since_ms <= batch_time_ms(batch_id) < self.until_ms

    def widened(self, join: JoinRules, look_back_ms: int) -> "BatchSpan":
        """The span with its margins: `look_back_ms` before, at least the time of a join, and the time of a join behind."""
        settle_ms = join.settle_ms + MADE_WITHIN_MS
        return BatchSpan(max(0, self.since_ms - max(settle_ms, look_back_ms)), self.until_ms + settle_ms)

    def hours(self) -> Iterator[str]:
        """`dt=YYYY-MM-DD/hour=HH` of each hour that the span touches, in order."""
        for hour in range(self.since_ms // HOUR_MS, -(-self.until_ms // HOUR_MS)):
            yield hour_path(hour * HOUR_MS)


def lowest_id(moment_ms: int) -> str:
    """A text that sorts behind the id of every batch made before a moment, and before all others."""
    return str(uuid.UUID(int=moment_ms << 80))
