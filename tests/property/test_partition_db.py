"""The RocksDB store answers like `MemoryState`, and a step is in it wholly or not at all (rules E3, E7)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_disk import QUICK_DISK

from app.core.state import EXPIRING, KEY_BYTES, MemoryState
from app.core.step_message import Changes, StepMessage, encode_step
from app.errors import StepConflict, StepMessageInvalid
from tables.partition_db import Memory, PartitionDb

MEMORY = Memory(8 * 1024 * 1024)
WINDOW_MS = 100
KEYS = 6


def key(table: str, n: int) -> bytes:
    return n.to_bytes(KEY_BYTES[table], "big")


def stored(ms: int, rest: bytes = b"") -> bytes:
    return ms.to_bytes(8, "big") + rest


def step(number: int, predecessor: int, changes: list[Changes], stream_time_ms: int = 0) -> StepMessage:
    return StepMessage(
        1, 0, number, predecessor, number, number, stream_time_ms, b"meta %d" % number, {}, {}, [], [], changes
    )


def commit(db: PartitionDb, changes: list[Changes], stream_time_ms: int = 0) -> None:
    made = step(db.position.counted.number + 1, db.position.counted.offset, changes, stream_time_ms)
    db.commit(made, encode_step(made), db.rows_offset + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def db(path: Path) -> Iterator[PartitionDb]:
    opened = PartitionDb(path, MEMORY, WINDOW_MS)
    yield opened
    opened.close()


numbers = st.integers(0, KEYS - 1)


@st.composite
def change(draw: st.DrawFn) -> Changes:
    table = draw(st.sampled_from(sorted(KEY_BYTES)))
    times = st.integers(0, 600) if table in EXPIRING else st.integers(0, 3)
    puts = draw(st.lists(st.tuples(numbers, times, st.binary(max_size=3)), max_size=4))
    deletes = draw(st.lists(numbers, max_size=2))
    return Changes.pack(
        table,
        KEY_BYTES[table],
        [(key(table, n), stored(ms, rest)) for n, ms, rest in puts],
        [key(table, n) for n in deletes],
    )


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.lists(change(), max_size=3), st.integers(0, 60), st.booleans()), max_size=10))
def test_it_answers_like_the_state_in_memory(steps: list[tuple[list[Changes], int, bool]]) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        db, twin, stream_time_ms = PartitionDb(Path(name) / "db", MEMORY, WINDOW_MS), MemoryState(), 0
        for changes, passed_ms, reopen in steps:
            stream_time_ms += passed_ms
            commit(db, changes, stream_time_ms)
            twin.apply(changes)
            if reopen:
                db.close()
                db = PartitionDb(Path(name) / "db", MEMORY, WINDOW_MS)
            for table in KEY_BYTES:
                keys = [key(table, n) for n in range(KEYS)]
                found, expected = db.get(table, keys), twin.get(table, keys)
                if table in EXPIRING:  # what has expired may be gone, and must be read as gone
                    found, expected = alive(found, stream_time_ms), alive(expected, stream_time_ms)
                    assert dict(db.scan(table)).items() <= dict(twin.scan(table)).items()
                else:
                    assert list(db.scan(table)) == list(twin.scan(table))
                assert found == expected, table
        db.close()


def alive(values: list[bytes | None], stream_time_ms: int) -> list[bytes | None]:
    return [v if v is not None and int.from_bytes(v[:8], "big") + WINDOW_MS >= stream_time_ms else None for v in values]


def test_what_has_expired_leaves_the_disk(db: PartitionDb) -> None:
    commit(db, [Changes.pack("seen", 16, [(key("seen", n), stored(n * 100)) for n in range(4)])], 300)
    assert db.generations() == [4, 6]  # those of 0 and 100 ms are gone; of 200 ms only at 350
    assert db.get("seen", [key("seen", 2)]) == [stored(200)]
    commit(db, [], 10_000)
    assert db.generations() == []
    assert db.get("seen", [key("seen", 3)]) == [None]


def test_a_refused_step_leaves_nothing(db: PartitionDb) -> None:
    commit(db, [Changes.pack("pending", 8, [(key("pending", 1), b"one")])])
    before = (db.position, db.rows_offset)
    wrong = step(2, 0, [Changes.pack("pending", 8, [(key("pending", 2), b"two")])])
    with pytest.raises(StepConflict):
        db.commit(wrong, encode_step(wrong), 5)  # somebody wrote 1 to 4
    stale = step(1, -1, wrong.changes)
    with pytest.raises(StepConflict):
        db.commit(stale, encode_step(stale), 1)
    assert (db.position, db.rows_offset) == before
    assert list(db.scan("pending")) == [(key("pending", 1), b"one")]


def test_an_unknown_table_fails_before_anything_is_written(db: PartitionDb) -> None:
    wrong = step(1, -1, [Changes.pack("pending", 8, [(key("pending", 2), b"two")]), Changes.pack("no such", 8)])
    with pytest.raises(KeyError):
        db.commit(wrong, encode_step(wrong), 0)
    assert db.empty
    assert list(db.scan("pending")) == []


def test_position_and_offset_survive_closing(path: Path) -> None:
    db = PartitionDb(path, MEMORY, WINDOW_MS)
    commit(db, [], 7)
    ignored = step(1, -1, [])
    db.follow(encode_step(ignored), 1)
    position = db.position
    db.close()
    again = PartitionDb(path, MEMORY, WINDOW_MS)
    assert again.position == position
    assert again.position.meta == b"meta 1"
    assert (again.rows_offset, again.position.counted.offset) == (1, 0)
    again.close()


def test_the_rows_offset_never_goes_back(db: PartitionDb) -> None:
    commit(db, [])
    commit(db, [])
    db.follow(encode_step(step(1, -1, [])), 0)
    assert db.rows_offset == 1


def test_what_is_no_step_is_an_error(db: PartitionDb) -> None:
    with pytest.raises(StepMessageInvalid):
        db.follow(b"nonsense", 0)
    assert db.empty


def test_wipe_leaves_an_empty_place(path: Path) -> None:
    db = PartitionDb(path, MEMORY, WINDOW_MS)
    commit(db, [Changes.pack("pending", 8, [(key("pending", 1), b"one")])])
    db.wipe()
    assert not path.exists()
    again = PartitionDb(path, MEMORY, WINDOW_MS)
    assert again.empty
    again.close()
