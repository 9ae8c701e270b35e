"""The store of one ETL partition: the state tables, and how far on `rows` they go.

    family            key                                  value
    default           "position"                           `StorePosition`, msgpack
                      "rows"                               rows offset: last one read or written, 8 bytes big-endian
    window            table's tag, then the state's key    pending and seconds
    generation-<n>    table's tag, then the state's key    seen, blocks and views by stored time (`tables.store.generations`)

A store takes a step that the log has by gathering it: from now on the store answers with its changes. Gathered steps are
written together (rule E3):
    1 the entries that expire, as one file   a crash after it: the steps come again and put the same keys again
    2 the rest, position and offset, in one batch
    3 a flush of everything
Steps that were gathered and not written are in the log, behind the position that is on disk: after a crash they are
followed again. They are written when they are many, when the store is closed, and before Faust asks for the position.

A message that is no step of this log changes nothing and counts for no reader: it is passed over, with an alarm (rule E2).
If the store or the log has data of a newer version, this store stops there: it changes nothing more, and the partition's
owner gets a NewerFormat (rule E10).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, assert_never

import numpy as np
import structlog

from app.core.formats.decoding import placed
from app.core.formats.step_history import BaseSearch, Candidate, StepVerdict, accepted_before
from app.core.formats.step_message import NO_PREDECESSOR, StepLog, StepMessage, decode_followed, digest_of
from app.core.state.encoding import digests_in
from app.core.state.tables import EXPIRING, Answers, Digests, refuse_unknown_tables
from app.errors import NewerFormat, StepConflict, StepGap, StepMessageInvalid, StoreLost
from app.shell.foreign import note_foreign
from tables.store.engine import Engine
from tables.store.entries import TAGS, sorted_puts
from tables.store.expiring import Expiring
from tables.store.generations import Generations
from tables.store.position import StorePosition, decode_position, encode_position
from tables.store.write_buffer import DIGESTS, GATHERED_BYTES, Gathered

log = structlog.get_logger(__name__)

_POSITION: Final = b"position"
_ROWS: Final = b"rows"
_DEFAULT: Final = "default"
_WINDOW: Final = "window"


class PartitionStore:
    """The open store of one partition: a `StateReader` that applies steps.

    Args:
        engine: The partition's database, open; the store closes it.
        window_ms: The dedup window.
        gathered_bytes: Bytes of changes that it holds back; asked after every step.
        step_log: The partition of `rows` that it follows; None if steps of any epoch and partition are taken.

    Raises:
        FormatInvalid: its position is none.
    """

    def __init__(
        self,
        engine: Engine,
        window_ms: int,
        gathered_bytes: Callable[[], int] = lambda: GATHERED_BYTES,
        step_log: StepLog | None = None,
    ) -> None:
        self._engine = engine
        self._step_log = step_log
        self._log_name = "rows" if step_log is None else str(step_log)
        self._newer: NewerFormat | None = None
        """The reason why no more steps are taken."""
        if _WINDOW not in engine.families():
            engine.create(_WINDOW)
        stored, rows = engine.get(_DEFAULT, [_POSITION, _ROWS])
        self.position = StorePosition() if stored is None else self._read_position(stored)
        self.rows_offset = NO_PREDECESSOR if rows is None else int.from_bytes(rows, "big")
        """Last offset on `rows` that this store has read or written; it never goes back."""
        self._search: BaseSearch | None = None
        self._gathered = Gathered(gathered_bytes)
        self._expiring = Expiring(engine, Generations(window_ms), self.position.stream_time_ms)
        if self.empty:  # a file may have been ingested before the first position was written
            self._expiring.drop(list(self._expiring.generations))

    def _read_position(self, stored: bytes) -> StorePosition:
        try:
            with placed(f"store of {self._log_name}"):
                return decode_position(stored)
        except NewerFormat as exc:
            self._newer = exc
            return StorePosition()

    @property
    def empty(self) -> bool:
        """Whether it has never taken a message from the log."""
        return self.rows_offset == NO_PREDECESSOR

    def verify_read_to(self, end: int) -> None:
        """See that everything below `end`, the log's highwater, has been read.

        Raises:
            NewerFormat: it cannot be read further by this version.
            StoreLost: it was read, but the log is trimmed and too short to tell where its history begins (rule E5).
            StepConflict: another process has written since (rule E3).
        """
        if self._newer is not None:
            raise self._newer
        if self._search is not None:
            raise StoreLost(f"no message before {end} names another, and there is no store: raise INSTREAM_EPOCH")
        if self.rows_offset != end - 1:
            raise StepConflict(f"rows ends at {end}, this store has read up to {self.rows_offset}: it must recover again")

    # --- reading (StateReader)

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none; in the keys' order. Expired entries may or may not show."""
        return self._get_expiring(table, keys) if table in EXPIRING else self._get_window(table, keys)

    def maybe(self, table: str, digests: Digests) -> Answers:
        """Which digests, uint64[n, 2], may have an entry in `seen` or `views`: each that has one, and few others."""
        return self._expiring.maybe(table, digests)

    def _get_expiring(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        tag = TAGS[table]
        if table not in DIGESTS:
            young = self._gathered.newest(table, keys)
            return [new or old for new, old in zip(young, self._expiring.get([tag + key for key in keys]), strict=True)]
        found: list[bytes | None] = [None] * len(keys)
        digests = digests_in(b"".join(keys))
        places = np.flatnonzero(self._expiring.maybe(table, digests))
        young = self._gathered.newest_of(table, digests[places])
        for n, value in zip(places.tolist(), young, strict=True):
            found[n] = value
        old = places[[value is None for value in young]] if len(places) else places
        values = self._expiring.get_digests(table, [tag + keys[n] for n in old.tolist()], digests[old])
        for n, value in zip(old.tolist(), values, strict=True):
            found[n] = value
        return found

    def _get_window(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        tag, gathered = TAGS[table], self._gathered.window
        tagged = [tag + key for key in keys]
        asked = [key for key in tagged if key not in gathered]
        stored = dict(zip(asked, self._engine.get(_WINDOW, asked), strict=True))
        return [gathered[key] if key in gathered else stored[key] for key in tagged]

    def scan(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value) of a table in key order; in an expiring table with each key's youngest value."""
        self.write()
        tag = TAGS[table]
        entries = self._expiring.scan(tag) if table in EXPIRING else self._engine.scan(_WINDOW, tag)
        return ((key[1:], value) for key, value in entries)

    def generations(self) -> list[int]:
        """The generations that exist on disk, oldest first, after all steps are written."""
        self.write()
        return list(self._expiring.generations)

    # --- following the log (recovery, standbys)

    def follow(self, message: bytes | None, offset: int) -> None:
        """Take the next message of `rows` by rules E2 and E5. A message at or before `rows_offset` changes nothing.

        Nor does one of a newer version, or any behind it: `verify_read_to` says so.

        Raises:
            StepGap: the message's number is beyond the next one; nothing changed, this store must be wiped.
        """
        if offset <= self.rows_offset or self._newer is not None:
            return
        try:
            self._read(message, offset)
        except NewerFormat as exc:
            log.error("a newer version wrote a step, the store stops before it", reason=str(exc))
            self._newer = exc

    def _read(self, message: bytes | None, offset: int) -> None:
        try:
            with placed(f"{self._log_name}@{offset}"):
                step = decode_followed(message, self._step_log)
        except StepMessageInvalid as exc:
            topic, partition, _ = self._step_log or StepLog("rows", 0, 0)
            note_foreign(topic, partition, offset, str(exc))
            if not self.empty or offset == 0:
                self._pass_over(offset)
            return
        message = message or b""  # a null is no step
        if self.empty and (self._search is not None or offset > 0):
            self._search_base(Candidate(offset, step.number, step.predecessor, message))
            return
        self._take(step, message, offset)

    def _search_base(self, candidate: Candidate) -> None:
        """The log's head is gone and the store is empty: hold messages back until one of them is named (rule E5)."""
        self._search = self._search or BaseSearch()
        history = self._search.offer(candidate)
        if not history:
            return
        base = history[0]
        log.warning("history of a trimmed log begins", offset=base.offset, number=base.number)
        self._search = None
        self.position = StorePosition(accepted=accepted_before(base))
        for held in history:
            self._take(decode_followed(held.message), held.message, held.offset)

    def _take(self, step: StepMessage, message: bytes, offset: int) -> None:
        verdict = self.position.accepted.judge(step.number, step.predecessor)
        if verdict is StepVerdict.GAP:
            raise StepGap(
                f"rows[{step.partition}] offset {offset} is step {step.number}, this store is at "
                f"{self.position.accepted.number}: if a step between them is damaged, `instream repair-log` replaces it"
            )
        if verdict is StepVerdict.ACCEPT:
            with placed(f"{self._log_name}@{offset}"):
                refuse_unknown_tables(step.changes)
            self._follow(step, digest_of(message), offset)
        elif verdict is not StepVerdict.IGNORE:
            assert_never(verdict)
        else:
            self._pass_over(offset)

    def _pass_over(self, offset: int) -> None:
        """Note that a message was read which counts for nobody."""
        self._gathered.pass_over()
        self.rows_offset = offset
        self._write_if_full()

    def _follow(self, step: StepMessage, digest: bytes, offset: int) -> None:
        """Take a step that counts."""
        position = self._position_after(step, digest, offset)
        self._gathered.take(step.changes)
        for change in step.changes:
            self._expiring.note(change)
        self.position, self.rows_offset = position, offset
        self._write_if_full()
        self._expiring.read_on()

    # --- following its own steps (the owner)

    def commit(self, step: StepMessage, message: bytes, offset: int) -> None:
        """Apply the owner's own step, which the broker stored at `offset` (rule E3, 2).

        Raises:
            StepConflict: another process wrote to `rows` in between; nothing changed.
        """
        if offset != self.rows_offset + 1:
            raise StepConflict(f"rows[{step.partition}]: our step is at {offset}, we had seen up to {self.rows_offset}")
        if self.position.accepted.judge(step.number, step.predecessor) is not StepVerdict.ACCEPT:
            raise StepConflict(f"rows[{step.partition}]: our step {step.number} does not follow {self.position.accepted}")
        self._follow(step, digest_of(message), offset)

    def _position_after(self, step: StepMessage, digest: bytes, offset: int) -> StorePosition:
        return StorePosition(
            self.position.accepted.advance(offset), digest, step.source_last, step.stream_time_ms, step.meta
        )

    # --- writing

    def write(self) -> None:
        """Put every gathered step on disk. If that fails, they stay gathered: no later step may be written without them."""
        gathered = self._gathered
        if not gathered.steps:
            return
        batch = self._engine.batch()
        if (puts := sorted_puts(gathered.expiring)) is not None:
            self._expiring.ingest(batch, puts)
        else:  # there are none, or some are deleted, which no ETL does
            for change in gathered.expiring:
                self._expiring.change(batch, change)
        for key, value in gathered.window.items():
            if value is None:
                batch.delete(_WINDOW, key)
            else:
                batch.put(_WINDOW, key, value)
        batch.put(_DEFAULT, _POSITION, encode_position(self.position))
        batch.put(_DEFAULT, _ROWS, self.rows_offset.to_bytes(8, "big"))
        self._engine.write(batch)
        self._engine.flush()
        gathered.clear()
        self._drop_expired()

    def _write_if_full(self) -> None:
        if self._gathered.full:
            self.write()

    def _drop_expired(self) -> None:
        """Drop the generations that have expired by the stream time that is on disk."""
        if expired := self._expiring.expired(self.position.stream_time_ms):
            self._expiring.drop(expired)
            log.info("expired generations dropped", generations=expired, rows_offset=self.rows_offset)

    # --- lifecycle

    def close(self) -> None:
        """Write what is gathered and close the database; a later call raises."""
        try:
            self.write()
        finally:
            self._engine.close()

    def wipe(self) -> None:
        """Close and delete it."""
        self._gathered.clear()
        self._engine.wipe()
