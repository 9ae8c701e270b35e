"""One partition of `rows`, a bucket, and sinks that can die, for the sink's tests."""

import base64
import io
import itertools
from collections import Counter

import msgspec
import polars as pl
from pyroaring import BitMap

from agents.sink.encoder import encoder
from agents.sink.partition import Displaced, SinkPartition, SinkPorts
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import FLOWS, OUTPUTS
from app.core.formats.object_keys import chain_prefix
from app.core.formats.read_files import decode_output
from app.core.formats.step_message import NO_PREDECESSOR, DeadLetter, LedgerEntry, Replay, StepMessage, encode_step
from app.core.formats.transaction_record import Ready, TransactionRecord, ready_of
from app.core.sink.chain import ChainId, LogBounds, decode_record, manifest_of
from app.core.sink.open_transaction import CommitRules, Reception
from app.settings import Settings
from app.testing.memory import MemoryObjectStore

PLACE = ChainId(1, 0)
RULES = CommitRules(interval_s=10, bytes=1 << 20, idle_s=60)
BATCH = "0190f3c0-0000-7000-8000-000000000000"


class StandingClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.moment_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.moment_ms

    def monotonic_s(self) -> float:
        return self.moment_ms / 1000

    def pass_s(self, seconds: float) -> None:
        self.moment_ms += int(seconds * 1000)


class Died(Exception):
    """The process is gone."""


class Process:
    """A sink process's view of the bucket: the same objects, calls that can be counted, and an end to them."""

    def __init__(self, world: "World") -> None:
        self.store = MemoryObjectStore(world.clock)
        self.store._objects, self.store._sorted = world.store._objects, world.store._sorted
        self.store.before, self.store.after = self._before, self._after
        self.moments = 0
        self.dies_at: int | None = None
        self.log: list[tuple[str, str]] = []

    async def _before(self, call: str, subject: str) -> None:
        self.log.append((call, subject))
        self._moment()

    async def _after(self, call: str, subject: str) -> None:
        self._moment()

    def _moment(self) -> None:
        """Two moments a call: just before it, and just after."""
        self.moments += 1
        if self.dies_at is not None and self.moments > self.dies_at:
            raise Died


