"""The store, on RocksDB and on its twin, answers like `MemoryState`; a step is in it wholly or not at all (E3, E7)."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.step_history import Accepted
from app.core.formats.step_message import Changes, StepLog, StepMessage, encode_step
from app.core.state.tables import EXPIRING, KEY_BYTES, MemoryState
from app.errors import StepConflict, StepMessageInvalid
from app.testing.memory.engine import Disk, MemoryEngine
from tables.store.engine import Batch, Engine
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine
from tests.worlds.quick_disk import QUICK_DISK

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


def commit(db: PartitionStore, changes: list[Changes], stream_time_ms: int = 0) -> None:
    made = step(db.position.accepted.number + 1, db.position.accepted.offset, changes, stream_time_ms)
    db.commit(made, encode_step(made), db.rows_offset + 1)


Open = Callable[[], PartitionStore]


def opener(engine: str, path: Path) -> Open:
    """Opens the same store again and again."""
    disk = Disk()
    engines: dict[str, Callable[[], Engine]] = {
        "rocks": lambda: RocksEngine(path, MEMORY),
        "memory": lambda: disk.open("db"),
    }
    return lambda: PartitionStore(engines[engine](), WINDOW_MS)


@pytest.fixture(params=["rocks", "memory"])
def open_db(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return opener(request.param, tmp_path / "state.db")


@pytest.fixture
def db(open_db: Open) -> Iterator[PartitionStore]:
    opened = open_db()
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
@given(
    steps=st.lists(st.tuples(st.lists(change(), max_size=3), st.integers(0, 60), st.booleans()), max_size=10),
    engine=st.sampled_from(["rocks", "memory"]),
)
def test_it_answers_like_the_state_in_memory(steps: list[tuple[list[Changes], int, bool]], engine: str) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        open_db = opener(engine, Path(name) / "db")
        db, twin, stream_time_ms = open_db(), MemoryState(), 0
        for changes, passed_ms, reopen in steps:
            stream_time_ms += passed_ms
            commit(db, changes, stream_time_ms)
            twin.apply(changes)
            if reopen:
                db.close()
                db = open_db()
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


def test_what_has_expired_leaves_the_disk(db: PartitionStore) -> None:
    commit(db, [Changes.pack("seen", 16, [(key("seen", n), stored(n * 100)) for n in range(4)])], 300)
    assert db.generations() == [4, 6]  # those of 0 and 100 ms are gone; of 200 ms only at 350
    assert db.get("seen", [key("seen", 2)]) == [stored(200)]
    commit(db, [], 10_000)
    assert db.generations() == []
    assert db.get("seen", [key("seen", 3)]) == [None]


def test_a_refused_step_leaves_nothing(db: PartitionStore) -> None:
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


def test_a_message_that_does_not_count_leaves_nothing_but_its_offset(db: PartitionStore) -> None:
    commit(db, [])
    position = db.position
    changes = [Changes.pack(table, KEY_BYTES[table], [(key(table, 1), stored(7))]) for table in KEY_BYTES]
    db.follow(encode_step(step(2, 7, changes, 9)), 1)
    assert (db.position, db.rows_offset) == (position, 1)
    for table in KEY_BYTES:
        assert db.get(table, [key(table, 1)]) == [None]
        assert list(db.scan(table)) == []


class CountingEngine(MemoryEngine):
    """Counts what is written."""

    writes = 0

    def write(self, batch: Batch) -> None:
        self.writes += 1
        super().write(batch)


def test_steps_with_their_position_and_offset_are_one_write() -> None:
    """Between two writes the process may end, and half a step would stay."""
    engine = CountingEngine(Disk(), "db", {"default": {}})
    db = PartitionStore(engine, WINDOW_MS)
    changes = [Changes.pack(table, KEY_BYTES[table], [(key(table, 1), stored(7))]) for table in KEY_BYTES]
    commit(db, changes)
    db.follow(encode_step(step(2, 0, changes)), 1)
    assert engine.writes == 0
    db.write()
    db.write()
    assert engine.writes == 1


def test_an_unknown_table_fails_before_anything_is_written(db: PartitionStore) -> None:
    wrong = step(1, -1, [Changes.pack("pending", 8, [(key("pending", 2), b"two")]), Changes.pack("no such", 8)])
    with pytest.raises(KeyError):
        db.commit(wrong, encode_step(wrong), 0)
    assert db.empty
    assert list(db.scan("pending")) == []


def test_position_and_offset_survive_closing(open_db: Open) -> None:
    db = open_db()
    commit(db, [], 7)
    ignored = step(1, -1, [])
    db.follow(encode_step(ignored), 1)
    position = db.position
    db.close()
    again = open_db()
    assert again.position == position
    assert again.position.meta == b"meta 1"
    assert (again.rows_offset, again.position.accepted.offset) == (1, 0)
    again.close()


def test_the_rows_offset_never_goes_back(db: PartitionStore) -> None:
    commit(db, [])
    commit(db, [])
    db.follow(encode_step(step(1, -1, [])), 0)
    assert db.rows_offset == 1


@pytest.mark.parametrize("foreign", [b"nonsense", b"", None, b"STP1\xc1", encode_step(step(1, -1, []))[:-1]], ids=repr)
def test_a_message_that_is_no_step_is_passed_over(open_db: Open, foreign: bytes | None) -> None:
    db = open_db()
    db.follow(foreign, 0)
    db.follow(encode_step(step(1, -1, [])), 1)
    db.follow(foreign, 2)
    db.verify_read_to(3)
    db.follow(encode_step(step(2, 1, [])), 3)
    assert (db.rows_offset, db.position.accepted, db.position.meta) == (3, Accepted(2, 3), b"meta 2")
    db.close()


def test_a_foreign_message_is_no_base_of_a_trimmed_log(db: PartitionStore) -> None:
    for offset, message in enumerate(
        (b"nonsense", encode_step(step(7, 3, [])), b"", encode_step(step(8, 11, []))), start=10
    ):
        db.follow(message, offset)
    assert (db.rows_offset, db.position.accepted) == (13, Accepted(8, 13))


@pytest.mark.parametrize("other", [{"partition": 1}, {"epoch": 2}])
def test_a_step_of_another_log_is_passed_over(other: dict[str, int]) -> None:
    db = PartitionStore(Disk().open("db"), WINDOW_MS, step_log=StepLog("rows-e1", 0, 1))
    db.follow(encode_step(msgspec.structs.replace(step(5, 3, []), **other)), 0)
    db.follow(encode_step(step(1, -1, [])), 1)
    assert db.position.accepted == Accepted(1, 1)
    db.close()


@pytest.mark.parametrize("values", [[b"short"], [stored(1), b"short", stored(2)], [b""]])
def test_an_entry_without_a_stored_time_is_refused(db: PartitionStore, values: list[bytes]) -> None:
    """It would be in no generation."""
    wrong = step(1, -1, [Changes.pack("seen", 16, [(key("seen", n), value) for n, value in enumerate(values)])])
    with pytest.raises(StepMessageInvalid):
        db.follow(encode_step(wrong), 0)
    assert db.empty


def test_wipe_leaves_an_empty_place(open_db: Open) -> None:
    db = open_db()
    commit(db, [Changes.pack("pending", 8, [(key("pending", 1), b"one")])])
    db.wipe()
    again = open_db()
    assert again.empty
    again.close()


def test_wipe_leaves_no_folder(tmp_path: Path) -> None:
    db = opener("rocks", tmp_path / "state.db")()
    db.wipe()
    assert not (tmp_path / "state.db").exists()


@pytest.mark.parametrize("deleted", range(1, 9))
def test_a_crash_in_the_middle_of_a_wipe_leaves_a_store_that_opens_empty(
    deleted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB refuses a folder of which some files are gone: the worker would never start again."""

    class Crash(BaseException):
        pass

    def die_half_way(folder: Path, **_: object) -> None:
        for file in sorted(Path(folder).iterdir())[:deleted]:
            file.unlink()
        raise Crash

    opened = opener("rocks", tmp_path / "state.db")
    db = opened()
    commit(db, [Changes.pack("pending", 8, [(key("pending", 1), b"one")])])
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", die_half_way)
        with pytest.raises(Crash):
            db.wipe()
    again = opened()
    assert (again.empty, list(again.scan("pending"))) == (True, [])
    again.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.db"]


def test_an_earlier_copy_of_a_database_can_be_put_back() -> None:
    disk = Disk()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    commit(db, [])
    db.write()
    copy = disk.snapshot("db")
    commit(db, [Changes.pack("pending", 8, [(key("pending", 1), b"one")])])
    db.close()
    disk.restore("db", copy)
    again = PartitionStore(disk.open("db"), WINDOW_MS)
    assert (again.position.accepted.number, list(again.scan("pending"))) == (1, [])
