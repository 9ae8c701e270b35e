"""The bound on the bytes of events that this process holds."""

import threading
from typing import Self

from app.collector.metrics import BUFFERED_BYTES
from app.errors import RequestRejected

RETRY_AFTER_S = 2


class MemoryBudget:
    """Bytes waiting or in flight; no request makes them grow past the limit. Safe to use from threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def reserve(self) -> "Reservation":
        """An empty reservation, to be grown as bytes arrive."""
        return Reservation(self)

    def change(self, by_bytes: int, *, is_bounded: bool = True) -> None:
        """Take bytes, or give them back (negative).

        Raises:
            RequestRejected: 503, the limit would be passed (only if `is_bounded`).
        """
        with self._lock:
            if is_bounded and by_bytes > 0 and self.used_bytes + by_bytes > self.limit_bytes:
                raise RequestRejected(503, "overloaded", "this collector holds as much as it may", RETRY_AFTER_S)
            self.used_bytes += by_bytes
            BUFFERED_BYTES.set(self.used_bytes)


class Reservation:
    """One holder's share of the budget; given back when released, or at the end of its `with`."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    def grow(self, by_bytes: int) -> None:
        """Hold more.

        Raises:
            RequestRejected: 503, there is no room.
        """
        self._budget.change(by_bytes)
        self.held_bytes += by_bytes

    def become(self, held_bytes: int) -> None:
        """Hold exactly this much. Bytes that are needed to finish may pass the limit; then new requests are held back."""
        self._budget.change(held_bytes - self.held_bytes, is_bounded=False)
        self.held_bytes = held_bytes

    def hand_over(self) -> "Reservation":
        """Move the share to a new owner; this one holds nothing any more."""
        other = Reservation(self._budget)
        other.held_bytes, self.held_bytes = self.held_bytes, 0
        return other

    def release(self) -> None:
        """Give everything back; a second call changes nothing."""
        self.become(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