class World:
    """The log of one partition, written by its ETL, and the bucket that sinks share."""

    def __init__(self, place: ChainId = PLACE, bucket: str = "memory") -> None:
        self.place = place
        self.clock = StandingClock()
        self.store = MemoryObjectStore(self.clock, bucket)
        self.messages: list[bytes] = []
        self.earliest = 0
        self.announced: list[bytes] = []
        self.expected: dict[str, Counter[str]] = {flow.name: Counter() for flow in FLOWS}
        self.expected_lines: Counter[tuple[str, int]] = Counter()
        self.expected_replays = self.expected_dead_letters = 0
        self.stream_time_ms = 1_000
        self._number, self._last, self._before_last = 0, NO_PREDECESSOR, NO_PREDECESSOR
        self._ids = itertools.count()
        self._random = itertools.count()

    # --- the ETL

    def emit(self, **rows: int) -> int:
        """Append a step that readers accept, with so many rows of each flow. Returns: its offset."""
        return self._append(self._step(self._number + 1, self._last, rows, counts=True))

    def tick(self, ms: int = 1_000) -> int:
        """Append a step that readers accept and that only moves stream time."""
        self.stream_time_ms += ms
        return self.emit()

    def zombie(self, **rows: int) -> int:
        """Append a step of a writer that did not see the last one; it must leave no trace."""
        offset = len(self.messages)
        self.messages.append(
            encode_step(self._step(self._number, self._before_last, rows or {"redirects": 2}, counts=False))
        )
        return offset

    def _append(self, step: StepMessage) -> int:
        self._number, self._before_last, self._last = step.number, self._last, len(self.messages)
        self.messages.append(encode_step(step))
        return self._last

    def _step(self, number: int, predecessor: int, rows: dict[str, int], *, counts: bool) -> StepMessage:
        streams, ledger, replays, dead = {}, [], [], []
        for flow, count in rows.items():
            if flow == "replays":
                replays = [Replay(BATCH, n, 1) for n in range(count)]
                self.expected_replays += count * counts
                continue
            if flow == "dead_letters":
                dead = [
                    DeadLetter(n, "FrameInvalid: garbage", BATCH, n, 0) if n else DeadLetter(n, "") for n in range(count)
                ]
                self.expected_dead_letters += count * counts
                continue
            ids = [f"e{next(self._ids)}" for _ in range(count)]
            lines = [int(event[1:]) for event in ids]
            frame = {name: [None] * count for name in frame_schema(flow) if name != "txn_id"}
            frame |= {"event_id": ids, "batch_id": [BATCH] * count, "line": lines}
            streams[flow] = ipc(pl.DataFrame(frame, schema={name: frame_schema(flow)[name] for name in frame}))
            ledger.append(LedgerEntry(BATCH, flow, count, BitMap(lines).serialize()))
            if counts:
                self.expected[flow].update(ids)
                self.expected_lines.update((flow, line) for line in lines)
        return StepMessage(
            *self.place, number, predecessor, 0, -1, self.stream_time_ms, b"", streams, rows, ledger, replays, [],
            dead_letters=dead,
        )  # fmt: skip

    # --- sinks

    def process(self) -> Process:
        return Process(self)

    def sink(self, process: Process | None = None) -> SinkPartition:
        async def announce(ready: bytes) -> None:
            self.announced.append(ready)

        async def bounds() -> LogBounds:
            return LogBounds(self.earliest, len(self.messages))

        async def no_sleep(_: float) -> None:
            return None

        ports = SinkPorts(
            (process or self.process()).store, announce, bounds, self.clock, lambda: f"{next(self._random):08x}", no_sleep,
            encoder(Settings()),
        )  # fmt: skip
        return SinkPartition(self.place, RULES, ports)

    def feed(self, sink: SinkPartition, start: int, end: int | None = None) -> list[Reception]:
        return [
            sink.take(offset, self.messages[offset]) for offset in range(start, len(self.messages) if end is None else end)
        ]

    async def drain(self, sink: SinkPartition, per_transaction: int = 2) -> None:
        """Open the sink and let it commit until transactions cover the whole log."""
        offset = await sink.open()
        while sink.acknowledged < len(self.messages) - 1:
            end = min(max(sink.next_offset, offset) + per_transaction, len(self.messages))
            self.feed(sink, offset, end)
            displaced = await sink.commit()
            offset = displaced.read_from if isinstance(displaced, Displaced) else sink.next_offset

    # --- invariants

    def records(self) -> list[TransactionRecord]:
        keys = sorted(key for key in self.store._objects if key.startswith(chain_prefix(*self.place)))
        return [decode_record(self.body(key), self.place, n) for n, key in enumerate(keys, 1)]

    def body(self, key: str) -> bytes:
        return self.store._objects[key][0]

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.store._sorted if key.startswith(prefix)]

    def check_ready(self) -> None:
        """I4: every ready transaction has its manifests, and every manifest's object has the length that it names."""
        for key in [key for key in self.keys("manifests/") if key.endswith("ready.json")]:
            ready = msgspec.json.decode(self.body(key), type=Ready)
            assert [out.output for out in ready.outputs] == [flow.name for flow in OUTPUTS]
            for out in ready.outputs:
                if out.rows == 0:
                    assert (out.staged_key, out.data_key, out.manifest_key) == (None, None, None)
                    continue
                assert self.body(out.manifest_key) == manifest_of(self.store.bucket, [out])
                entry = msgspec.json.decode(self.body(out.manifest_key))["entries"][0]
                assert entry["mandatory"] is True
                name = entry["url"].removeprefix(f"s3://{self.store.bucket}/")
                assert len(self.body(name)) == entry["meta"]["content_length"]
        for key in [key for key in self.keys("manifests/") if key.endswith(".manifest")]:
            for entry in msgspec.json.decode(self.body(key))["entries"]:
                assert entry["url"].removeprefix(f"s3://{self.store.bucket}/") in self.store._objects

    def check_complete(self) -> None:
        """Every message in exactly one transaction, every row and line of an accepted one exactly once, nothing else."""
        self.check_ready()
        records = self.records()
        edges = [(record.first_offset, record.last_offset) for record in records]
        assert edges[0][0] == self.earliest or records[0].accepted_gap
        assert edges[-1][1] == len(self.messages) - 1
        assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(edges))
        found = {flow.name: Counter() for flow in FLOWS}
        lines, replays, dead = Counter(), 0, 0
        for record in records:
            assert self.body(record.ready_key) == msgspec.json.encode(ready_of(record))
            for out in record.outputs:
                if out.data_key is None:
                    continue
                rows = decode_output(out.output, self.body(out.data_key))
                assert rows.height == out.rows
                assert rows["txn_id"].unique().to_list() == [record.txn_id]
                if out.output == "ledger":
                    for outcome, line_set in rows.select("outcome", "line_set").iter_rows():
                        lines.update((outcome, line) for line in BitMap.deserialize(base64.b64decode(line_set)))
                elif out.output == "replays":
                    replays += rows.height
                elif out.output == "dead_letters":
                    dead += rows.height
                else:
                    found[out.output].update(rows["event_id"].to_list())
        assert found == self.expected
        assert lines == self.expected_lines
        assert (replays, dead) == (self.expected_replays, self.expected_dead_letters)


def ipc(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="lz4")
    return sink.getvalue()
