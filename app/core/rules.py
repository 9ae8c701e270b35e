"""The rules of the ETL that an operator sets, and the bounds that follow from them."""

from typing import Final, NamedTuple

import msgspec

from app.core.formats.dead_letter import DeadLetterLimit

STEP_BYTES: Final = 3 * 1024 * 1024


class JoinRules(NamedTuple):
    """The bounds of the join in milliseconds (rules J2, J3)."""

    window_ms: int
    grace_ms: int
    reorder_ms: int

    @property
    def upper_ms(self) -> int:
        """A second event joins if it is received at most so long after its first event; then the first event closes."""
        return self.window_ms + self.grace_ms

    @property
    def lower_ms(self) -> int:
        """A second event joins if it is received at most so long before its first event; after that an unmet one closes."""
        return self.reorder_ms

    @property
    def settle_ms(self) -> int:
        """Every event has its outcome when stream time is so far past its receipt."""
        return self.upper_ms + self.lower_ms


class EtlRules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an operator sets and that decides in the ETL."""

    epoch: int
    partitions: int
    join: JoinRules
    dedup_window_ms: int
    message_bytes: int
    """Largest step message."""
    step_bytes: int = STEP_BYTES
    """A step takes blocks until they have this many raw bytes."""
    dead_letters: DeadLetterLimit = DeadLetterLimit()
    kernels: bool = False
    """Whether steps are decided on cells by kernels, or on the plain path; both make the same steps."""
