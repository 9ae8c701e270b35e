"""The state of one ETL partition as the core sees it: tables of packed keys and values, read-only.

    table    key                                        value
    seen     16-byte digest of an event_id              stored time
    blocks   20 bytes, `BlockHeader.key`                stored time
    views    16-byte digest of a page_view_id           stored time, then received_at and event_id of the joining first
    pending  source offset, 8 bytes big-endian          Arrow IPC: first events that the step left open
    seconds  source offset, 8 bytes big-endian, a tag   `d` Arrow IPC: second events that the step left undecided;
                                                        `m` Roaring bitmap: which rows of it are decided by now

A source offset is that of the first block of the step that stored the frame.

Stored time is 8 bytes, big-endian milliseconds: max(stream time, the block's received_at). Tables in `EXPIRING` start every
value with it. An entry has expired if its stored time + the dedup window is below the stream time of the block that asks. An
expired entry counts as absent, even while it is still in the store (rule E7).

Versions (rule E10): a key or value that gets another form goes into a table of another name; a table that a reader does not
know makes its step a newer one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from app.core.formats.decoding import refuse_unknown
from app.core.formats.step_message import Changes, cut_evenly
from app.core.state.encoding import keys_of
from app.errors import StepMessageInvalid

Digests = npt.NDArray[np.uint64]
Answers = npt.NDArray[np.bool_]

KEY_BYTES: Final = {"seen": 16, "blocks": 20, "views": 16, "pending": 8, "seconds": 9}
EXPIRING: Final = frozenset({"seen", "blocks", "views"})

TIME_BYTES: Final = 8
"""Width of the stored time with which an expiring entry's value starts."""


def refuse_unknown_tables(changes: Iterable[Changes]) -> None:
    """See that every change is to a table of these.

    Raises:
        NewerFormat: it is not: a newer ETL has another table.
        StepMessageInvalid: the keys are not of the table's width, or a value has no stored time.
    """
    for change in changes:
        refuse_unknown("step with changes of table", [change.table], KEY_BYTES)
        if change.key_bytes != KEY_BYTES[change.table]:
            raise StepMessageInvalid(f"keys of table {change.table} have {change.key_bytes} bytes")
        if change.table in EXPIRING and change.narrowest_bytes < TIME_BYTES:
            raise StepMessageInvalid(f"a value of table {change.table} has no stored time")


class StateReader(Protocol):
    """The tables that a step may look up. They do not change between two steps of the partition."""

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order."""

    def maybe(self, table: str, digests: Digests) -> Answers:
        """Which digests, uint64[n, 2] (high and low half), may be keys of `seen` or `views`: bool[n].

        Every key of the table is among them, and as a rule few others.
        """

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) of a table in key order; for `pending` and `seconds`, which are as small as the window."""


class MemoryState:
    """A `StateReader` in dictionaries: the in-memory twin of the RocksDB store."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {table: {} for table in KEY_BYTES}

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order."""
        values = self.tables[table]
        return [values.get(key) for key in keys]

    def maybe(self, table: str, digests: Digests) -> Answers:
        """Which digests, uint64[n, 2], are keys of a table: bool[n]."""
        values, keys = self.tables[table], cut_evenly(keys_of(digests), KEY_BYTES[table])
        return np.array([key in values for key in keys], np.bool_)

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) of a table in key order."""
        return iter(sorted(self.tables[table].items()))

    def apply(self, changes: Iterable[Changes]) -> None:
        """Apply a step's changes: of each table the deletes, then the puts."""
        for change in changes:
            values = self.tables[change.table]
            for key in change.deleted():
                values.pop(key, None)
            values.update(change.puts())
