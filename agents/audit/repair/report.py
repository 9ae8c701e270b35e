"""The answer of a repair."""

import msgspec

from app.core.audit.differences import Difference
from app.core.repair.plan import Action


class MendedDifference(Difference, frozen=True, kw_only=True):
    """A difference, with its mend."""

    action: Action
    done: bool = False
    """Whether the mend is done, and the deep audit does not find the difference any more."""
    reason: str = ""
    """Why it is not done, after --apply."""


class RepairReport(msgspec.Struct, kw_only=True):
    """The differences that the deep audit found, and their mends."""

    applied: bool
    differences: list[MendedDifference] = []
    left: list[Difference] = []
    """After --apply: the differences that the deep audit finds now."""
    unchecked: list[str] = []
    """What could not be looked at, with the reason."""

    @property
    def is_mended(self) -> bool:
        """Whether nothing is left to do."""
        return all(each.done for each in self.differences) and not self.left and not self.unchecked


def mended(difference: Difference, action: Action, *, done: bool = False, reason: str = "") -> MendedDifference:
    """The difference with its mend."""
    return MendedDifference(**msgspec.structs.asdict(difference), action=action, done=done, reason=reason)
