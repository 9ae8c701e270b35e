"""What came of a point."""

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """What came of one point."""

    point: str
    times: int
    """How often the worker was to die there."""
    died: int
    recovery_s: float | None
    """From the last death to a worker that is ready again; None where there was none."""
    violations: int
    notes: tuple[str, ...] = ()
    """What was wrong, in words."""

    @property
    def is_good(self) -> bool:
        """Whether the worker died there as often as it was to, came back, and nothing was violated."""
        return self.died == self.times and self.recovery_s is not None and not self.violations
