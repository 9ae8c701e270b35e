"""The store of one ETL partition: the state tables, and how far on `rows` they go.

    family            key                                  value
    default           "position"                           `Position`, msgpack
                      "rows"                               rows offset: last one read or written, 8 bytes big-endian
    window            table's tag, then the state's key    pending and seconds
    generation-<n>    table's tag, then the state's key    seen, blocks and views by stored time (`tables.generations`)

A step's changes, its position and its offset go in with one batch: all of it or nothing (rule E3).
"""

from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Final

import msgspec
import structlog

from app.core.base_search import BaseSearch, Candidate, counted_before
from app.core.counting import Counted, Verdict
from app.core.state import EXPIRING, KEY_BYTES
from app.core.step_message import NO_PREDECESSOR, Changes, StepMessage, decode_step, digest_of
from app.errors import StepConflict, StepGap, StoreLost
from tables.engine import Batch, Engine
from tables.generations import Generations, family_name, generation_of

log = structlog.get_logger(__name__)

_POSITION: Final = b"position"
_ROWS: Final = b"rows"
_DEFAULT: Final = "default"
_WINDOW: Final = "window"
_TAGS: Final = {"seen": b"s", "blocks": b"b", "views": b"v", "pending": b"p", "seconds": b"e"}

if _TAGS.keys() != KEY_BYTES.keys():
    raise RuntimeError("every state table needs a tag")


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a store goes: what the last counted step left."""

    counted: Counted = Counted()
    digest: bytes = b""
    """Of the last counted message (rule E5)."""
    source_last: int = -1
    """Offset on `blocks` up to which the source is applied."""
    stream_time_ms: int = 0
    meta: bytes | None = None
    """The ETL's own state between steps."""


