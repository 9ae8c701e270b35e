"""Asking the store for ids that it does not have reads next to nothing, however many it has."""

import random
import struct
from pathlib import Path

import psutil

from app.core.step_message import Changes, StepMessage
from tables.partition_db import PartitionDb
from tables.rocks_engine import Memory, RocksEngine

IDS = 600_000
ASKED = 10_000
WINDOW_MS = 1_000_000
STORED = struct.pack(">Q", 1)


def test_a_missing_id_is_known_by_filters_in_memory(tmp_path: Path) -> None:
    rng = random.Random(1)
    engine = RocksEngine(tmp_path / "db", Memory(8 * 1024 * 1024))
    db = PartitionDb(engine, WINDOW_MS)
    learnt = Changes.pack("seen", 16, ((rng.randbytes(16), STORED) for _ in range(IDS)))
    db.commit(StepMessage(1, 0, 1, -1, 0, 0, 0, b"", {}, {}, [], [], [learnt]), b"", 0)
    engine.flush()
    assert db.get("seen", [learnt.keys[:16], learnt.keys[-16:]]) == [STORED, STORED]

    read = psutil.Process().io_counters().read_chars
    assert not any(db.get("seen", [rng.randbytes(16) for _ in range(ASKED)]))
    read = psutil.Process().io_counters().read_chars - read
    assert read < 200 * ASKED, "one in a hundred looks into a block of 4 KiB, no other reads anything"
    db.close()
