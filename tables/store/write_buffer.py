"""The steps that a store has taken from the log and not written yet, while no step looks anything up in it."""

from collections.abc import Iterable
from typing import Final

from app.core.formats.step_message import Changes
from app.core.state.tables import EXPIRING
from tables.store.entries import TAGS, last_changes

GATHERED_BYTES: Final = 8 * 1024 * 1024
"""Bytes of changes to expiring tables that are written together: the changes of some 150,000 ids."""
GATHERED_STEPS: Final = 64
"""Steps that are written together. If the process dies, so many at most are read from `rows` once more."""


class Gathered:
    """Changes of steps that count, in their order.

    Args:
        most_bytes: Bytes of changes to expiring tables; with more it is time to write.
    """

    def __init__(self, most_bytes: int = GATHERED_BYTES) -> None:
        self._most_bytes = most_bytes
        self.steps = 0
        self.expiring: list[Changes] = []
        """Changes to tables that expire."""
        self.window: dict[bytes, bytes | None] = {}
        """The other tables after all of these steps: tagged key -> value, None for a deleted key."""
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time to write the steps."""
        return self.steps >= GATHERED_STEPS or self._bytes >= self._most_bytes

    def clear(self) -> None:
        """Forget the steps, which are written."""
        self.steps = self._bytes = 0
        self.expiring, self.window = [], {}

    def take(self, changes: Iterable[Changes]) -> None:
        """Add the changes of the next step.

        Raises:
            KeyError: there is no such table; nothing was added.
        """
        expiring = [change for change in changes if TAGS[change.table] and change.table in EXPIRING]
        self.window |= last_changes(change for change in changes if change.table not in EXPIRING)
        self.expiring += expiring
        self.steps += 1
        self._bytes += sum(change.size_bytes for change in expiring)
