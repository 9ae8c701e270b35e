"""Asking the store for ids that it does not have reads next to nothing, however many it has."""

import random
import struct
from pathlib import Path

import psutil

from app.core.formats.step_message import Changes, StepMessage, encode_step
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine

IDS = 600_000
ASKED = 10_000
STEPS = 30
WINDOW_MS = 1_000_000
STORED = struct.pack(">Q", 1)


def test_a_missing_id_is_known_by_filters_in_memory(tmp_path: Path) -> None:
    rng = random.Random(1)
    engine = RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024))
    db = PartitionStore(engine, WINDOW_MS)
    learnt = Changes.pack("seen", 16, ((rng.randbytes(16), STORED) for _ in range(IDS)))
    db.commit(StepMessage(1, 0, 1, -1, 0, 0, 0, b"", {}, {}, [], [], [learnt]), b"", 0)
    engine.flush()
    assert db.get("seen", [learnt.keys[:16], learnt.keys[-16:]]) == [STORED, STORED]
    read_next_to_nothing(db, rng)
    db.close()


def test_a_missing_id_is_known_by_filters_of_a_store_that_was_restored(tmp_path: Path) -> None:
    rng = random.Random(1)
    db = PartitionStore(RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024)), WINDOW_MS)
    keys = [rng.randbytes(16) for _ in range(IDS)]
    for n in range(STEPS):
        learnt = Changes.pack("seen", 16, ((key, STORED) for key in keys[n::STEPS]))
        db.follow(encode_step(StepMessage(1, 0, n + 1, n - 1, n, n, 0, b"", {}, {}, [], [], [learnt])), n)
    assert db.get("seen", keys[::50]) == [STORED] * len(keys[::50])
    read_next_to_nothing(db, rng)
    db.close()


def read_next_to_nothing(db: PartitionStore, rng: random.Random) -> None:
    """Ask for ids that are not there."""
    read = psutil.Process().io_counters().read_chars
    assert not any(db.get("seen", [rng.randbytes(16) for _ in range(ASKED)]))
    read = psutil.Process().io_counters().read_chars - read
    assert read < 200 * ASKED, "one in a hundred looks into a block of 4 KiB, no other reads anything"
