"""A broken promise, in words."""

from collections.abc import Iterable
from typing import Final

import msgspec

NAMED: Final = 10
"""Most things that one text names."""


class Violation(msgspec.Struct, frozen=True):
    """One violation of an invariant."""

    rule: str
    """I1 to I7."""
    text: str
    """The fault and its place."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def listed(names: Iterable[object]) -> str:
    """The number of texts, and the first of them."""
    texts = [str(name) for name in names]
    return f"{len(texts)} ({', '.join(texts[:NAMED])}{', ...' if len(texts) > NAMED else ''})"
