"""One partition with its source, its log and the messages that were lost from it, for tests of the log's repair."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from pyroaring import BitMap

from agents.etl.log_repair import Findings, LogRepairPorts, find_damage
from app.core.etl.step import PartitionEtl
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import StepLog, encode_step
from app.core.repair.replacements import Replacements
from app.core.rules import EtlRules
from app.core.sink.chain import ChainEnd, ChainId
from app.core.sink.open_transaction import OpenTransaction
from app.core.state.tables import KEY_BYTES
from app.testing.memory import MemoryLogs
from app.testing.memory.engine import Disk
from tables.store.partition_store import PartitionStore
from tests.builders.visitors import ENRICHER

ROWS, BLOCKS = "rows-e1", "blocks-e1"
LOG = StepLog(ROWS, 0, 1)
DAMAGED = b"STP1 the rest of it is gone"
State = dict[str, list[tuple[bytes, bytes]]]


class DamagedLog:
    """Written by one owner of partition 0, which cuts the source as `cuts` says."""

    def __init__(self, source: Sequence[SourceMessage], rules: EtlRules, chance: random.Random) -> None:
        self.rules = rules
        self.logs = MemoryLogs()
        self.steps: list[int] = []
        """The offsets that count."""
        self.lost: dict[int, bytes] = {}
        self._write_source(source)
        self._write(source, chance)

    def _write_source(self, source: Sequence[SourceMessage]) -> None:
        self.logs.messages[BLOCKS, 0] = [message.value for message in source]
        self.logs.append_ms[BLOCKS, 0] = [message.timestamp_ms for message in source]

    def _write(self, source: Sequence[SourceMessage], chance: random.Random) -> None:
        """Step as an owner does; now and then a message of a zombie or of another program comes in between."""
        store = self.open_store()
        core = PartitionEtl.load(0, self.rules, ENRICHER, store, None, -1)
        at = 0
        while core.leftover or at < len(source):
            if chance.random() < 0.1:
                strange = b"of another program"
                store.follow(strange, self._append(strange))
            taken = core.take(source[at : at + chance.randint(1, 4)])
            accepted = store.position.accepted
            step = core.decide(source[at : at + taken], accepted.number + 1, accepted.offset).message
            for _ in range(2 if chance.random() < 0.1 else 1):  # a zombie sends the same step once more
                offset = self._append(encode_step(step))
                store.follow(encode_step(step), offset)
            core.advance(step)
            self.steps.append(store.position.accepted.offset)
            at += taken
        store.close()

    def _append(self, message: bytes) -> int:
        return self.logs.append(ROWS, 0, message)

    @property
    def messages(self) -> list[bytes]:
        """The log as it is."""
        return self.logs.messages.get((ROWS, 0), [])

    def damage(self, offsets: Iterable[int], by: bytes = DAMAGED) -> None:
        """Write over the messages at these offsets."""
        for offset in offsets:
            self.lost[offset], self.messages[offset] = self.messages[offset], by

    def open_store(self) -> PartitionStore:
        return PartitionStore(Disk().open("store"), self.rules.dedup_window_ms, step_log=LOG)

    def find(self, replaced: Replacements | None = None, *, etl_is_stopped: bool = False) -> Findings:
        """What the repair finds."""
        ports = LogRepairPorts(self.logs, ROWS, BLOCKS, self.rules, ENRICHER, etl_is_stopped)
        return asyncio.run(find_damage(ports, 0, self.open_store, replaced or Replacements()))

    def state(self, replaced: Replacements | None = None) -> State:
        """The state of a store that follows the log from its beginning."""
        replaced, store = replaced or Replacements(), self.open_store()
        for offset, message in enumerate(self.messages):
            store.follow(replaced.at(offset, message), offset)
        found = {table: list(store.scan(table)) for table in KEY_BYTES}
        store.close()
        return found

    def _taken(self, replaced: Replacements | None) -> OpenTransaction:
        open_ = OpenTransaction(ChainId(1, 0), ChainEnd(), 0, replaced)
        for offset, message in enumerate(self.messages):
            open_.take(offset, message, 0)
        return open_

    def lines(self, replaced: Replacements | None = None) -> Counter[tuple[str, str, int]]:
        """Every line in the ledger that the sink takes: batch, outcome, number."""
        ledger = self._taken(replaced).ledger
        return Counter((each.batch_id, each.outcome, n) for each in ledger for n in BitMap.deserialize(each.line_set))

    def emitted(self, replaced: Replacements | None = None) -> Counter[tuple[str, str, bytes | int]]:
        """The ledger and rows that the sink takes, as entries, and as the bytes of the flows' streams."""
        open_ = self._taken(replaced)
        found: Counter[tuple[str, str, bytes | int]] = Counter()
        found.update((entry.batch_id, entry.outcome, entry.line_set) for entry in open_.ledger)
        found.update((each.batch_id, "replay", each.block) for each in open_.replays)
        found.update((flow, "stream", stream) for flow, streams in open_.streams.items() for stream in streams)
        return found


def replacements_of(found: Findings) -> Replacements:
    return Replacements({each.offset: each.message for each in found.repairs}, LOG)
