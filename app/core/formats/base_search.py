"""Where the history of a trimmed log begins for a reader that has nothing yet (rule E5)."""

from typing import NamedTuple

from app.core.formats.step_history import Counted


class Candidate(NamedTuple):
    """A message that may turn out to be the base."""

    offset: int
    number: int
    predecessor: int
    message: bytes


class BaseSearch:
    """Finds the base: the first message that a later one names as predecessor.

    Only who counted a message names it, so a named message counted for everyone; what was before it has expired. Until
    one is named, the messages read are held back.
    """

    def __init__(self) -> None:
        self._held: dict[int, Candidate] = {}

    def offer(self, candidate: Candidate) -> list[Candidate]:
        """Take the next message of the log, in offset order.

        Returns: [] while no base is known; else the base and every message behind it, in order. The base counts
        unconditionally (`counted_before` is what its reader holds before it); the others go by rule E2.
        """
        self._held[candidate.offset] = candidate
        base = self._held.get(candidate.predecessor)
        if base is None or base.number + 1 != candidate.number:
            return []
        return [held for offset, held in sorted(self._held.items()) if offset >= base.offset]


def counted_before(base: Candidate) -> Counted:
    """The position at which `base` is the next message to count."""
    return Counted(base.number - 1, base.predecessor)
