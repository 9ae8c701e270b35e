"""Filters of the keys of generations: whether a generation may have an id is known without the database.

Every digest that a step puts goes into the filter of its generation at once, before it is on disk. A filter answers only if
every key of its generation is in it, and it is in memory only. When a store is opened, the filter of a generation on disk
takes, at each step, some of the keys on disk in their order, and all new keys. Until it has them all, every id may be there
and the database is asked, as if there were no filter: a store with 100 million ids opens at once.

A filter that is full gets a further layer; a look-up asks all layers.
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
LEAST_KEYS: Final = 1 << 19
"""Keys that the smallest filter has room for."""
ROOM: Final = 1.1
"""A filter has so many times the room that its generation is expected to need."""
GROWTH: Final = (1, 3)
"""A further layer has at least, and at most, so many times the room of the keys that there are. A rush may end."""
KEYS_A_STEP: Final = 20_000
"""Keys that are read from disk at one step for a filter that lacks some: some 10 ms."""
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
        room: Keys that the generation is expected to have; None if it has keys on disk, which are read then.
        now_ms: The stored time that new keys get.
    """

    def __init__(self, engine: Engine, family: str, times_ms: tuple[int, int], room: int | None, now_ms: int) -> None:
        self._engine = engine
        self._family = family
        self._first_ms, self._end_ms = (times_ms[0] if room is None else now_ms), times_ms[1]
        self._next: bytes | None = None
        """Where the keys on disk begin that are not read yet; None if there are none."""
        if room is None:
            self._next = min(TAGS[table] for table in _SALTS)
            count = engine.count(family)
            room = int(ROOM * (count + self._expected_beyond(count, now_ms)))
        self._layers = [Bloom(room)]
        self.read_on()

    @property
    def keys(self) -> int:
        """About how many keys the generation has."""
        return sum(layer.keys for layer in self._layers)

    @property
    def whole(self) -> bool:
        """Whether every key of the generation is in the filter; if not, each may be."""
        return self._next is None

    def add(self, table: str, digests: Digests, now_ms: int) -> None:
        """Add keys that are stored at `now_ms` or before."""
        layer = self._layers[-1]
        if layer.keys >= layer.room:
            least, most = (times * self.keys for times in GROWTH)
            layer = Bloom(min(most, max(least, int(ROOM * self._expected_beyond(self.keys, now_ms)))))
            self._layers.append(layer)
        layer.add(table, digests)

    def ask(self, table: str, digests: Digests, maybe: Answers) -> None:
        """Write true into `maybe` for each digest that the generation may have."""
        if not self.whole:
            maybe[:] = True
            return
        for layer in self._layers:
            layer.ask(table, digests, maybe)

    def read_on(self) -> bool:
        """Read some keys from disk, if the filter lacks some. Returns: whether it did."""
        if self._next is None:
            return False
        keys = list(islice(self._engine.keys(self._family, self._next), KEYS_A_STEP))
        for table in _SALTS:
            tag = TAGS[table]
            packed = b"".join(key for key in keys if key.startswith(tag))
            rows = np.frombuffer(packed, np.uint8).reshape(-1, len(tag) + KEY_BYTES[table])
            self.add(table, digests_in(rows[:, len(tag) :].tobytes()), self._end_ms)
        self._next = keys[-1] + b"\0" if len(keys) == KEYS_A_STEP else None
        return True

    def _expected_beyond(self, keys: int, now_ms: int) -> int:
        """The keys that will come to these, if they go on to come as they did; at most as many as `GROWTH` says."""
        left_ms, passed_ms = max(0, self._end_ms - now_ms), max(1, now_ms - self._first_ms)
        return min(keys * left_ms // passed_ms, GROWTH[1] * keys)
