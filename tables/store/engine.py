"""The port to the embedded key-value database of a partition's store: ordered families of bytes, written in batches.

RocksDB (`tables.store.rocksdb`) is one; its twin in memory (`app.testing.memory.engine`) passes the same tests.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class Batch(Protocol):
    """Changes that become visible together or not at all. A later change of a key replaces an earlier one."""

    def put(self, family: str, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""

    def put_all(self, family: str, prefix: bytes, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        """Store each value under its key, which `prefix` precedes."""

    def delete(self, family: str, key: bytes) -> None:
        """Remove `key`; a missing key is no error."""


class Engine(Protocol):
    """One open database. Family `default` always exists.

    A closed database keeps everything. If a process dies, `default` is as of one of its batches, and the other families are
    as of that batch or a later one. Everything that is missing is in the log.
    """

    def families(self) -> Iterable[str]:
        """Names of the families, `default` left out."""

    def create(self, family: str) -> None:
        """Add an empty family."""

    def drop(self, family: str) -> None:
        """Remove a family with all its entries at once."""

    def get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order."""

    def scan(self, family: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) whose key starts with `prefix`, in key order."""

    def keys(self, family: str, first: bytes) -> Iterator[bytes]:
        """Every key from `first` on, in key order."""

    def count(self, family: str) -> int:
        """About how many keys a family has."""

    def batch(self) -> Batch:
        """A new, empty batch."""

    def write(self, batch: Batch) -> None:
        """Apply a batch of this engine: all of it or nothing."""

    def ingest(self, family: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every (key, value): all of them or none. The keys ascend.

        They are on disk at once, before batches that were written earlier and are not flushed yet.
        """

    def flush(self) -> None:
        """Put everything on disk."""

    def close(self) -> None:
        """Close it; a later call raises."""

    def wipe(self) -> None:
        """Close and delete it."""
