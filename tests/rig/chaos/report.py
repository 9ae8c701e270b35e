"""The faults of a run, and their result."""

import time
from collections import Counter

import msgspec

from tests.rig.invariants.violation import Violation


class Struck(msgspec.Struct, frozen=True):
    """A fault that was carried out."""

    at_s: float
    kind: str
    target: str
    what: str
    """The process, file or shard that it met."""


class Journal:
    """Every fault with its time and target, so that a violation can be understood."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self.struck: list[Struck] = []
        self.missed: list[Struck] = []
        """Planned faults without effect: no target was there."""

    def begin(self) -> None:
        """Count time from here."""
        self._start_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the faults began."""
        return time.monotonic() - self._start_s

    def note(self, kind: str, target: str, what: str) -> None:
        """A fault was carried out."""
        self.struck.append(Struck(round(self.elapsed_s, 2), kind, target, what))

    def miss(self, kind: str, target: str, why: str) -> None:
        """A fault could not be carried out."""
        self.missed.append(Struck(round(self.elapsed_s, 2), kind, target, why))

    def counts(self) -> dict[str, int]:
        """Kind -> how often it struck."""
        return dict(Counter(one.kind for one in self.struck))


class Report(msgspec.Struct, kw_only=True):
    """The answer of a run."""

    seed: int
    minutes: float
    faults: dict[str, int]
    """Kind -> how often it struck."""
    missed: dict[str, int] = {}
    lines: int = 0
    requests_retried: int = 0
    batches: int = 0
    transactions: int = 0
    restarts: dict[str, int] = {}
    settled_s: float = 0.0
    """Seconds from the end of the faults until nothing lagged and no batch was open."""
    took_s: float = 0.0
    violations: list[Violation] = []
    journal: list[Struck] = []
    """Every fault that the run carried out or tried to, in order of time."""
