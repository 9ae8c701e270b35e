"""RocksDB as the engine of a partition's store: small buffers, bloom filters, one cache for all partitions of a process.

Filters and indexes stay in memory, 1.4 bytes an id. In the cache they would displace each other: the cache is cut into
shards of some MiB, a file's filter is as large as a shard, and a look-up that reads a filter again takes six times as long.

There is no write-ahead log, because topic `rows` is one. RocksDB's own log would do harm: if it is cut short or lost,
RocksDB opens without an error, each family as far as it was flushed by itself, and the position no longer fits the tables.
Without that log a store is on disk as of a flush: all families together, or `default`, which holds the position, last.
Following `rows` from that position makes the store complete, even if other families have later entries already.
"""

import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, Final

import rocksdict
import structlog

from tables.store.engine import Batch

log = structlog.get_logger(__name__)

_MIB: Final = 1024 * 1024
_DAMAGE: Final = ("Corruption", "IO error: No such file or directory")
"""The first words of RocksDB's errors about damaged files; rocksdict has no classes for its errors."""
BLOOM_BITS_PER_KEY: Final = 10
"""1 % false positives: nearly every look-up in `seen` asks for a key that is not there."""
FIRST_COMPRESSED_LEVEL: Final = 2
"""Files that are soon merged into others are not compressed, which saves a third of a flush's time. Entries of the open
window are gone two minutes after a flush."""
LOADING_AFTER: Final = 3
"""So many batches and files without a look-up between them mean that a store is being restored, or filled."""
YOUNG_FILES: Final = 16
"""So many young files of a family are merged with its older ones; a look-up asks the filter of each file.

A merge rewrites the older files up to 256 MiB. With 4 young files, merges cost more than the steps after 1 million ids.
"""
YOUNG_FILES_LOADING: Final = 64
"""The same while no step looks anything up. Each merge rewrites the older files: with fewer merges, restoring 30 million ids
costs a third."""
OPEN_FILES: Final = 500
"""Files of a database whose filters and indexes stay in memory."""
MEMTABLE_BLOOM_RATIO: Final = 0.1
"""The part of a memtable that is its bloom filter. A look-up of a missing key takes a quarter (0.5 against 1.9 us)."""


class Memory:
    """The memory that all partitions of a process share: one block cache, which also counts all memtables.

    Args:
        cache_bytes: Size of the block cache.
    """

    def __init__(self, cache_bytes: int) -> None:
        self.cache = rocksdict.Cache(cache_bytes)
        self.memtables = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            max(4 * _MIB, cache_bytes // 2), False, self.cache
        )

    def file_options(self) -> Any:
        """Options of a file that is made apart: with bloom filters; not compressed, because it is young."""
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(self.cache)
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
        blocks.set_cache_index_and_filter_blocks(False)
        options = rocksdict.Options(raw_mode=True)
        options.set_block_based_table_factory(blocks)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        return options

    def options(self) -> Any:
        """Options of a database or a column family: small buffers, bloom filters, the shared cache."""
        options = self.file_options()
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_min_level_to_compress(FIRST_COMPRESSED_LEVEL)
        options.set_write_buffer_manager(self.memtables)
        options.set_write_buffer_size(8 * _MIB)
        options.set_arena_block_size(64 * 1024)
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO)
        options.set_memtable_whole_key_filtering(True)
        options.set_max_open_files(OPEN_FILES)
        options.set_keep_log_file_num(2)
        options.set_max_background_jobs(2)
        options.set_atomic_flush(True)
        options.set_level_zero_file_num_compaction_trigger(YOUNG_FILES)
        options.set_level_zero_slowdown_writes_trigger(2 * YOUNG_FILES_LOADING)
        options.set_level_zero_stop_writes_trigger(4 * YOUNG_FILES_LOADING)
        return options


