"""The pause before a failed action is tried again: one rule for the whole pipeline.

Each place keeps its own figures and its own loop. The pause is often the answer of a decision (the next replay of a batch,
the next read of a shard, the next start of a process) and not a sleep around a call. The libraries for retries (tenacity,
stamina, backoff) bind the rule to such a call, and draw their jitter from the process's global random numbers, which a
simulation cannot repeat. This one formula is all that the pipeline needs of them.
"""

from math import inf
from typing import Final, NamedTuple

_MOST_DOUBLINGS: Final = 62
"""Far beyond every longest pause. It keeps the formula inside floating point after any number of failures."""


class Backoff(NamedTuple):
    """Pauses that double from `first_s` to `longest_s`."""

    first_s: float
    longest_s: float = inf

    def pause_s(self, failures: int, fraction: float = 1.0) -> float:
        """Seconds to wait after so many failures in a row; none before the first failure.

        Args:
            failures: number of failures in a row.
            fraction: 0 to 1. Spreads callers that failed together over the second half of the pause: 0 waits for half of
                it, 1 for all of it.
        """
        if failures < 1:
            return 0.0
        whole_s = min(self.first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest_s)
        return whole_s * (0.5 + fraction / 2)
