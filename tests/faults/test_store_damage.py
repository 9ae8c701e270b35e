"""A store whose process was killed, and whose files were cut, lost or mixed with older ones: consistent, or wiped.

Every case is one file of a store of which several families were flushed at different times, damaged in one way; of one that
an owner wrote step by step, and of one that was restored, many steps at a time.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.formats.step_message import Changes, StepMessage, encode_step
from app.core.state.tables import KEY_BYTES
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine, open_engine
from tables.store.write_buffer import GATHERED_STEPS

MEMORY_BYTES = 16 * 1024 * 1024
WINDOW_MS = 10**9
STEPS = 600
SIZES = {"pending": 40_000, "seen": 3_000}
"""Bytes that a step puts into a table; so that one family is flushed for its size long before the others."""


def step_of(number: int) -> tuple[StepMessage, bytes]:
    """Step `number`, which stands at offset `number` - 1 of `rows`."""
    changes = [
        Changes.pack(table, width, [(number.to_bytes(width, "big"), bytes(8) + os.urandom(SIZES.get(table, 20)))])
        for table, width in KEY_BYTES.items()
    ]
    made = StepMessage(1, 0, number, number - 2, number, number, 0, b"meta", {}, {}, [], [], changes)
    return made, encode_step(made)


def write_and_die(path: Path, how: str) -> None:
    """What the child process does."""
    db = PartitionStore(RocksEngine(path, Memory(MEMORY_BYTES)), WINDOW_MS)
    for number in range(1, STEPS + 1):
        step, message = step_of(number)
        if how == "commit":
            db.commit(step, message, number - 1)
        else:
            db.follow(message, number - 1)
    os._exit(9)


@pytest.fixture(scope="module", params=["commit", "follow"])
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store whose process ended without closing it."""
    path = tmp_path_factory.mktemp("killed") / "db"
    done = subprocess.run([sys.executable, __file__, str(path), request.param], check=False, timeout=100)
    assert done.returncode == 9
    return path


def look(path: Path) -> int:
    """The step that the store in `path` stands at; every table has at least the entries of all steps up to it."""
    db = PartitionStore(open_engine(path, Memory(MEMORY_BYTES)), WINDOW_MS)
    position = db.position.accepted.number
    assert db.rows_offset == position - 1
    for table, width in KEY_BYTES.items():
        keys = [number.to_bytes(width, "big") for number in range(1, position + 1)]
        assert None not in db.get(table, keys), f"{table} lacks steps before {position}"
        assert {key for key, _ in db.scan(table)} >= set(keys)
    db.close()
    return position


def test_a_killed_process_leaves_a_state_not_far_behind(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "db")
    assert STEPS - GATHERED_STEPS <= look(tmp_path / "db") <= STEPS


def test_a_store_that_was_closed_has_everything(tmp_path: Path) -> None:
    db = PartitionStore(open_engine(tmp_path / "db", Memory(MEMORY_BYTES)), WINDOW_MS)
    for number in range(1, 6):
        db.commit(*step_of(number), number - 1)
    db.close()
    assert look(tmp_path / "db") == 5


def test_what_is_behind_is_made_good_by_following_the_log(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "db")
    db = PartitionStore(open_engine(tmp_path / "db", Memory(MEMORY_BYTES)), WINDOW_MS)
    for number in range(1, STEPS + 1):
        db.follow(step_of(number)[1], number - 1)
    db.close()
    assert look(tmp_path / "db") == STEPS


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, None])
def test_any_damage_to_any_file_leaves_a_consistent_state_or_an_empty_one(
    killed: Path, tmp_path: Path, share: float | None
) -> None:
    """`share` of a file is left; None: the file is gone."""
    reached = set()
    names = sorted(file.name for file in killed.iterdir() if file.is_file() and file.name != "LOCK")
    assert {name.rpartition(".")[2] for name in names} >= {"sst", "CURRENT"}
    for name in names:
        path = tmp_path / name
        shutil.copytree(killed, path)
        if share is None:
            (path / name).unlink()
        else:
            os.truncate(path / name, int((path / name).stat().st_size * share))
        reached.add(look(path))
        shutil.rmtree(path)
    assert 0 in reached  # wiped
    assert max(reached) >= STEPS - GATHERED_STEPS  # what matters not is borne


def test_a_store_that_another_process_holds_is_not_wiped(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "db")
    held = open_engine(tmp_path / "db", Memory(MEMORY_BYTES))
    with pytest.raises(Exception, match="LOCK"):
        open_engine(tmp_path / "db", Memory(MEMORY_BYTES))
    held.close()
    assert look(tmp_path / "db") >= STEPS - GATHERED_STEPS


if __name__ == "__main__":
    write_and_die(Path(sys.argv[1]), sys.argv[2])