class RocksBatch:
    """A WriteBatch whose families go by name."""

    __slots__ = ("_handles", "raw")

    def __init__(self, handles: dict[str, Any]) -> None:
        self.raw = rocksdict.WriteBatch(raw_mode=True)
        self._handles = handles

    def put(self, family: str, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self.raw.put(key, value, self._handles[family])

    def put_all(self, family: str, prefix: bytes, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        """Store each value under its key, which `prefix` precedes."""
        raw = self.raw
        raw.set_default_column_family(self._handles[family])  # an item put so takes three quarters of a call's time
        for key, value in zip(keys, values, strict=True):
            raw[prefix + key] = value

    def delete(self, family: str, key: bytes) -> None:
        """Remove `key`."""
        self.raw.delete(key, self._handles[family])


def open_engine(path: Path, memory: Memory) -> "RocksEngine":
    """The database in one folder, made if missing. A damaged one is deleted first, with an alarm.

    Raises:
        Exception: it cannot be opened for another reason: another process has it, or the disk is full.
    """
    try:
        return RocksEngine(path, memory)
    except Exception as exc:
        if not str(exc).startswith(_DAMAGE):
            raise
        log.error("store is damaged, it is wiped and rebuilt from the log", path=str(path), error=str(exc), alarm=True)
    shutil.rmtree(path)
    return RocksEngine(path, memory)


class RocksEngine:
    """The database in one folder, made if missing.

    Args:
        path: The folder.
        memory: Shared with the other databases of the process.
    """

    def __init__(self, path: Path, memory: Memory) -> None:
        self.path = path
        self._memory = memory
        self._clear()
        names = {"default"}
        if (path / "CURRENT").exists():
            names |= set(rocksdict.Rdict.list_cf(str(path), memory.options()))
        others = sorted(names - {"default"})
        self._db = rocksdict.Rdict(
            str(path), options=memory.options(), column_families={name: memory.options() for name in others}
        )
        if self._incoming.exists():  # a process died while it made a file here; no other process has it open
            shutil.rmtree(self._incoming)
        self._unread = 0
        """Batches and files since the last look-up."""
        self._loading = False
        unlogged: Any = rocksdict.WriteOptions()
        unlogged.disable_wal = True
        self._db.set_write_options(unlogged)
        self._families: dict[str, Any] = {name: self._db.get_column_family(name) for name in others}
        self._handles: dict[str, Any] = {name: self._db.get_column_family_handle(name) for name in names}

    def families(self) -> Iterable[str]:
        """Names of the families, `default` left out."""
        return self._families.keys()

    def create(self, family: str) -> None:
        """Add an empty family."""
        self._families[family] = self._db.create_column_family(family, self._memory.options())
        self._handles[family] = self._db.get_column_family_handle(family)
        if self._loading:
            self._merge_at(YOUNG_FILES_LOADING, [family])

    def drop(self, family: str) -> None:
        """Remove a family with all its entries at once."""
        del self._handles[family]
        self._families.pop(family).close()
        self._db.drop_column_family(family)

    def get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order."""
        if not keys:
            return []
        self._note_look_up()
        return list(self._of(family).get(list(keys)))

    def scan(self, family: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) whose key starts with `prefix`, in key order."""
        self._note_look_up()
        entries: Iterator[tuple[bytes, bytes]] = self._of(family).items(from_key=prefix)
        for key, value in entries:
            if not key.startswith(prefix):
                return
            yield key, value

    def keys(self, family: str, first: bytes) -> Iterator[bytes]:
        """Every key from `first` on, in key order."""
        keys: Iterator[bytes] = self._of(family).keys(from_key=first)
        return keys

    def count(self, family: str) -> int:
        """About how many keys a family has."""
        return int(self._of(family).property_int_value("rocksdb.estimate-num-keys") or 0)

    def batch(self) -> RocksBatch:
        """A new, empty batch."""
        return RocksBatch(self._handles)

    def write(self, batch: Batch) -> None:
        """Apply a batch of this engine: all of it or nothing."""
        if not isinstance(batch, RocksBatch):
            raise TypeError(f"{type(batch).__name__} is another engine's batch")
        self._note_write()
        self._db.write(batch.raw)

    def ingest(self, family: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every (key, value), as one file: all of them or none. The keys ascend.

        They are on disk at once, before batches that were written earlier and are not flushed yet.
        """
        self._note_write()
        self._incoming.mkdir(exist_ok=True)
        path = str(self._incoming / "file.sst")
        writer = rocksdict.SstFileWriter(self._memory.file_options())
        writer.open(path)
        deque(starmap(writer.__setitem__, entries), maxlen=0)  # a loop that runs in C
        writer.finish()
        moving = rocksdict.IngestExternalFileOptions()
        moving.set_move_files(True)
        self._families[family].ingest_external_file([path], moving)

    def flush(self) -> None:
        """Put everything on disk, `default` last."""
        for family in (*self._families.values(), self._db):
            family.flush(wait=True)

    def close(self) -> None:
        """Flush, `default` last, and release the files and their lock; a later call raises."""
        self._handles.clear()
        for family in self._families.values():
            family.close()
        self._families.clear()
        self._db.close()

    def wipe(self) -> None:
        """Close it and delete its folder, under another name: after a crash the next opening deletes the rest."""
        self.close()
        self.path.rename(self._wiped)
        self._clear()

    @property
    def _wiped(self) -> Path:
        """The folder's name while it is being deleted: RocksDB opens no folder of which some files are gone."""
        return self.path.with_name(f"{self.path.name}.wiped")

    @property
    def _incoming(self) -> Path:
        """The place where a file is made: on the same disk, so that it is moved in and not copied."""
        return self.path / "incoming"

    def _clear(self) -> None:
        """Delete the rest of a wipe."""
        if self._wiped.exists():
            shutil.rmtree(self._wiped)

    def _note_write(self) -> None:
        """Note that something is written. If no step reads, files may gather."""
        self._unread += 1
        if self._unread == LOADING_AFTER:
            self._loading = True
            self._merge_at(YOUNG_FILES_LOADING, self._families)

    def _note_look_up(self) -> None:
        """A step reads: from now on look-ups shall ask few files."""
        self._unread = 0
        if self._loading:
            self._loading = False
            self._merge_at(YOUNG_FILES, self._families)

    def _merge_at(self, young_files: int, families: Iterable[str]) -> None:
        for family in families:
            self._families[family].set_options({"level0_file_num_compaction_trigger": str(young_files)})

    def _of(self, family: str) -> Any:
        return self._db if family == "default" else self._families[family]
