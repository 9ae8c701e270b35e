"""How long to wait before something that failed is tried again: one rule for the whole pipeline.

Each place keeps its own figures and its own loop, for the pause is as often the answer of a decision (when a batch may be
replayed, when a shard is read again, when a process starts again) as it is a sleep around a call. The libraries for retries
(tenacity, stamina, backoff) bind the rule to such a call and draw their jitter from the process's global chance, which a
simulation cannot repeat; what is left of them here is this one formula.
"""

from math import inf
from typing import Final, NamedTuple

_MOST_DOUBLINGS: Final = 62
"""Far beyond every longest pause; keeps the formula inside floating point, however often something failed."""


class Backoff(NamedTuple):
    """Pauses that double from `first_s` to `longest_s`."""

    first_s: float
    longest_s: float = inf

    def pause_s(self, failures: int, fraction: float = 1.0) -> float:
        """Seconds to wait after so many failures in a row; none before the first failure.

        Args:
            failures: how many there were in a row.
            fraction: 0 to 1. Spreads callers that failed together over the second half of the pause: 0 waits for half of
                it, 1 for all of it.
        """
        if failures < 1:
            return 0.0
        whole_s = min(self.first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest_s)
        return whole_s * (0.5 + fraction / 2)
