"""Generations: column families of entries that expire by stored time; each is dropped whole (rule E7).

Generation n holds the entries stored in [n * span, (n + 1) * span) ms. The span is half the dedup window, so some three
generations are alive at a time. The stored time alone decides whether an entry counts; a drop only frees space.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

_PREFIX: Final = "generation-"


class Generations(NamedTuple):
    """The arithmetic of generations for one dedup window (milliseconds)."""

    window_ms: int

    @property
    def span_ms(self) -> int:
        """The stretch of stored times that one generation holds."""
        return max(1, self.window_ms // 2)

    def of(self, stored_ms: int) -> int:
        """The generation of an entry stored at `stored_ms`."""
        return stored_ms // self.span_ms

    def times_of(self, generation: int) -> tuple[int, int]:
        """The first stored time of a generation, and the one behind its last."""
        return generation * self.span_ms, (generation + 1) * self.span_ms

    def expired(self, alive: Iterable[int], stream_time_ms: int) -> list[int]:
        """The generations of `alive` whose youngest possible entry has expired at `stream_time_ms`, oldest first."""
        return sorted(n for n in alive if (n + 1) * self.span_ms - 1 + self.window_ms < stream_time_ms)


def family_name(generation: int) -> str:
    """The column family of a generation."""
    return f"{_PREFIX}{generation}"


def generation_of(family: str) -> int | None:
    """The generation that a column family holds; None for another kind of family."""
    return int(family.removeprefix(_PREFIX)) if family.startswith(_PREFIX) else None
