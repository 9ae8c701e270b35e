"""The expiring tables of one store, in generations of column families that are dropped whole (rule E7)."""

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, islice
from operator import lt

import numpy as np

from app.core.formats.step_message import Changes
from app.core.state.encoding import digests_in
from app.core.state.tables import TIME_BYTES, Answers, Digests
from tables.store.engine import Batch, Engine
from tables.store.entries import TAGS, SortedPuts, SortedTable, stored_times
from tables.store.filters import ROOM, GenerationFilter
from tables.store.generations import Generations, family_name, generation_of
from tables.store.write_buffer import DIGESTS


class Expiring:
    """Entries by stored time. If a key is in several generations, the youngest one counts.

    Each generation has a filter. It knows the keys of all steps that were taken, and with it most look-ups end.

    Args:
        engine: The store's database.
        rules: The arithmetic of its generations.
        now_ms: The stored time that the next entries get.
    """

    def __init__(self, engine: Engine, rules: Generations, now_ms: int) -> None:
        self._engine = engine
        self._rules = rules
        self.generations = sorted(n for name in engine.families() if (n := generation_of(name)) is not None)
        """The generations that exist on disk, oldest first."""
        self._filters = {
            n: GenerationFilter(engine, family_name(n), rules.times_of(n), None, now_ms) for n in self.generations
        }

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each tagged key, None where there is none; in the keys' order."""
        return self._get(keys, lambda _: None)

    def get_digests(self, table: str, keys: Sequence[bytes], digests: Digests) -> list[bytes | None]:
        """`get` of a table's keys that are digests: `keys` are tagged, `digests` are the same."""

        def maybe(generation: int) -> Answers:
            answers = np.zeros(len(keys), np.bool_)
            self._filters[generation].ask(table, digests, answers)
            return answers

        return self._get(keys, maybe)

    def _get(self, keys: Sequence[bytes], maybe: Callable[[int], Answers | None]) -> list[bytes | None]:
        """`get`. Given a generation, `maybe` says of each key whether it may be there; None if each may be."""
        found: list[bytes | None] = [None] * len(keys)
        for generation in reversed(self.generations):
            answers = maybe(generation)
            places = range(len(keys)) if answers is None else np.flatnonzero(answers).tolist()
            missing = [n for n in places if found[n] is None]
            values = self._engine.get(family_name(generation), [keys[n] for n in missing])
            for n, value in zip(missing, values, strict=True):
                found[n] = value
        return found

    # --- the filters

    def maybe(self, table: str, digests: Digests) -> Answers:
        """Which digests, uint64[n, 2], may have an entry: those of all steps that were taken have."""
        answers = np.zeros(len(digests), np.bool_)
        for known in self._filters.values():
            known.ask(table, digests, answers)
        return answers

    def note(self, change: Changes) -> None:
        """Let the filters know the keys that a change puts; it need not be on disk."""
        if change.table not in DIGESTS or not change.keys:
            return
        digests, stored = digests_in(change.keys), stored_times(change)
        oldest, youngest = self._rules.of(int(stored.min())), self._rules.of(int(stored.max()))
        if oldest == youngest:  # nearly always
            self._filter_of(youngest, int(stored.max())).add(change.table, digests, int(stored.max()))
            return
        generations = stored // np.uint64(self._rules.span_ms)
        for generation in np.unique(generations).tolist():
            some = generations == generation
            now_ms = int(stored[some].max())
            self._filter_of(generation, now_ms).add(change.table, digests[some], now_ms)

    def read_on(self) -> None:
        """Read some keys from disk, if a filter is in the making."""
        any(known.read_on() for known in self._filters.values())

    def _filter_of(self, generation: int, now_ms: int) -> GenerationFilter:
        """The filter of a generation. A new one has the room that the one before it needed."""
        known = self._filters.get(generation)
        if known is None:
            before = self._filters.get(generation - 1)
            room = 0 if before is None else int(ROOM * before.keys)
            family, times = family_name(generation), self._rules.times_of(generation)
            known = self._filters[generation] = GenerationFilter(self._engine, family, times, room, now_ms)
        return known

    # --- the entries

    def scan(self, tag: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (tagged key, value) of a table in key order, with each key's youngest value."""
        merged: dict[bytes, bytes] = {}
        for generation in self.generations:
            merged.update(self._engine.scan(family_name(generation), tag))
        return iter(sorted(merged.items()))

    def change(self, batch: Batch, change: Changes) -> None:
        """Put each entry into the generation of its stored time; no younger generation keeps an older value of it."""
        tag = TAGS[change.table]
        if change.deletes:
            for generation in self.generations:
                family = family_name(generation)
                for key in change.deleted():
                    batch.delete(family, tag + key)
        alive = list(self.generations)
        for target, (keys, values) in sorted(self._by_generation(change).items()):
            family = self._family_of(target)
            for n in alive:
                if n > target:
                    other = family_name(n)
                    for key in keys:
                        batch.delete(other, tag + key)
            batch.put_all(family, tag, keys, values)

    def ingest(self, batch: Batch, puts: SortedPuts) -> None:
        """Put entries on disk at once, each into the generation of its stored time, past all batches.

        `batch`, which is written next, gets the deletes of older values that younger generations may have.
        """
        for target in range(self._rules.of(puts.oldest_ms), self._rules.of(puts.youngest_ms) + 1):
            some = puts.between(*self._rules.times_of(target))
            if some.tables:
                self._delete_from_younger(batch, target, some.tables)
                self._engine.ingest(self._family_of(target), some.entries())

    def _delete_from_younger(self, batch: Batch, target: int, tables: Sequence[SortedTable]) -> None:
        for generation in self.generations:
            if generation <= target:
                continue
            for table in tables:  # as a rule stream time has left the older generation, and there are none
                keys = [key for key, _ in table.entries()]
                if table.name in DIGESTS:
                    maybe = np.zeros(len(keys), np.bool_)
                    self._filters[generation].ask(table.name, digests_in(table.keys[table.order].tobytes()), maybe)
                    keys = list(compress(keys, maybe.tolist()))
                for key in keys:
                    batch.delete(family_name(generation), key)

    def drop(self, generations: Sequence[int]) -> None:
        """Remove generations with all their entries."""
        for generation in generations:
            self._engine.drop(family_name(generation))
            self.generations.remove(generation)
            self._filters.pop(generation, None)

    def expired(self, stream_time_ms: int) -> list[int]:
        """The generations of which every entry has expired, oldest first."""
        return self._rules.expired(self.generations, stream_time_ms)

    def _by_generation(self, change: Changes) -> dict[int, tuple[Sequence[bytes], Sequence[bytes]]]:
        """Generation -> the keys and values to put there; of one key the last put counts.

        They are in order of the keys, as they nearly always come: a memtable takes them so in two thirds of the time.
        """
        keys, values = change.columns
        if not all(map(lt, keys, islice(keys, 1, None))):
            last = dict(zip(keys, values, strict=True))
            keys = sorted(last)
            values = [last[key] for key in keys]
        if not keys:
            return {}
        # A value starts with its stored time, so the least value has the earliest time and the greatest the latest.
        oldest, youngest = self._generation_in(min(values)), self._generation_in(max(values))
        if oldest == youngest:  # nearly always
            return {oldest: (keys, values)}
        targets = [self._generation_in(value) for value in values]
        parts: dict[int, tuple[list[bytes], list[bytes]]] = {target: ([], []) for target in targets}
        for key, value, target in zip(keys, values, targets, strict=True):
            parts[target][0].append(key)
            parts[target][1].append(value)
        return dict(parts)

    def _generation_in(self, value: bytes) -> int:
        """The generation of the stored time in a value."""
        return self._rules.of(int.from_bytes(value[:TIME_BYTES], "big"))

    def _family_of(self, generation: int) -> str:
        name = family_name(generation)
        if generation not in self.generations:
            self._engine.create(name)
            insort(self.generations, generation)
            self._filter_of(generation, self._rules.times_of(generation)[0])
        return name
