"""`etl-core`: decode, step, encode and RocksDB commit of one partition in this process, without Kafka.

The loop is the worker's own (`agents.etl.partition`), with topic `blocks` in memory and a log that answers at once. The rows
are counted and compared with the traffic's expected rows.
"""

import asyncio
import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

from agents.etl.partition import EtlPartition
from app.adapters.enrichment import open_enricher
from app.bench.measure import BenchRun, Meter, like_a_worker, peak_rss_bytes
from app.bench.phases import Phases
from app.bench.plan import BenchPlan
from app.bench.traffic import RATE_PER_S, LogEntry, PartitionTraffic, Shape
from app.clock import SystemClock
from app.core.etl.meta import EtlMeta, encode_meta
from app.core.etl.step import PartitionEtl
from app.core.formats.step_message import Changes, StepMessage
from app.core.rules import EtlRules
from app.core.state.encoding import pack_time
from app.errors import BenchmarkWrong
from app.settings import Settings
from tables.store.partition_store import PartitionStore
from tables.store.position import StorePosition
from tables.store.rocksdb import Memory, RocksEngine

PHASES: Final = {
    "app.core.etl.source": "intake",
    "app.core.etl.decode": "decode",
    "app.core.etl.classify": "ids and fates",
    "app.core.etl.dedup": "ids and fates",
    "app.core.etl.route": "frames",
    "app.core.etl.lines": "frames",
    "app.core.formats.columns": "frames",
    "app.core.formats.columns:pack_frame": "pack",
    "app.core.formats.columns:unpack_frame": "window frames",
    "app.core.etl.rejected_rows": "rejected",
    "app.core.join.join": "join",
    "app.core.join.window_close": "join",
    "app.core.join.window": "join",
    "app.core.join.window_state": "window frames",
    "app.core.enrich.enrich": "enrich",
    "app.core.enrich.memo": "enrich",
    "app.core.enrich.page_urls": "enrich",
    "app.core.enrich.url_tags": "enrich",
    "app.core.enrich.referrers": "enrich",
    "app.core.etl.flow_rows": "frames",
    "app.core.etl.flow_rows:page_view_rows": "enrich",
    "app.core.etl.flow_rows:redirect_rows": "enrich",
    "app.core.etl.ledger": "ledger",
    "app.core.etl.step": "step",
    "app.core.formats.step_message": "encode",
    "tables.store.partition_store": "commit",
    "tables.store.partition_store:get": "look-ups",
    "tables.store.partition_store:maybe": "look-ups",
}
"""The phases of samples."""
WARM_UP_S: Final = 130
"""Simulated seconds before the measurement: afterwards page views close as fast as they come."""
FILL_KEYS: Final = 20_000
"""Ids in a step that fills the state."""
LOOK_S: Final = 1.0
"""Most looks at the state until it has settled."""
IDLE_SHARE: Final = 0.02
"""If a waiting process takes less than this share of a core, its threads have no work left."""
QUIET_S: Final = 300
"""Simulated seconds of ticks behind the events, in which everything closes."""


class BenchMessage:
    """The part of a Kafka message that the loop reads."""

    __slots__ = ("offset", "timestamp")

    def __init__(self, offset: int, timestamp_s: float) -> None:
        self.offset = offset
        self.timestamp = timestamp_s


class Event:
    """The part of a Faust event that the loop reads."""

    __slots__ = ("message", "value")

    def __init__(self, offset: int, entry: LogEntry) -> None:
        self.message = BenchMessage(offset, (entry.end_ms + 1000) / 1000)
        self.value = entry.value


class PreloadedInbox:
    """An inbox that has all messages already, and closes after the last one."""

    def __init__(self, events: Sequence[Event], partition: int = 0) -> None:
        self._events = events
        self._next = 0
        self.partition = partition
        self.closing = False

    async def take(self, timeout_s: float | None = None, limit: int = 32) -> Sequence[Event]:
        """The next `limit` messages."""
        del timeout_s
        taken = self._events[self._next : self._next + limit]
        self._next += len(taken)
        return taken

    def ack(self, through: int) -> None:
        """Close once the last message is acknowledged."""
        self.closing = through >= self._events[-1].message.offset


class InstantJournal:
    """The ports of the only partition: a log that answers at once, and the store behind it."""

    def __init__(self, db: PartitionStore, keep: list[bytes] | None = None) -> None:
        self.state = self
        self.clock = SystemClock()
        self._db = db
        self._keep = keep
        self._end = db.rows_offset + 1
        self.outcomes: Counter[str] = Counter()
        self.bytes = 0
        self.steps = 0
        self.marks_s: list[float] = []
        """CPU time of this process at each step's end."""

    def position(self, _: int) -> StorePosition:
        """The last step in the store."""
        return self._db.position

    async def send_dead_letters(self, _: int, letters: Sequence[bytes]) -> None:
        """Fail on any dead letter: the traffic has only readable blocks.

        Raises:
            BenchmarkWrong: there was a dead letter.
        """
        raise BenchmarkWrong(f"{len(letters)} blocks could not be read")

    async def append(self, _: int, message: bytes) -> int:
        """The message's offset."""
        self.bytes += len(message)
        if self._keep is not None:
            self._keep.append(message)
        self._end += 1
        return self._end - 1

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Let the store take the step."""
        self._db.commit(step, message, offset)
        self.steps += 1
        self.marks_s.append(time.process_time())
        for entry in step.ledger:
            self.outcomes[entry.outcome] += entry.lines


def rules_of(settings: Settings) -> EtlRules:
    """The ETL's rules with the defaults of the settings."""
    return EtlRules(
        epoch=settings.epoch, partitions=settings.partitions, join=settings.join,
        dedup_window_ms=settings.dedup_window_ms, message_bytes=settings.max_message_bytes - 4096,
        kernels=settings.kernels,
    )  # fmt: skip


