"""The one rule by which recovery, standbys, owners and the sink accept messages of `rows` (rules E2, E5)."""

from enum import Enum
from typing import NamedTuple

import msgspec

from app.core.formats.step_message import NO_PREDECESSOR


class StepVerdict(Enum):
    """The action of a reader on a message."""

    ACCEPT = "count"
    IGNORE = "ignore"
    GAP = "gap"
    """A number beyond the applied one + 1: the reader has lost part of the history; it ends and wipes its store."""


class Accepted(msgspec.Struct, frozen=True):
    """The last message that a reader of one partition of `rows` accepted."""

    number: int = 0
    offset: int = NO_PREDECESSOR

    def judge(self, number: int, predecessor: int) -> StepVerdict:
        """The verdict on a message that carries `number` and names `predecessor` (rule E2).

        A message is accepted only if it has the next number and names the last accepted message. Any other message whose
        number is not beyond the next comes from a writer that did not know the history: all readers ignore it.
        """
        if number > self.number + 1:
            return StepVerdict.GAP
        if number == self.number + 1 and predecessor == self.offset:
            return StepVerdict.ACCEPT
        return StepVerdict.IGNORE

    def advance(self, offset: int) -> "Accepted":
        """The position after the message at `offset` is accepted."""
        return Accepted(self.number + 1, offset)


class Candidate(NamedTuple):
    """A message that may turn out to be the base."""

    offset: int
    number: int
    predecessor: int
    message: bytes


class BaseSearch:
    """Finds the base: the first message that a later one names as predecessor.

    A step names only a predecessor that its writer accepted, so every reader accepted a named message; the messages before
    it have expired. Until a message is named, all messages that were read are held back.
    """

    def __init__(self) -> None:
        self._held: dict[int, Candidate] = {}

    def offer(self, candidate: Candidate) -> list[Candidate]:
        """Take the next message of the log, in offset order.

        Returns: [] while no base is known; else the base and every message behind it, in order. The base is accepted
        unconditionally (`accepted_before` is the reader's position before it); the others follow rule E2.
        """
        self._held[candidate.offset] = candidate
        base = self._held.get(candidate.predecessor)
        if base is None or base.number + 1 != candidate.number:
            return []
        return [held for offset, held in sorted(self._held.items()) if offset >= base.offset]


def accepted_before(base: Candidate) -> Accepted:
    """The position at which `base` is the next message to accept."""
    return Accepted(base.number - 1, base.predecessor)
