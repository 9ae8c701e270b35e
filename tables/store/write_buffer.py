"""What a store has taken from the log and not written yet, while nobody looks into it."""

from collections.abc import Iterable
from typing import Final

from app.core.formats.step_message import Changes
from app.core.state.tables import EXPIRING
from tables.store.entries import TAGS, last_changes

GATHERED_BYTES: Final = 8 * 1024 * 1024
"""Of changes to what expires that are written together: those of some 150,000 ids."""
GATHERED_STEPS: Final = 64
"""Steps likewise: what a process that dies leaves to be read from `rows` once more."""


class Gathered:
    """Changes of steps that count, in their order.

    Args:
        most_bytes: Of changes to what expires; with more they are to be written.
    """

    def __init__(self, most_bytes: int = GATHERED_BYTES) -> None:
        self._most_bytes = most_bytes
        self.steps = 0
        self.expiring: list[Changes] = []
        """Changes to tables that expire."""
        self.window: dict[bytes, bytes | None] = {}
        """What the steps together leave of the other tables: tagged key -> value, None for one that is deleted."""
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether it is time to write them."""
        return self.steps >= GATHERED_STEPS or self._bytes >= self._most_bytes

    def clear(self) -> None:
        """Forget them: they are written."""
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