class Preloaded:
    """The log of one partition in memory, its warm-up apart."""

    def __init__(self, events: int, block_lines: int, warm_up_s: float = WARM_UP_S) -> None:
        warm = int(warm_up_s * RATE_PER_S)
        traffic = PartitionTraffic(Shape(events + warm, block_lines))
        entries = list(traffic)
        log = [Event(offset, entry) for offset, entry in enumerate(entries)]
        done, cut = 0, len(log)
        for n, entry in enumerate(entries):
            if done >= warm:
                cut = n
                break
            done += entry.lines
        self.warm_up, self.measured = log[:cut], log[cut:]
        self.events = events + warm - done
        self.bytes = sum(len(event.value) for event in self.measured)
        ticks = [traffic.tick(entries[-1].end_ms + second * 1000) for second in range(1, QUIET_S)]
        self.last = [Event(offset, entry) for offset, entry in enumerate(ticks, len(log))]
        self.outcomes = traffic.outcomes
        self.start_ms = traffic.start_ms


async def _feed(core: PartitionEtl, journal: InstantJournal, events: Sequence[Event]) -> None:
    if events:
        inbox = PreloadedInbox(events)
        await EtlPartition(core, cast(Any, inbox), journal).run()


def fill(db: PartitionStore, keys: int, now_ms: int, window_ms: int) -> None:
    """Let the store remember `keys` random ids, stored at times spread evenly over the dedup window before `now_ms`."""
    rng = random.Random(keys)
    left, done = keys, 0
    while left:
        count = min(left, FILL_KEYS)
        stored = pack_time(now_ms - window_ms + 1 + window_ms * done // keys)
        ends = struct.pack(f"<{count}I", *range(8, 8 * count + 1, 8))
        change = Changes("seen", 16, rng.randbytes(16 * count), ends, stored * count)
        accepted = db.position.accepted
        step = StepMessage(
            epoch=1, partition=0, number=accepted.number + 1, predecessor=accepted.offset, source_first=0, source_last=-1,
            stream_time_ms=0, meta=encode_meta(EtlMeta()), rows={}, row_counts={}, ledger=[], replays=[], changes=[change],
        )  # fmt: skip
        db.commit(step, b"", db.rows_offset + 1)
        left, done = left - count, done + count
    if keys:
        db.write()
        settle()


def settle() -> None:
    """Wait until RocksDB's threads are idle: after a fill at full speed they still compact."""
    used_s = -1.0
    while (now_s := time.process_time()) - used_s > IDLE_SHARE * LOOK_S:
        used_s = now_s
        time.sleep(LOOK_S)


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage.

    Raises:
        BenchmarkWrong: other rows came out than the traffic brings.
    """
    log = Preloaded(plan.events, plan.block_lines)
    like_a_worker()
    with plan.profiled():
        return [run_once(log, plan.state_keys) for _ in range(plan.repeats)]


def run_once(log: Preloaded, state_keys: int = 0, keep: list[bytes] | None = None) -> BenchRun:
    """One run over `log` with a new store.

    Args:
        log: the messages.
        state_keys: ids that the store remembers beforehand.
        keep: gets every step message, if given.

    Raises:
        BenchmarkWrong: other rows came out than the traffic brings.
    """
    settings = Settings(partitions=1)
    with tempfile.TemporaryDirectory() as folder:
        db = PartitionStore(RocksEngine(Path(folder) / "db", Memory(settings.state_cache_bytes)), settings.dedup_window_ms)
        fill(db, state_keys, log.start_ms, settings.dedup_window_ms)
        enricher = open_enricher(settings, cast(Any, {}), cast(Any, {}))
        core = PartitionEtl.load(0, rules_of(settings), enricher, db, None, -1)
        journal = InstantJournal(db, keep)
        asyncio.run(_feed(core, journal, log.warm_up))
        written, steps = journal.bytes, journal.steps
        journal.marks_s.clear()
        meter, phases = Meter(), Phases(PHASES)
        with phases:
            meter.start()
            asyncio.run(_feed(core, journal, log.measured))
            db.write()
            meter.stop()
        marks_s = journal.marks_s.copy()
        written, steps = journal.bytes - written, journal.steps - steps
        asyncio.run(_feed(core, journal, log.last))
        db.close()
    if journal.outcomes != log.outcomes:
        raise BenchmarkWrong(f"the ETL made {dict(journal.outcomes)} of {dict(log.outcomes)}")
    return BenchRun(
        events=log.events, cpu_s=meter.cpu_s, wall_s=meter.wall_s, peak_rss_bytes=peak_rss_bytes(), bytes_in=log.bytes,
        bytes_out=written, phases=phases.shares(), more={"steps": steps, "step_ms": 1000 * meter.cpu_s / max(1, steps)},
        slices_s=[end - start for start, end in pairwise(marks_s)],
    )  # fmt: skip
