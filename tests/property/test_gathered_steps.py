"""Steps that are gathered and written together are in the store as if each had been written; a crash loses none (E2, E3)."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.step_message import Changes, StepMessage, decode_step, digest_of, encode_step
from app.core.state.tables import EXPIRING, KEY_BYTES, MemoryState
from app.errors import StepGap
from app.testing.memory.engine import Disk, MemoryEngine
from tables.store.engine import Batch, Engine
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine
from tables.store.write_buffer import GATHERED_STEPS
from tests.worlds.quick_disk import QUICK_DISK

MEMORY = Memory(8 * 1024 * 1024)
WINDOW_MS = 1_000
KEYS = 5
GATHERED_BYTES = 400
"""Some four steps."""


class Crash(BaseException):
    """The process is gone."""


class Dying(MemoryEngine):
    """Dies at the call of which it is told the number; `engine.flush` makes no difference to a disk in memory."""

    left = -1
    after = False

    def _call(self, do: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        do()
        if self.left == 0:
            raise Crash

    def create(self, family: str) -> None:
        self._call(lambda: super(Dying, self).create(family))

    def drop(self, family: str) -> None:
        self._call(lambda: super(Dying, self).drop(family))

    def write(self, batch: Batch) -> None:
        self._call(lambda: super(Dying, self).write(batch))

    def ingest(self, family: str, entries: Iterable[tuple[bytes, bytes]]) -> None:
        self._call(lambda: super(Dying, self).ingest(family, entries))


def change(table: str, numbers: dict[int, int], deletes: Iterable[int] = ()) -> Changes:
    """Put {key: stored time}, delete keys."""
    rest = b"" if table != "views" else bytes(44)
    width = KEY_BYTES[table]
    puts = [(n.to_bytes(width, "big"), ms.to_bytes(8, "big") + rest) for n, ms in numbers.items()]
    return Changes.pack(table, width, puts, [n.to_bytes(width, "big") for n in deletes])


numbers = st.integers(0, KEYS - 1)
times = st.integers(0, 3 * WINDOW_MS)


@st.composite
def step_changes(draw: st.DrawFn) -> list[Changes]:
    """Mostly what goes to disk as a file: everything stored at one time, and nothing deleted that expires."""
    stored_ms = draw(times)
    made = [
        change(table, dict.fromkeys(draw(st.lists(numbers, max_size=3)), stored_ms))
        for table in draw(st.sets(st.sampled_from(sorted(EXPIRING))))
    ]
    made.append(change("pending", draw(st.dictionaries(numbers, times, max_size=2)), draw(st.lists(numbers, max_size=2))))
    if draw(st.integers(0, 9)) == 0:
        made.append(change("seen", draw(st.dictionaries(numbers, times, max_size=3)), draw(st.lists(numbers, max_size=1))))
    return made


def log_of(steps: list[tuple[list[Changes], int]]) -> list[bytes]:
    """The messages of steps that count, each with its changes and by how much stream time moves."""
    stream_time_ms, messages = 0, []
    for n, (changes, passed_ms) in enumerate(steps):
        stream_time_ms += passed_ms
        messages.append(encode_step(StepMessage(1, 0, n + 1, n - 1, n, n, stream_time_ms, b"", {}, {}, [], [], changes)))
    return messages


def verify(db: PartitionStore, steps: list[tuple[list[Changes], int]], *, scans: bool = True) -> None:
    """See that the store has what `steps` leave, less what has expired. A scan writes what is gathered."""
    twin, stream_time_ms = MemoryState(), sum(passed_ms for _, passed_ms in steps)
    for changes, _ in steps:
        twin.apply(changes)

    def alive(entries: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        return {k: v for k, v in entries if int.from_bytes(v[:8], "big") + WINDOW_MS >= stream_time_ms}

    for table, width in KEY_BYTES.items():
        keys = [n.to_bytes(width, "big") for n in range(KEYS)]
        got = {key: value for key, value in zip(keys, db.get(table, keys), strict=True) if value is not None}
        found, expected = dict(db.scan(table)) if scans else got, dict(twin.scan(table))
        if table in EXPIRING:
            found, got, expected = alive(found.items()), alive(got.items()), alive(expected.items())
        assert found == got == expected, table


histories = st.lists(st.tuples(step_changes(), st.integers(0, 400)), max_size=12)


ACTIONS = ("look", "scan", "write", "close", "crash")
actions = st.sampled_from(["commit", "follow"]), st.sets(st.sampled_from(ACTIONS), max_size=2)


@settings(max_examples=80, deadline=None)
@given(history=st.lists(st.tuples(step_changes(), st.integers(0, 400), *actions), max_size=12), engine=st.booleans())
def test_steps_that_were_taken_are_there_however_they_came_and_were_written(
    history: list[tuple[list[Changes], int, str, set[str]]], engine: bool
) -> None:
    """A crash leaves what was written last; RocksDB's own crashes have tests with processes that are killed."""
    steps = [(changes, passed_ms) for changes, passed_ms, _, _ in history]
    messages = log_of(steps)
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        disk = Disk()

        def opened() -> PartitionStore:
            made: Engine = RocksEngine(Path(name) / "db", MEMORY) if engine else disk.open("db")
            return PartitionStore(made, WINDOW_MS, lambda: GATHERED_BYTES)

        db = opened()
        for n, (message, (_, _, how, then)) in enumerate(zip(messages, history, strict=True)):
            if how == "commit":
                db.commit(decode_step(message), message, n)
            else:
                db.follow(message, n)
            assert (db.rows_offset, db.position.accepted.number) == (n, n + 1)
            if "look" in then:
                verify(db, steps[: n + 1], scans=False)
            if "scan" in then:
                verify(db, steps[: n + 1])
            if "write" in then:
                db.write()
            if "crash" in then and not engine:
                disk.release("db")
                db = opened()
                assert db.rows_offset == db.position.accepted.offset
                verify(db, steps[: db.rows_offset + 1], scans=False)
                for offset in range(db.rows_offset + 1, n + 1):
                    db.follow(messages[offset], offset)
            if "close" in then:
                db.close()
                db = opened()
            assert (db.rows_offset, db.position.digest) == (n, digest_of(message))
        verify(db, steps, scans=False)
        verify(db, steps)
        db.close()


