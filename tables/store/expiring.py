"""The expiring tables of one store, in generations of column families that are dropped whole (rule E7)."""

from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import lt

from app.core.formats.step_message import Changes
from tables.store.engine import Batch, Engine
from tables.store.entries import TAGS, TIME_BYTES, SortedPuts
from tables.store.generations import Generations, family_name, generation_of


class Expiring:
    """Entries by stored time. If a key is in several generations, the youngest one counts.

    Args:
        engine: The store's database.
        rules: The arithmetic of its generations.
    """

    def __init__(self, engine: Engine, rules: Generations) -> None:
        self._engine = engine
        self._rules = rules
        self.generations = sorted(n for name in engine.families() if (n := generation_of(name)) is not None)
        """The generations that exist, oldest first."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each tagged key, None where there is none; in the keys' order."""
        if not self.generations:
            return [None] * len(keys)
        *older, youngest = self.generations
        found = self._engine.get(family_name(youngest), keys)
        for generation in reversed(older):
            missing = [n for n, value in enumerate(found) if value is None]
            if not missing:
                break
            values = self._engine.get(family_name(generation), [keys[n] for n in missing])
            for n, value in zip(missing, values, strict=True):
                found[n] = value
        return found

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

    def ingest(self, puts: SortedPuts) -> bool:
        """Put entries on disk, past all batches. Do nothing if they have several generations, or a younger one exists."""
        target = self._rules.of(puts.oldest_ms)
        if target != self._rules.of(puts.youngest_ms) or any(n > target for n in self.generations):
            return False
        self._engine.ingest(self._family_of(target), puts.entries())
        return True

    def drop(self, generations: Sequence[int]) -> None:
        """Remove generations with all their entries."""
        for generation in generations:
            self._engine.drop(family_name(generation))
            self.generations.remove(generation)

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
        return name
