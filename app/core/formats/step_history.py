"""Which messages on `rows` count: the one rule that recovery, standbys, owners and the sink share (rule E2)."""

from enum import Enum

import msgspec

from app.core.formats.step_message import NO_PREDECESSOR


class Verdict(Enum):
    """What a reader does with a message."""

    COUNT = "count"
    IGNORE = "ignore"
    GAP = "gap"
    """A number beyond the applied one + 1: the reader has lost part of the history; it ends and wipes its store."""


class Counted(msgspec.Struct, frozen=True):
    """The last message that counted for a reader of one partition of `rows`."""

    number: int = 0
    offset: int = NO_PREDECESSOR

    def judge(self, number: int, predecessor: int) -> Verdict:
        """What to do with a message that carries `number` and names `predecessor` (rule E2).

        A message counts only if it is the next number and names the last counted message. Everything else with a number
        that is not beyond the next was written by somebody who did not know the history: it is ignored by everyone alike.
        """
        if number > self.number + 1:
            return Verdict.GAP
        if number == self.number + 1 and predecessor == self.offset:
            return Verdict.COUNT
        return Verdict.IGNORE

    def advance(self, offset: int) -> "Counted":
        """The position after the message at `offset` counted."""
        return Counted(self.number + 1, offset)
