"""What goes wrong in one history: drawn from its seed, so that each history has its own mix and can be played again."""

import random
from collections import Counter
from enum import StrEnum
from typing import Final

ROLES: Final = ("collector", "bridge", "etl", "sink", "delivery", "audit")


class Fault(StrEnum):
    """Kinds of faults. Those of calls have a chance at each call; the others come at moments."""

    FAILS = "call fails"
    LOST = "answer lost after success"
    LATE = "happens after the caller gave up"
    REPEATED = "call happens twice"
    SLOW = "slow answer"
    THROTTLED = "kinesis throttles"
    UNREADABLE = "block reaches kinesis in a state that nobody can read"
    PARTIAL = "put records fails in part"
    EXPIRED = "shard iterator expires"
    SKIPPED = "fetched messages dropped"
    AGAIN = "fetched messages come again"
    CRASH = "crash"
    TERM = "orderly stop"
    ZOMBIE = "stopped past the session timeout, then woken"
    MOVED = "worker added or removed"
    SPLIT = "shard split"
    MERGED = "shards merged"
    SKEW = "clock skewed"
    AHEAD = "collector's clock far ahead"
    STORE_LOST = "store deleted"
    STORE_BACK = "store rolled back"
    BROKER = "broker away"
    WAREHOUSE = "warehouse refuses"
    DROPPED = "warehouse connection dropped"
    REPLAY = "batch sent again although nothing is missing"
    TRIMMED = "source trimmed before it was read"


PER_CALL: Final = (Fault.FAILS, Fault.LOST, Fault.LATE, Fault.REPEATED, Fault.SLOW, Fault.THROTTLED, Fault.PARTIAL,
                   Fault.UNREADABLE, Fault.EXPIRED, Fault.SKIPPED, Fault.AGAIN, Fault.WAREHOUSE, Fault.DROPPED)  # fmt: skip
AT_MOMENTS: Final = (Fault.CRASH, Fault.TERM, Fault.ZOMBIE, Fault.MOVED, Fault.SPLIT, Fault.MERGED, Fault.STORE_LOST,
                     Fault.STORE_BACK, Fault.BROKER, Fault.REPLAY, Fault.TRIMMED)  # fmt: skip


class Faults:
    """One history's chances, and a count of what really happened."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"faults-{seed}")
        calm = self.chance.random() < 0.03
        self.rates: dict[Fault, float] = {}
        for fault in PER_CALL:
            on = not calm and self.chance.random() < 0.5
            self.rates[fault] = self.chance.choice([0.003, 0.01, 0.03, 0.08]) if on else 0.0
        self.moments: dict[Fault, float] = {}
        """Kind -> mean seconds between two."""
        for fault in AT_MOMENTS:
            on = not calm and self.chance.random() < 0.5
            if on:
                self.moments[fault] = self.chance.choice([4.0, 10.0, 25.0])
        self.skewed = not calm and self.chance.random() < 0.5
        self.on = True
        self.counts: Counter[str] = Counter()

    def happens(self, fault: Fault) -> bool:
        """Whether this fault hits the call at hand."""
        rate = self.rates[fault]
        return self.on and rate > 0 and self.chance.random() < rate

    def note(self, fault: Fault, role: str = "") -> None:
        """Count a fault that happened."""
        self.counts[fault.value] += 1
        if role:
            self.counts[f"{fault.value}: {role}"] += 1