class PartitionDb:
    """The open store of one partition: a `StateReader` that applies steps.

    Args:
        engine: The partition's database, open; the store closes it.
        window_ms: The dedup window.
    """

    def __init__(self, engine: Engine, window_ms: int) -> None:
        self._engine = engine
        self._rules = Generations(window_ms)
        if _WINDOW not in engine.families():
            engine.create(_WINDOW)
        self._generations = sorted(n for name in engine.families() if (n := generation_of(name)) is not None)
        stored, rows = engine.get(_DEFAULT, [_POSITION, _ROWS])
        self.position = Position() if stored is None else msgspec.msgpack.decode(stored, type=Position)
        self.rows_offset = NO_PREDECESSOR if rows is None else int.from_bytes(rows, "big")
        """Last offset on `rows` that this store has read or written; it never goes back."""
        self._search: BaseSearch | None = None

    @property
    def empty(self) -> bool:
        """Whether it has never taken anything from the log."""
        return self.rows_offset == NO_PREDECESSOR

    def verify_read_to(self, end: int) -> None:
        """See that everything below `end`, the log's highwater, has been read.

        Raises:
            StoreLost: it was read, but the log is trimmed and too short to tell where its history begins (rule E5).
            StepConflict: somebody has written since (rule E3).
        """
        if self._search is not None:
            raise StoreLost(f"no message before {end} names another, and there is no store: raise INSTREAM_EPOCH")
        if self.rows_offset != end - 1:
            raise StepConflict(f"rows ends at {end}, this store has read up to {self.rows_offset}: it must recover again")

    # --- reading (StateReader)

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order. Expired entries may or may not show."""
        tag = _TAGS[table]
        tagged = [tag + key for key in keys]
        if table not in EXPIRING:
            return self._engine.get(_WINDOW, tagged)
        if not self._generations:
            return [None] * len(tagged)
        *older, youngest = self._generations
        found = self._engine.get(family_name(youngest), tagged)
        for generation in reversed(older):
            missing = [n for n, value in enumerate(found) if value is None]
            if not missing:
                break
            values = self._engine.get(family_name(generation), [tagged[n] for n in missing])
            for n, value in zip(missing, values, strict=True):
                found[n] = value
        return found

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) of a table in key order; of an expiring one each key's youngest value."""
        tag = _TAGS[table]
        if table not in EXPIRING:
            yield from self._scan_family(_WINDOW, tag)
            return
        merged: dict[bytes, bytes] = {}
        for generation in self.generations():
            merged.update(self._scan_family(family_name(generation), tag))
        yield from sorted(merged.items())

    def generations(self) -> list[int]:
        """The generations that exist, oldest first."""
        return list(self._generations)

    def _scan_family(self, family: str, tag: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key[1:], value) for key, value in self._engine.scan(family, tag))

    # --- following the log (recovery, standbys)

    def follow(self, message: bytes, offset: int) -> None:
        """Take the next message of `rows` as rule E2 says. A message at or before `rows_offset` changes nothing.

        Raises:
            StepGap: the message's number is beyond the next one; nothing changed, this store must be wiped.
            StepMessageInvalid: it is no step.
        """
        if offset <= self.rows_offset:
            return
        step = decode_step(message)
        if self.empty and (self._search is not None or offset > 0):
            self._search_base(Candidate(offset, step.number, step.predecessor, message))
            return
        self._take(step, message, offset)

    def _search_base(self, candidate: Candidate) -> None:
        """The log's head is gone and the store is empty: hold back until a message is named (rule E5)."""
        self._search = self._search or BaseSearch()
        history = self._search.offer(candidate)
        if not history:
            return
        base = history[0]
        log.warning("history of a trimmed log begins", offset=base.offset, number=base.number)
        self._search = None
        self.position = Position(counted=counted_before(base))
        for held in history:
            self._take(decode_step(held.message), held.message, held.offset)

    def _take(self, step: StepMessage, message: bytes, offset: int) -> None:
        verdict = self.position.counted.judge(step.number, step.predecessor)
        if verdict is Verdict.GAP:
            raise StepGap(
                f"rows[{step.partition}] offset {offset} is step {step.number}, this store is at "
                f"{self.position.counted.number}"
            )
        if verdict is Verdict.COUNT:
            self._apply(step, digest_of(message), offset)
        else:
            batch = self._engine.batch()
            batch.put(_DEFAULT, _ROWS, offset.to_bytes(8, "big"))
            self._engine.write(batch)
            self.rows_offset = offset

    # --- writing (the owner)

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Apply the owner's own step, which the broker stored at `offset` (rule E3, 2).

        Raises:
            StepConflict: somebody else wrote to `rows` in between; nothing changed.
        """
        if offset != self.rows_offset + 1:
            raise StepConflict(f"rows[{step.partition}]: our step is at {offset}, we had seen up to {self.rows_offset}")
        if self.position.counted.judge(step.number, step.predecessor) is not Verdict.COUNT:
            raise StepConflict(f"rows[{step.partition}]: our step {step.number} does not follow {self.position.counted}")
        self._apply(step, digest_of(message), offset)

    def _apply(self, step: StepMessage, digest: bytes, offset: int) -> None:
        """Write everything that a counted step changes in one batch, then drop what has expired."""
        batch = self._engine.batch()
        for change in step.changes:
            tag = _TAGS[change.table]
            if change.table in EXPIRING:
                self._batch_expiring(batch, tag, change)
                continue
            for key in change.deleted():
                batch.delete(_WINDOW, tag + key)
            for key, value in change.puts():
                batch.put(_WINDOW, tag + key, value)
        position = Position(self.position.counted.advance(offset), digest, step.source_last, step.stream_time_ms, step.meta)
        batch.put(_DEFAULT, _POSITION, msgspec.msgpack.encode(position))
        batch.put(_DEFAULT, _ROWS, offset.to_bytes(8, "big"))
        self._engine.write(batch)
        self.position, self.rows_offset = position, offset
        for generation in self._rules.expired(self.generations(), step.stream_time_ms):
            self._engine.drop(family_name(generation))
            self._generations.remove(generation)
            log.info("expired generation dropped", generation=generation, partition=step.partition)

    def _batch_expiring(self, batch: Batch, tag: bytes, change: Changes) -> None:
        """Put each entry into the generation of its stored time; no younger generation keeps an older value of it."""
        if change.deletes:
            for generation in self.generations():
                family = family_name(generation)
                for key in change.deleted():
                    batch.delete(family, tag + key)
        alive = self.generations()
        for target, (keys, values) in sorted(self._by_generation(change).items()):
            family = self._family_of(target)
            for n in alive:
                if n > target:
                    other = family_name(n)
                    for key in keys:
                        batch.delete(other, tag + key)
            batch.put_all(family, tag, keys, values)

    def _by_generation(self, change: Changes) -> dict[int, tuple[Sequence[bytes], Sequence[bytes]]]:
        """The keys and values to put, by the generation of their stored time; of a key the last put holds.

        In the order of the keys, in which they nearly always come: a memtable takes them in two thirds of the time.
        """
        keys, values = change.columns
        if not all(map(lt, keys, islice(keys, 1, None))):
            last = dict(zip(keys, values, strict=True))
            keys = sorted(last)
            values = [last[key] for key in keys]
        if not keys:
            return {}
        # A value starts with its stored time: the least value has the earliest, the greatest the latest.
        oldest, youngest = self._generation_in(min(values)), self._generation_in(max(values))
        if oldest == youngest:  # nearly always
            return {oldest: (keys, values)}
        targets = [self._generation_in(value) for value in values]
        parts: dict[int, tuple[list[bytes], list[bytes]]] = {target: ([], []) for target in targets}
        for key, value, target in zip(keys, values, targets, strict=True):
            parts[target][0].append(key)
            parts[target][1].append(value)
        return dict(parts)

    def _generation_in(self, value: bytes) -> int:
        """The generation of the stored time in a value."""
        return self._rules.of(int.from_bytes(value[:8], "big"))

    def _family_of(self, generation: int) -> str:
        name = family_name(generation)
        if generation not in self._generations:
            self._engine.create(name)
            insort(self._generations, generation)
        return name

    # --- lifecycle

    def close(self) -> None:
        """Close the database; using the store afterwards raises."""
        self._engine.close()

    def wipe(self) -> None:
        """Close and delete it."""
        self._engine.wipe()
