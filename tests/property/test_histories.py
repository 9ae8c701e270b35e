"""Whatever writers do to one partition of `rows`, every reader reads the same gapless history (rules E2, E3, E5).

Writers here behave as an ETL worker may at its worst: several own the partition at once, each with what it read when it
began; they die after sending; their messages arrive late or twice; and each would write different content.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.step_history import Accepted, StepVerdict
from app.core.formats.step_message import Changes, StepMessage, decode_step, digest_of, encode_step
from app.core.state.tables import MemoryState
from app.errors import StepConflict, StepGap, StepMessageInvalid
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, RocksEngine
from tests.worlds.quick_disk import QUICK_DISK

MEMORY = Memory(8 * 1024 * 1024)
WINDOW_MS = 1_000_000


@dataclass
class Writer:
    """A worker that believes to own the partition: a store of its own, and perhaps a message it sent and never saw land."""

    name: int
    db: PartitionStore
    in_flight: list[bytes] = field(default_factory=list)
    sent: int = 0

    def next_step(self, takes: int) -> bytes:
        """A step from what it knows, with content that nobody else would write."""
        accepted, source = self.db.position.accepted, self.db.position.source_last
        self.sent += 1
        tag = b"%d/%d" % (self.name, self.sent)
        changes = [
            Changes.pack(
                "seen", 16, [(b"%16d" % (source + n), (500).to_bytes(8, "big") + tag) for n in range(1, takes + 1)]
            ),
            Changes.pack("pending", 8, [((source + 1).to_bytes(8, "big"), tag)], [max(0, source - 2).to_bytes(8, "big")]),
        ]
        return encode_step(
            StepMessage(
                1, 0, accepted.number + 1, accepted.offset, source + 1, source + takes, 500, tag, {}, {}, [], [], changes
            )
        )


class World:
    """The log of one partition, and who writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[bytes] = []
        self.writers = [Writer(n, self.open(f"writer-{n}")) for n in range(3)]

    def open(self, name: str) -> PartitionStore:
        return PartitionStore(RocksEngine(self.folder / name, MEMORY), WINDOW_MS)

    def append(self, message: bytes) -> int:
        self.log.append(message)
        return len(self.log) - 1

    def follow(self, db: PartitionStore) -> None:
        """Recover: read the log to its end."""
        for offset in range(db.rows_offset + 1, len(self.log)):
            db.follow(self.log[offset], offset)

    def act(self, action: str, writer: Writer, amount: int) -> None:
        if action == "recover":
            self.follow(writer.db)
        elif action == "step":  # E3: send, then commit if nobody else wrote
            message = writer.next_step(amount)
            offset = self.append(message)
            try:
                writer.db.commit(decode_step(message), message, offset)
            except StepConflict:
                self.follow(writer.db)  # what a restart does
        elif action == "die after sending":
            self.append(writer.next_step(amount))
        elif action == "send late":
            writer.in_flight.append(writer.next_step(amount))
        elif action == "arrive late" and writer.in_flight:
            self.append(writer.in_flight.pop(0))
        elif action == "repeat" and self.log:
            self.append(self.log[-min(amount, len(self.log))])
        elif action == "foreign":
            self.append(FOREIGN[amount % len(FOREIGN)])

    def history(self) -> list[int]:
        """The offsets that count, as a reader like the sink finds them."""
        accepted, offsets = Accepted(), []
        for offset, message in enumerate(self.log):
            try:
                step = decode_step(message)
            except StepMessageInvalid:
                continue
            verdict = accepted.judge(step.number, step.predecessor)
            assert verdict is not StepVerdict.GAP
            if verdict is StepVerdict.ACCEPT:
                accepted = accepted.advance(offset)
                offsets.append(offset)
        return offsets

    def close(self) -> None:
        for writer in self.writers:
            writer.db.close()


FOREIGN = [b"", b"nonsense", b"STP1", b"STP1\x93\x01\x00"]
"""Messages that are none of a worker's: a null (which the log reader gives as no bytes), and others."""
ACTIONS = ["recover", "step", "step", "step", "die after sending", "send late", "arrive late", "repeat", "foreign"]
actions = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=40)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        yield Path(name)


