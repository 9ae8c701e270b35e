"""The answer of a deep audit, and what it is asked."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.core.audit.differences import Difference

Show = Callable[[int, int, str], None]
"""Shows progress: checks that are done, all of them, and what is looked at."""
NAMED: Final = 20
"""The answer names at most so many raw files that were never registered."""


class Span(msgspec.Struct, frozen=True):
    """A span of time: since <= moment < until. It chooses batches by the time in their id, transactions by their commit."""

    since_ms: int = 0
    until_ms: int = 2**62

    def __contains__(self, moment_ms: int) -> bool:
        return self.since_ms <= moment_ms < self.until_ms

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Span()


class DeepReport(msgspec.Struct, kw_only=True):
    """Everything that a deep audit found. Counts are of what was looked at."""

    differences: list[Difference] = []
    batches: int = 0
    raw_files: int = 0
    transactions: int = 0
    files: int = 0
    rows: int = 0
    """Rows of data files, each compared with the warehouse column by column."""
    steps: int = 0
    """Messages of topic `rows`."""
    late_batches: int = 0
    """Batches with lines that are still on their way: no difference."""
    late_transactions: int = 0
    """Transactions that are committed and not loaded yet: no difference."""
    foreign_messages: int = 0
    """Dead letters that were no block of any batch: nothing to mend."""
    unregistered: list[str] = []
    """Raw files of batches that were never acknowledged: the collector ended between its first two steps. At most 20."""
    unchecked: list[str] = []
    """What could not be looked at, with the reason."""

    @property
    def is_clean(self) -> bool:
        """Whether everything was looked at, and nothing differs."""
        return not self.differences and not self.unchecked

    def note(self, differences: Iterable[Difference]) -> None:
        """Add differences."""
        self.differences.extend(differences)

    def skip(self, what: str) -> None:
        """Note what could not be looked at, once."""
        if what not in self.unchecked:
            self.unchecked.append(what)
