"""The outcome of a point."""

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one point."""

    point: str
    times: int
    """Planned number of deaths."""
    died: int
    recovery_s: float | None
    """Seconds from the last death to a ready worker; None if there was no death."""
    violations: int
    notes: tuple[str, ...] = ()
    """The faults, in words."""

    @property
    def is_good(self) -> bool:
        """Whether the worker died there as often as planned and came back, and nothing was violated."""
        return self.died == self.times and self.recovery_s is not None and not self.violations