def played(folder: Path, script: list[tuple[str, int, int]]) -> World:
    world = World(Path(tempfile.mkdtemp(dir=folder)))
    for action, writer, amount in script:
        world.act(action, world.writers[writer], amount)
    return world


@settings(max_examples=60, deadline=None)
@given(script=actions, batch=st.integers(1, 7))
def test_every_reader_reads_the_same_history(script: list[tuple[str, int, int]], batch: int) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        world = played(Path(name), script)
        offsets = world.history()
        steps = [decode_step(world.log[offset]) for offset in offsets]

        # gapless: numbers, predecessors, and every source message exactly once
        assert [step.number for step in steps] == list(range(1, len(steps) + 1))
        assert [step.predecessor for step in steps] == [-1, *offsets][: len(steps)]
        assert [step.source_first for step in steps] == [0, *(step.source_last + 1 for step in steps)][: len(steps)]

        expected = MemoryState()
        for step in steps:
            expected.apply(step.changes)
        last = offsets[-1] if offsets else -1

        standby = world.open("standby")  # reads in batches, is closed and opened between them
        for start in range(0, len(world.log), batch):
            for offset in range(start, min(start + batch, len(world.log))):
                standby.follow(world.log[offset], offset)
            standby.close()
            standby = world.open("standby")
        for writer in world.writers:
            world.follow(writer.db)
        for db in (standby, *(writer.db for writer in world.writers)):
            assert db.position.accepted == Accepted(len(steps), last)
            assert db.rows_offset == len(world.log) - 1
            assert db.position.digest == (digest_of(world.log[last]) if steps else b"")
            assert db.position.source_last == (steps[-1].source_last if steps else -1)
            for table in ("seen", "pending"):
                assert list(db.scan(table)) == list(expected.scan(table))
        standby.close()
        world.close()


@settings(max_examples=40, deadline=None)
@given(script=actions, data=st.data())
def test_an_empty_store_on_a_trimmed_log_ends_where_everyone_else_is(
    script: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as name:
        world = played(Path(name), [*script, ("recover", 0, 1), ("step", 0, 1), ("step", 0, 1)])
        offsets = world.history()
        trimmed = data.draw(st.integers(1, offsets[-2]) if offsets[-2] >= 1 else st.just(0))
        db = world.open("late comer")
        for offset in range(trimmed, len(world.log)):
            db.follow(world.log[offset], offset)
        assert db.position.accepted == Accepted(len(offsets), offsets[-1])
        assert db.rows_offset == len(world.log) - 1
        assert db.position.digest == digest_of(world.log[offsets[-1]])
        db.close()
        world.close()


def test_who_misses_a_counted_message_finds_a_gap(folder: Path) -> None:
    world = played(folder, [("step", 0, 1)] * 3)
    db = world.open("reader")
    db.follow(world.log[0], 0)
    with pytest.raises(StepGap):
        db.follow(world.log[2], 2)
    assert db.position.accepted == Accepted(1, 0)
    db.close()
    world.close()


def test_a_zombie_that_wakes_up_changes_nothing_and_finds_out(folder: Path) -> None:
    world = played(folder, [("step", 0, 2), ("recover", 1, 1), ("step", 0, 1)])
    owner, zombie = world.writers[0], world.writers[1]
    message = zombie.next_step(3)
    offset = world.append(message)
    before = (zombie.db.position, zombie.db.rows_offset, list(zombie.db.scan("seen")))
    with pytest.raises(StepConflict):
        zombie.db.commit(decode_step(message), message, offset)
    assert (zombie.db.position, zombie.db.rows_offset, list(zombie.db.scan("seen"))) == before
    assert offset not in world.history()
    after = owner.next_step(1)  # and the owner, who did not see it coming, conflicts too: it must recover
    with pytest.raises(StepConflict):
        owner.db.commit(decode_step(after), after, world.append(after))
    world.close()
