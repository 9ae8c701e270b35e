"""A process that is killed while it restores a store: whatever it was at, the store opens and goes on from its position."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from app.core.formats.step_message import Changes, StepMessage, encode_step
from tables.store.engine import Batch
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine, open_engine
from tables.store.write_buffer import GATHERED_STEPS

MEMORY_BYTES = 16 * 1024 * 1024
WINDOW_MS = 10**9
STEPS = 5 * GATHERED_STEPS
IDS = 50
"""That a step learns."""
MOMENTS = ("ingest", "in a file", "write", "flush", "flushed")
"""Where it dies: at the beginning of a call, or where the name says."""


def digests(number: int) -> list[bytes]:
    return [(number * IDS + n).to_bytes(16, "little") for n in range(IDS)]


def message_of(number: int) -> bytes:
    """Step `number`, which stands at offset `number` - 1 of `rows`: a frame stays pending, an older one goes."""
    old = [(number - 3).to_bytes(8, "big")] if number > 3 else []
    changes = [
        Changes.pack("seen", 16, [(key, number.to_bytes(8, "big")) for key in digests(number)]),
        Changes.pack("pending", 8, [(number.to_bytes(8, "big"), b"frame")], old),
    ]
    return encode_step(StepMessage(1, 0, number, number - 2, number, number, number, b"meta", {}, {}, [], [], changes))


class Dying(RocksEngine):
    """Kills its process at one moment, when it comes for the n-th time."""

    moment = ""
    left = 0

    def _reach(self, moment: str) -> None:
        self.left -= moment == self.moment
        if self.left == 0:
            os._exit(9)

    def ingest(self, family: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        self._reach("ingest")
        super().ingest(family, self._half(list(entries)))

    def _half(self, entries: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        yield from entries[: len(entries) // 2]
        self._reach("in a file")
        yield from entries[len(entries) // 2 :]

    def write(self, batch: Batch) -> None:
        self._reach("write")
        super().write(batch)

    def flush(self) -> None:
        self._reach("flush")
        super().flush()
        self._reach("flushed")


def restore_and_die(path: Path, moment: str, times: int) -> None:
    """What the child process does."""
    engine = Dying(path, Memory(MEMORY_BYTES))
    engine.moment, engine.left = moment, times
    db = PartitionStore(engine, WINDOW_MS)
    for number in range(1, STEPS + 1):
        db.follow(message_of(number), number - 1)


def verify(db: PartitionStore, number: int) -> None:
    """See that the store has what the steps up to `number` leave; ids it may know from later ones."""
    assert dict(db.scan("pending")) == {n.to_bytes(8, "big"): b"frame" for n in range(max(1, number - 2), number + 1)}
    known = dict(db.scan("seen"))
    for n in range(1, number + 1):
        for key in digests(n):
            assert known[key] == n.to_bytes(8, "big")


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_a_store_that_goes_on_from_its_position(tmp_path: Path, moment: str, times: int) -> None:
    path = tmp_path / "db"
    done = subprocess.run([sys.executable, __file__, str(path), moment, str(times)], check=False, timeout=100)
    assert done.returncode == 9
    assert [file.name for file in (path / "incoming").iterdir()] == (["file.sst"] if moment == "in a file" else [])

    db = PartitionStore(open_engine(path, Memory(MEMORY_BYTES)), WINDOW_MS)
    assert not (path / "incoming").exists()
    reached = db.position.accepted.number
    assert reached % GATHERED_STEPS in {0, 1}, "what is written together is there together"
    assert db.rows_offset == reached - 1
    verify(db, reached)
    for number in range(reached + 1, STEPS + 1):
        db.follow(message_of(number), number - 1)
    verify(db, STEPS)
    assert len(dict(db.scan("seen"))) == STEPS * IDS
    db.close()
    again = PartitionStore(open_engine(path, Memory(MEMORY_BYTES)), WINDOW_MS)
    assert again.rows_offset == STEPS - 1
    verify(again, STEPS)
    again.close()


def test_who_finds_the_store_in_use_leaves_the_file_that_is_being_made(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "db", Memory(MEMORY_BYTES))
    engine.create("early")

    def entries() -> Iterator[tuple[bytes, bytes]]:
        yield b"a", b""
        with pytest.raises(Exception, match="LOCK"):
            open_engine(tmp_path / "db", Memory(MEMORY_BYTES))
        yield b"b", b""

    engine.ingest("early", entries())
    assert engine.get("early", [b"a", b"b"]) == [b"", b""]
    engine.close()


def test_a_file_that_cannot_be_made_is_no_hindrance_to_the_next(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "db", Memory(MEMORY_BYTES))
    engine.create("early")
    with pytest.raises(Exception, match="order"):
        engine.ingest("early", [(b"b", b""), (b"a", b"")])
    engine.ingest("early", [(b"a", b""), (b"b", b"")])
    assert [key for key, _ in engine.scan("early", b"")] == [b"a", b"b"]
    engine.close()


if __name__ == "__main__":
    restore_and_die(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