@settings(max_examples=200, deadline=None)
@given(steps=histories, left=st.integers(1, 12), after=st.booleans())
def test_whoever_dies_while_it_writes_them_goes_on_from_the_position_on_disk(
    steps: list[tuple[list[Changes], int]], left: int, after: bool
) -> None:
    disk, messages = Disk(), log_of(steps)
    dying = Dying(disk, "db", disk._databases.setdefault("db", {"default": {}}))
    dying.left, dying.after = left, after
    try:
        db = PartitionStore(dying, WINDOW_MS, lambda: GATHERED_BYTES)
        for n, message in enumerate(messages):
            db.follow(message, n)
        db.write()
    except Crash:
        pass
    again = PartitionStore(disk.open("db"), WINDOW_MS, lambda: GATHERED_BYTES)
    assert again.rows_offset == again.position.accepted.offset
    for n in range(again.rows_offset + 1, len(messages)):
        again.follow(messages[n], n)
    verify(again, steps)


def test_a_write_that_failed_is_made_good_before_anything_else_is_written() -> None:
    disk = Disk()
    engine = Dying(disk, "db", disk._databases.setdefault("db", {"default": {}}))
    db = PartitionStore(engine, WINDOW_MS)
    steps = [([change("seen", {n: 5})], 0) for n in range(3)]
    messages = log_of(steps)
    for n in range(3):
        db.follow(messages[n], n)
    engine.left = 1
    with pytest.raises(Crash):
        db.write()
    verify(db, steps, scans=False)
    verify(db, steps)


def test_only_so_many_steps_are_gathered() -> None:
    disk = Disk()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    messages = log_of([([], 0)] * GATHERED_STEPS)
    for n, message in enumerate([*messages, b"nonsense"] * 2):
        db.follow(message, n)
        disk.release("db")
        written = PartitionStore(disk.open("db"), WINDOW_MS).rows_offset
        assert written == (n + 1) // GATHERED_STEPS * GATHERED_STEPS - 1
        assert db.rows_offset == n


def test_a_write_holds_back_no_more_bytes_than_it_may() -> None:
    disk = Disk()
    most = 10_000
    db = PartitionStore(disk.open("db"), WINDOW_MS, lambda: most)
    frame = Changes.pack("pending", 8, [(bytes(8), bytes(6_000))])
    closed = Changes.pack("pending", 8, [], [bytes(8)])
    for n, message in enumerate(log_of([([frame], 0), ([closed], 0), ([frame], 0), ([frame], 0)])):
        db.follow(message, n)
    assert disk.snapshot("db")["default"] == {}, "a frame that was replaced, or has gone, is held back no more"
    for n, message in enumerate(log_of([([], 0)] * 4 + [([change("pending", {1: 5}), frame], 0)] * 2)[4:], 4):
        db.follow(message, n)
    assert disk.snapshot("db")["default"] == {}
    most = 5_000
    for n, message in enumerate(log_of([([], 0)] * 7)[6:], 6):
        db.follow(message, n)
    disk.release("db")
    assert PartitionStore(disk.open("db"), WINDOW_MS).rows_offset == 6


def test_a_store_that_found_a_gap_is_wiped_with_what_it_had_gathered() -> None:
    disk = Disk()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    messages = log_of([([change("seen", {n: 5})], 0) for n in range(6)])
    for n in range(3):
        db.follow(messages[n], n)
    with pytest.raises(StepGap):
        db.follow(messages[5], 5)
    db.wipe()
    assert disk.names() == []


def test_what_was_ingested_before_the_first_position_does_not_outlive_it() -> None:
    """The log may begin elsewhere when the store is opened again (rule E5)."""
    disk = Disk()
    engine = disk.open("db")
    engine.create("generation-0")
    engine.ingest("generation-0", [(b"s" + bytes(16), bytes(8))])
    engine.close()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    assert (db.empty, db.generations()) == (True, [])
