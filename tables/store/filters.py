"""Filters of the keys of generations: whether a generation may have an id is known without the database.

Every digest that a step puts goes into the filter of its generation at once, before it is on disk. A filter answers only if
every key of its generation is in it. So it is whole from the first key on, or it is made again: an empty one takes all new
keys, and at each step some of the keys that are on disk, in their order. It is whole when it has them all. This happens

    when a store is opened      the filter was in memory only; until it is whole, the database is asked for every id
    when a filter is full       the old one answers until the new, greater one is whole
"""

from itertools import islice
from typing import Final

import numpy as np

from app.core.state.encoding import digests_in
from app.core.state.tables import KEY_BYTES, Answers, Digests
from app.kernels.bloom import BLOCK_WORDS, bloom_add, bloom_ask
from tables.store.engine import Engine
from tables.store.entries import TAGS
from tables.store.write_buffer import DIGESTS

BITS_A_KEY: Final = 12
"""One in 250 look-ups of an id that a full filter does not have goes to the database. 10 bits: one in 100."""
LEAST_KEYS: Final = 1 << 16
"""Keys that the smallest filter has room for."""
ROOM: Final = 1.1
"""A filter has so many times the room that its generation is expected to need."""
LEAST_GROWTH: Final = 2
"""A greater filter has at least so many times the room."""
MOST_GROWTH: Final = 8
"""No more than so many times the keys that there are are expected: a rush at the beginning may end."""
KEYS_A_STEP: Final = 20_000
"""Keys that are read from disk for a filter at one step: some 5 ms."""
_SALTS: Final = {"seen": np.uint64(0), "views": np.uint64(0x9E3779B97F4A7C15)}

if _SALTS.keys() != DIGESTS:
    raise RuntimeError("every table of digests needs a salt")


class Bloom:
    """A filter of one size."""

    def __init__(self, room: int) -> None:
        self.room = max(LEAST_KEYS, room)
        self.keys = 0
        """Digests that were added."""
        line = BLOCK_WORDS * 8
        blocks = -(-self.room * BITS_A_KEY // (8 * line))
        memory = np.zeros(blocks * BLOCK_WORDS + BLOCK_WORDS, np.uint64)
        start = -memory.ctypes.data % line // 8
        self._words = memory[start : start + blocks * BLOCK_WORDS]

    def add(self, table: str, digests: Digests) -> None:
        """Add the digests of some keys of a table."""
        bloom_add(self._words, digests, _SALTS[table])
        self.keys += len(digests)

    def ask(self, table: str, digests: Digests, maybe: Answers) -> None:
        """Write true into `maybe` for each digest that may be in the table."""
        bloom_ask(self._words, digests, _SALTS[table], maybe)


class GenerationFilter:
    """The filter of one generation.

    Args:
        engine: The store's database.
        family: The generation's family. It need not exist while the generation has no keys on disk.
        times_ms: The stored times that the generation has: the first, and the one behind the last.
        room: Keys that the generation is expected to have; None if it has keys on disk. Then the filter is made from them,
            and no key of the generation may be gathered, because it would be neither there nor added.
        now_ms: The stored time that new keys get.
    """

    def __init__(self, engine: Engine, family: str, times_ms: tuple[int, int], room: int | None, now_ms: int) -> None:
        self._engine = engine
        self._family = family
        self._first_ms, self._end_ms = (times_ms[0] if room is None else now_ms), times_ms[1]
        self._whole: Bloom | None = None
        self._making: Bloom | None = None
        self._next = b""
        """Where the keys begin that the filter in the making has not read."""
        if room is None:
            self._make(self._forecast(engine.count(family), now_ms))
            self.read_on()
        else:
            self._whole = Bloom(room)

    @property
    def keys(self) -> int:
        """About how many keys the generation has."""
        return max(bloom.keys for bloom in self._blooms)

    @property
    def answers(self) -> bool:
        """Whether every key of the generation is in the filter; if not, each may be."""
        return self._whole is not None

    def add(self, table: str, digests: Digests) -> None:
        """Add keys that go to disk later."""
        for bloom in self._blooms:
            bloom.add(table, digests)

    def ask(self, table: str, digests: Digests, maybe: Answers) -> None:
        """Write true into `maybe` for each digest that the generation may have."""
        if self._whole is None:
            maybe[:] = True
        else:
            self._whole.ask(table, digests, maybe)

    def read_on(self) -> bool:
        """Read some keys from disk, if the filter is in the making. Returns: whether it was."""
        if self._making is None:
            return False
        keys = list(islice(self._engine.keys(self._family, self._next), KEYS_A_STEP))
        for table in _SALTS:
            tag = TAGS[table]
            packed = b"".join(key for key in keys if key.startswith(tag))
            rows = np.frombuffer(packed, np.uint8).reshape(-1, len(tag) + KEY_BYTES[table])
            self._making.add(table, digests_in(rows[:, len(tag) :].tobytes()))
        if len(keys) == KEYS_A_STEP:
            self._next = keys[-1] + b"\0"
        else:
            self._whole, self._making = self._making, None
        return True

    def grow(self, now_ms: int) -> None:
        """Begin a greater filter if this one is full. No key of the generation may be gathered."""
        if self._whole is not None and self._making is None and self._whole.keys > self._whole.room:
            self._make(max(LEAST_GROWTH * self._whole.room, self._forecast(self._whole.keys, now_ms)))

    def _make(self, room: int) -> None:
        self._making, self._next = Bloom(room), min(TAGS[table] for table in _SALTS)

    def _forecast(self, keys: int, now_ms: int) -> int:
        """The room for all keys that the generation will have, if they go on to come as they did."""
        left_ms, passed_ms = max(0, self._end_ms - now_ms), max(1, now_ms - self._first_ms)
        return int(ROOM * keys * min(MOST_GROWTH, 1 + left_ms / passed_ms))

    @property
    def _blooms(self) -> list[Bloom]:
        return [bloom for bloom in (self._whole, self._making) if bloom is not None]
