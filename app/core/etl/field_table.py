"""The catalogue of stored fields as arrays, for kernels: a field's number is its place in `STORED_FIELDS`."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from app.core.events.fields import EVENT_TYPES, FIELDS, STORED_FIELDS
from app.core.formats.flows import ColumnKind
from app.core.whole_table import whole_table
from app.kernels.cells import MOST_FIELDS, Ints, Words, uint64
from app.kernels.scan import BOOLEAN, INTEGER, LONGEST_NAME, SLOT_BITS, TAG, TEXT, slot_of, words_of

FIELD: Final[Mapping[str, int]] = {name: number for number, name in enumerate(STORED_FIELDS)}
"""The number of each stored field."""
_KINDS: Final = whole_table(ColumnKind, {
    ColumnKind.STRING: TEXT, ColumnKind.TIMESTAMP: INTEGER, ColumnKind.INTEGER: INTEGER, ColumnKind.BOOLEAN: BOOLEAN,
})  # fmt: skip
_ODD: Final = 0x9E3779B97F4A7C15
"""Its multiples by odd numbers are spread over all bits."""


_TRIES: Final = 100_000
"""Of 64 names, one multiplier in some 4,000 gives each a slot of its own; of 36 names, one in 12."""


class FieldTable(NamedTuple):
    """The arguments of `app.kernels.scan` that say which fields a line can have, in its order."""

    names: Words
    slots: Ints
    multiplier: int
    kinds: Ints
    tags: Words


def field_table(kinds: Mapping[str, int], tags: Sequence[str]) -> FieldTable:
    """The table of the fields `kinds`, name -> kind, and of the texts that a field of kind TAG may have.

    Raises:
        ValueError: a kernel cannot hold so many fields, or so long a name.
    """
    names = [name.encode() for name in kinds]
    if len(names) > MOST_FIELDS:
        raise ValueError(f"{len(names)} stored fields are more than {MOST_FIELDS}")
    long = [text for text in (*kinds, *tags) if len(text.encode()) > LONGEST_NAME]
    if long:
        raise ValueError(f"{long} have more than {LONGEST_NAME} bytes")
    multiplier = next(odd for n in range(1, _TRIES, 2) if _is_perfect(names, odd := n * _ODD % 2**64))
    slots = np.full(1 << SLOT_BITS, -1, np.int64)
    for number, name in enumerate(names):
        slots[slot_of(name, multiplier)] = number
    return FieldTable(
        _words(names), slots, uint64(multiplier), np.array([*kinds.values()], np.int64),
        _words([tag.encode() for tag in tags]),
    )  # fmt: skip


def _is_perfect(names: Sequence[bytes], multiplier: int) -> bool:
    taken: set[int] = set()
    for name in names:
        if (slot := slot_of(name, multiplier)) in taken:
            return False
        taken.add(slot)
    return True


def _words(texts: Sequence[bytes]) -> Words:
    return np.array([words_of(text) for text in texts], np.uint64)


FIELD_TABLE: Final = field_table(
    {name: TAG if name == "event_type" else _KINDS[kind] for name, kind in STORED_FIELDS.items()}, EVENT_TYPES
)
REQUIRED: Final[Words] = np.array(
    [sum(1 << FIELD[name] for name, field in FIELDS.items() if event in field.required_by) for event in EVENT_TYPES],
    np.uint64,
)
"""For each type of event, the bits of the fields that it must have."""
