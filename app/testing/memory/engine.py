"""The engine of a partition's store in memory: a simulation opens, closes, kills, copies and rolls it back."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from tables.store.engine import Batch

Families = dict[str, dict[bytes, bytes]]


class Disk:
    """Databases by name; written entries stay when the process that had the database open is gone."""

    def __init__(self) -> None:
        self._databases: dict[str, Families] = {}
        self._in_use: set[str] = set()

    def open(self, name: str) -> "MemoryEngine":
        """The database of that name, made if missing.

        Raises:
            BlockingIOError: another process has it open, and would not see new entries.
        """
        if name in self._in_use:
            raise BlockingIOError(f"database {name} is open already")
        self._in_use.add(name)
        return MemoryEngine(self, name, self._databases.setdefault(name, {"default": {}}))

    def release(self, name: str) -> None:
        """Let it be opened again."""
        self._in_use.discard(name)

    def remove(self, name: str) -> None:
        """Delete a database; a missing one is no error."""
        self._databases.pop(name, None)

    def names(self) -> list[str]:
        """The existing databases."""
        return sorted(self._databases)

    def snapshot(self, name: str) -> Families:
        """A copy of a database as it is now."""
        return copy.deepcopy(self._databases[name])

    def restore(self, name: str, families: Families) -> None:
        """Put an earlier copy in a database's place."""
        self._databases[name] = copy.deepcopy(families)


class MemoryBatch:
    """Changes in their order."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, bytes, bytes | None]] = []

    def put(self, family: str, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self.changes.append((family, key, value))

    def put_all(self, family: str, prefix: bytes, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        """Store each value under its key, which `prefix` precedes."""
        self.changes += [(family, prefix + key, value) for key, value in zip(keys, values, strict=True)]

    def delete(self, family: str, key: bytes) -> None:
        """Remove `key`."""
        self.changes.append((family, key, None))


class MemoryEngine:
    """One open database of a disk."""

    def __init__(self, disk: Disk, name: str, families: Families) -> None:
        self._disk = disk
        self._name = name
        self._content: Families | None = families

    def families(self) -> Iterable[str]:
        """Names of the families, `default` left out."""
        return [name for name in self._open() if name != "default"]

    def create(self, family: str) -> None:
        """Add an empty family."""
        self._open()[family] = {}

    def drop(self, family: str) -> None:
        """Remove a family with all its entries at once."""
        del self._open()[family]

    def get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None if there is none; in the keys' order."""
        values = self._open()[family]
        return [values.get(key) for key in keys]

    def scan(self, family: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) whose key starts with `prefix`, in key order."""
        return iter(sorted(item for item in self._open()[family].items() if item[0].startswith(prefix)))

    def keys(self, family: str, first: bytes) -> Iterator[bytes]:
        """Every key from `first` on, in key order."""
        return iter(sorted(key for key in self._open()[family] if key >= first))

    def count(self, family: str) -> int:
        """How many keys a family has."""
        return len(self._open()[family])

    def batch(self) -> MemoryBatch:
        """A new, empty batch."""
        return MemoryBatch()

    def write(self, batch: Batch) -> None:
        """Apply a batch of this engine: all of it or nothing."""
        if not isinstance(batch, MemoryBatch):
            raise TypeError(f"{type(batch).__name__} is another engine's batch")
        families = self._open()
        for family, _, _ in batch.changes:
            families[family]  # a family that does not exist fails before anything is written
        for family, key, value in batch.changes:
            if value is None:
                families[family].pop(key, None)
            else:
                families[family][key] = value

    def ingest(self, family: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every (key, value): all of them or none. The keys ascend."""
        new = list(entries)
        if any(key >= after for (key, _), (after, _) in pairwise(new)):
            raise ValueError("keys that are ingested must ascend")
        self._open()[family].update(new)

    def flush(self) -> None:
        """Do nothing: written entries are on disk already."""
        self._open()

    def close(self) -> None:
        """Close the database; a later use raises."""
        if self._content is not None:
            self._disk.release(self._name)
        self._content = None

    def wipe(self) -> None:
        """Close and delete it."""
        self.close()
        self._disk.remove(self._name)

    def _open(self) -> Families:
        if self._content is None:
            raise ValueError(f"database {self._name} is closed")
        return self._content
