"""The table under Faust: what assignment, recovery and revocation do to a partition's store (rules E2 to E5)."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faust.types import TP
from rocksdict import DbClosedError

from app.core.formats.object_keys import record_key
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import Changes, StepMessage, decode_step, encode_step
from app.errors import DigestMismatch, StepConflict, StepGap, StoreLost, TopicRecreated
from app.testing.memory import MemoryLogs
from tables.partition_state import GATHERED_BYTES_OF_ALL
from tables.store.partition_store import PartitionStore
from tables.store.rocksdb import Memory, open_engine
from tests.worlds.etl_table import BLOCKS, KEY, ROWS, Worker


def step_bytes(number: int, predecessor: int, text: bytes = b"") -> bytes:
    changes = [Changes.pack("pending", 8, [(KEY, b"%d" % number + text)])]
    return encode_step(StepMessage(1, 0, number, predecessor, number - 1, number - 1, 0, b"", {}, {}, [], [], changes))


def history(length: int) -> list[bytes]:
    return [step_bytes(n + 1, n - 1) for n in range(length)]


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, MemoryLogs())
    yield made
    await made.store.stop()


async def test_recovery_follows_the_log_and_the_owner_goes_on_from_it(worker: Worker) -> None:
    log = worker.logs.messages[ROWS, 0] = history(3)
    log.append(step_bytes(2, 0, b" of a zombie"))
    await worker.assign(0)
    await worker.recover()
    assert worker.table.position(0).accepted == Accepted(3, 2)
    assert worker.pending() == b"3"
    await worker.table.verify_recovered(0)
    message = step_bytes(4, 2)
    worker.table.commit(decode_step(message), message, 4)
    assert worker.pending() == b"4"
    assert worker.table.persisted_offset(TP(ROWS, 0)) == 4


async def test_a_worker_that_has_not_read_everything_does_not_begin(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(2)
    await worker.assign(0)
    await worker.recover()
    worker.logs.messages[ROWS, 0].append(step_bytes(3, 1))
    with pytest.raises(StepConflict):
        await worker.table.verify_recovered(0)


async def test_a_gap_wipes_that_store_and_ends_the_worker(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = [*history(2), step_bytes(7, 5), step_bytes(3, 1)]
    worker.logs.messages[ROWS, 1] = history(1)
    await worker.assign(0, 1)
    await worker.recover(1)
    await worker.recover(0)
    assert [type(exc) for exc in worker.crashes] == [StepGap]
    assert worker.table.persisted_offset(TP(ROWS, 0)) is None
    assert worker.table.persisted_offset(TP(ROWS, 1)) == 0


async def test_an_error_while_applying_ends_the_worker_once_and_stops_there(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = PartitionStore.follow

    def fail_at_the_second(self: PartitionStore, message: bytes | None, offset: int) -> None:
        if offset == 1:
            raise OSError("disk")
        follow(self, message, offset)

    monkeypatch.setattr(PartitionStore, "follow", fail_at_the_second)
    worker.logs.messages[ROWS, 0] = history(3)
    await worker.assign(0)
    await worker.recover()
    await worker.recover()  # Faust flushes its buffers again on the way out
    assert len(worker.crashes) == 1
    assert worker.table.persisted_offset(TP(ROWS, 0)) == 0


async def test_recovery_passes_over_a_message_that_is_no_step(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = [*history(1), b"nonsense", step_bytes(2, 0)]
    await worker.assign(0)
    await worker.recover()
    assert worker.crashes == []
    assert worker.table.persisted_offset(TP(ROWS, 0)) == 2
    assert worker.table.position(0).accepted.number == 2


async def test_messages_of_other_topics_and_partitions_are_passed_over(worker: Worker) -> None:
    worker.logs.messages.update({(ROWS, 0): history(1), (ROWS, 1): history(1), ("articles", 0): [b"{}"]})
    await worker.assign(0)
    worker.apply(("articles", 0, 0), (ROWS, 1, 0), (ROWS, 0, 0))
    assert worker.crashes == []
    assert worker.table.persisted_offset(TP(ROWS, 0)) == 0
    assert not worker.store.partition_path(1).exists()


async def test_revoked_stores_are_closed_and_keep_their_content(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(2)
    await worker.assign(0, 1)
    await worker.recover()
    await worker.assign(1)
    with pytest.raises(KeyError):
        worker.pending()
    await worker.assign(0)  # would fail on the lock if it were still open
    assert worker.pending() == b"2"


async def test_a_store_that_cannot_be_closed_keeps_no_other_from_it(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(2)
    await worker.assign(0, 1)
    await worker.recover()
    for broken in (0, 1):  # whichever comes first
        worker.store.db(broken).close()
        with pytest.raises(DbClosedError):
            await worker.store.stop()
        open_engine(Path(worker.store.partition_path(1 - broken)), Memory(1 << 20)).close()  # nobody holds its lock
        await worker.assign()
        await worker.assign(0, 1)
        assert worker.pending() == b"2"


async def test_faust_is_told_an_offset_only_when_it_is_on_disk(worker: Worker) -> None:
    """Faust keeps what it is told, and may ask for the messages behind it for a store that a crash has set back."""
    worker.logs.messages[ROWS, 0] = history(3)
    await worker.assign(0)
    await worker.recover()
    assert worker.table.persisted_offset(TP(ROWS, 0)) == 2
    open_files = Path(worker.store.partition_path(0))
    copy = worker.store.path / "killed.db"
    shutil.copytree(open_files, copy, ignore=shutil.ignore_patterns("LOCK"))
    killed = PartitionStore(open_engine(copy, Memory(1 << 20)), 1_000)
    assert killed.rows_offset == 2
    killed.close()


async def test_the_stores_of_a_worker_share_what_they_may_hold_back(worker: Worker) -> None:
    await worker.assign(0)
    one = worker.store._gathered_bytes()
    await worker.assign(0, 1)
    assert worker.store._gathered_bytes() == min(one, GATHERED_BYTES_OF_ALL // 2)
    worker.store._owned = frozenset(range(64))
    assert worker.store._gathered_bytes() == GATHERED_BYTES_OF_ALL // 64


async def test_a_stale_store_is_wiped_before_recovery(worker: Worker) -> None:
    log = worker.logs.messages[ROWS, 0] = history(2)
    await worker.assign(0)
    await worker.recover()
    await worker.assign()
    log.extend(step_bytes(n + 1, n - 1) for n in range(2, 7))
    worker.logs.trimmed[ROWS, 0] = 3
    await worker.assign(0)
    assert worker.table.persisted_offset(TP(ROWS, 0)) is None
    await worker.recover()
    assert worker.table.position(0).accepted == Accepted(7, 6)


async def test_a_store_that_ends_right_before_the_log_begins_is_not_stale(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(3)
    await worker.assign(0)
    await worker.recover()
    worker.logs.trimmed[ROWS, 0] = 3
    await worker.assign(0)
    assert worker.pending() == b"3"


async def test_a_trimmed_log_too_short_to_name_a_base_is_lost(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(3)
    worker.logs.trimmed[ROWS, 0] = 2
    await worker.assign(0)
    await worker.recover()
    with pytest.raises(StoreLost):
        await worker.table.verify_recovered(0)


async def test_a_log_without_any_message_left_is_lost(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(3)
    worker.logs.trimmed[ROWS, 0] = 3
    with pytest.raises(StoreLost):
        await worker.assign(0)


async def test_a_store_ahead_of_its_log_is_refused(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(3)
    await worker.assign(0)
    await worker.recover()
    worker.logs.messages[ROWS, 0] = history(2)
    with pytest.raises(TopicRecreated):
        await worker.assign(0)


async def test_a_log_with_another_last_message_is_refused(worker: Worker) -> None:
    worker.logs.messages[ROWS, 0] = history(3)
    await worker.assign(0)
    await worker.recover()
    worker.logs.messages[ROWS, 0] = [*history(2), step_bytes(3, 1, b" rewritten"), step_bytes(4, 2)]
    with pytest.raises(DigestMismatch):
        await worker.assign(0)
    assert worker.pending() == b"3"


async def test_an_empty_log_is_a_first_start(worker: Worker) -> None:
    await worker.assign(0, 1)
    assert worker.table.position(0).accepted == Accepted()
    await worker.table.verify_recovered(0)


async def test_an_empty_log_with_a_chain_in_s3_is_lost(worker: Worker) -> None:
    await worker.app.ports.objects.put(record_key(1, 0, 1), b"{}")
    with pytest.raises(StoreLost, match="S3 has transactions/1/0/"):
        await worker.assign(0)


async def test_what_another_owner_began_meanwhile_is_no_loss(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was stopped after it found the log empty is told of offsets that were acknowledged since."""

    async def committed(_: str) -> dict[tuple[str, int], int]:
        worker.logs.messages[ROWS, 0] = history(1)
        return {(BLOCKS, 0): 7}

    monkeypatch.setattr(worker.logs, "committed", committed)
    await worker.assign(0)
    await worker.recover()
    await worker.table.verify_recovered(0)
    assert worker.table.position(0).accepted == Accepted(1, 0)


async def test_an_empty_log_whose_source_was_acknowledged_is_lost(worker: Worker) -> None:
    worker.logs.acknowledged["instream-etl-e1"] = {(BLOCKS, 0): 7}
    with pytest.raises(StoreLost, match="acknowledged up to 7"):
        await worker.assign(0)
