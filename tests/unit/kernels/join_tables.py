"""The join's tables as kernels take them, made from plain values."""

from collections.abc import Sequence

import numpy as np

from app.kernels.cells import LEN_BITS, Ints
from app.kernels.join.event_ids import read_ids
from app.kernels.join.layout import IDS, NONE, RECEIVED, SIZE
from tests.unit.kernels.shapes import arena_of

Event = tuple[int, bytes]
"""(received_at, id)."""


def cells_of(texts: Sequence[bytes]) -> Ints:
    """Cells of texts that stand one after the other."""
    lengths = np.array([len(text) for text in texts], np.int64)
    return np.array((np.cumsum(lengths) - lengths) << LEN_BITS | lengths, np.int64)


def table_of(events: Sequence[Event], words: int, capacity: int = 0) -> Ints:
    """A table of events; with a capacity it is a ring whose first slots they have."""
    table = np.full((max(capacity, len(events)), IDS + words), NONE, np.int64)
    table[: len(events), RECEIVED] = [received for received, _ in events]
    table[: len(events), SIZE] = [len(event_id) for _, event_id in events]
    read_ids(arena_of(b"".join(event_id for _, event_id in events)), cells_of([i for _, i in events]), table, 0)
    return table
