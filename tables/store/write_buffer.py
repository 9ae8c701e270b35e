"""The steps that a store has taken and not written yet: they are in the log, behind the position that is on disk."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from app.core.formats.step_message import Changes
from app.core.state.tables import EXPIRING
from tables.store.entries import TAGS, last_changes
from tables.store.young import Young

GATHERED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of changes that are written together: those of some 150,000 ids, and of the frames that are open meanwhile."""
GATHERED_STEPS: Final = 64
"""Steps that are written together. If the process dies, so many at most are read from `rows` once more."""
DIGESTS: Final = frozenset({"seen", "views"})
"""Expiring tables whose keys are digests."""


class Gathered:
    """Changes of steps that count, in their order.

    Args:
        most_bytes: Bytes of changes with which it is time to write; asked after every step.
    """

    def __init__(self, most_bytes: Callable[[], int]) -> None:
        self._most_bytes = most_bytes
        self.steps = 0
        """Steps, and messages that were passed over."""
        self.expiring: list[Changes] = []
        """Changes to tables that expire."""
        self.window: dict[bytes, bytes | None] = {}
        """The other tables after all of these steps: tagged key -> value, None for a deleted key."""
        self._young = {table: Young() for table in sorted(DIGESTS)}
        self._others: dict[bytes, bytes] = {}
        """Tagged key -> value of the expiring tables that have no digests."""
        self._bytes = 0
        self._deletes = False

    @property
    def full(self) -> bool:
        """Whether it is time to write the steps: they are many, or an entry that expires is deleted, which no ETL does."""
        return self._deletes or self.steps >= GATHERED_STEPS or self._bytes >= self._most_bytes()

    def clear(self) -> None:
        """Forget the steps, which are written."""
        self.steps = self._bytes = 0
        self._deletes = False
        self.expiring, self.window, self._others = [], {}, {}
        for young in self._young.values():
            young.clear()

    def take(self, changes: Iterable[Changes]) -> None:
        """Add the changes of the next step.

        Raises:
            KeyError: there is no such table; nothing was added.
        """
        expiring = [change for change in changes if TAGS[change.table] and change.table in EXPIRING]
        self._take_window(last_changes(change for change in changes if change.table not in EXPIRING))
        for change in expiring:
            self._take_expiring(msgspec.structs.replace(change))  # without the objects that a step keeps of its columns
        self.steps += 1

    def pass_over(self) -> None:
        """Add a message that changes nothing."""
        self.steps += 1

    def newest(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key of an expiring table without digests, as far as these steps put it."""
        return [self._others.get(TAGS[table] + key) for key in keys]

    def newest_of(self, table: str, digests: npt.NDArray[np.uint64]) -> list[bytes | None]:
        """The value of each digest, uint64[n, 2], of a table of digests, as far as these steps put it."""
        return self._young[table].find(digests)

    def _take_window(self, last: dict[bytes, bytes | None]) -> None:
        for key, value in last.items():
            self._bytes += len(value or b"") - len(self.window.get(key) or b"")
            self.window[key] = value

    def _take_expiring(self, change: Changes) -> None:
        self.expiring.append(change)
        self._bytes += change.size_bytes
        self._deletes |= bool(change.deletes)
        if change.table in DIGESTS:
            self._young[change.table].put(change)
        else:
            self._others.update((TAGS[change.table] + key, value) for key, value in change.puts())
