"""Which messages on `rows` count: the one rule that recovery, standbys, owners and the sink share (rules E2, E5)."""

from enum import Enum
from typing import NamedTuple

import msgspec

from app.core.formats.step_message import NO_PREDECESSOR


class StepVerdict(Enum):
    """What a reader does with a message."""

    ACCEPT = "count"
    IGNORE = "ignore"
    GAP = "gap"
    """A number beyond the applied one + 1: the reader has lost part of the history; it ends and wipes its store."""


class Accepted(msgspec.Struct, frozen=True):
    """The last message that counted for a reader of one partition of `rows`."""

    number: int = 0
    offset: int = NO_PREDECESSOR

    def judge(self, number: int, predecessor: int) -> StepVerdict:
        """What to do with a message that carries `number` and names `predecessor` (rule E2).

        A message counts only if it is the next number and names the last counted message. Everything else with a number
        that is not beyond the next was written by somebody who did not know the history: it is ignored by everyone alike.
        """
        if number > self.number + 1:
            return StepVerdict.GAP
        if number == self.number + 1 and predecessor == self.offset:
            return StepVerdict.ACCEPT
        return StepVerdict.IGNORE

    def advance(self, offset: int) -> "Accepted":
        """The position after the message at `offset` counted."""
        return Accepted(self.number + 1, offset)


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
        unconditionally (`accepted_before` is what its reader holds before it); the others go by rule E2.
        """
        self._held[candidate.offset] = candidate
        base = self._held.get(candidate.predecessor)
        if base is None or base.number + 1 != candidate.number:
            return []
        return [held for offset, held in sorted(self._held.items()) if offset >= base.offset]


def accepted_before(base: Candidate) -> Accepted:
    """The position at which `base` is the next message to count."""
    return Accepted(base.number - 1, base.predecessor)
