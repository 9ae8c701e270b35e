"""A broken promise, in words."""

from collections.abc import Iterable
from typing import Final

import msgspec

NAMED: Final = 10
"""Most things that one text names."""


class Violation(msgspec.Struct, frozen=True):
    """One thing that is not as it must be."""

    rule: str
    """I1 to I7."""
    text: str
    """What is wrong, and where."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def listed(names: Iterable[object]) -> str:
    """How many there are, and the first of them."""
    texts = [str(name) for name in names]
    return f"{len(texts)} ({', '.join(texts[:NAMED])}{', ...' if len(texts) > NAMED else ''})"
