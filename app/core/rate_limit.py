"""Limits a rate for each of many names, in bounded memory: keys and addresses of clients.

A name holds one number: the time at which everything that it has sent would have been sent at its rate (GCRA, ATM Forum TM
4.0). A request is taken while that time is at most the burst ahead of now.
"""

from collections import OrderedDict
from typing import Final

BURST_S: Final = 2.0
"""A name that was silent may send as many requests at once as in this time; at least one."""
MOST_NAMES: Final = 100_000
_ROUNDING_S: Final = 1e-6


class RateLimit:
    """At most `rate` a second for each name, with a burst.

    Beyond `most_names` the name that asked longest ago is forgotten, and begins anew with a whole burst. So memory is
    bounded, and a client with so many addresses is not limited.
    """

    def __init__(self, rate: float, most_names: int = MOST_NAMES) -> None:
        self._interval_s = 1 / rate
        self._ahead_s = max(BURST_S - self._interval_s, 0.0)
        self._most_names = most_names
        self._due_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due_s)

    def wait_s(self, name: str, now_s: float) -> float:
        """Take a request of `name`: 0, or the seconds after which it may come again (then it was not taken)."""
        due_s = max(self._due_s.get(name, now_s), now_s)
        early_s = due_s - now_s - self._ahead_s
        if early_s > _ROUNDING_S:
            self._due_s.move_to_end(name)
            return early_s
        self._due_s[name] = due_s + self._interval_s
        self._due_s.move_to_end(name)
        if len(self._due_s) > self._most_names:
            self._due_s.popitem(last=False)
        return 0.0
