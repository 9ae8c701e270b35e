"""The sink's open transaction: the messages that it takes, when it is due, its files and its record (rules S1, S2, S5)."""

import hashlib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple, assert_never

import numpy as np
import polars as pl
from msgspec import UNSET

from app.core.formats import object_keys
from app.core.formats.flow_files import (
    EncodeStreams,
    FlowFile,
    Moments,
    dead_letters_frame,
    encode_output,
    encode_streams,
    ledger_frame,
    refuse_unknown_rows,
    replays_frame,
)
from app.core.formats.flows import BY_NAME, DEAD_LETTERS, LEDGER, OUTPUTS, REPLAYS
from app.core.formats.step_history import StepVerdict
from app.core.formats.step_message import DeadLetter, LedgerEntry, Replay, StepLog, StepMessage, decode_step, digest_of
from app.core.formats.transaction_record import OutputObject, TransactionRecord
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainEnd, ChainId
from app.core.sink.seconds import received_seconds
from app.errors import ChainGap, DigestMismatch, StepMessageInvalid

_SHA256_OF_NOTHING: Final = hashlib.sha256().hexdigest()


class CommitRules(NamedTuple):
    """When an open transaction is committed."""

    interval_s: float
    """... after the first message that emits something."""
    bytes: int
    """... when its messages have this many bytes."""
    idle_s: float
    """... after the last commit, if only stream time has moved."""


class Reception(Enum):
    """The kind of a message, as an open transaction sees it."""

    COUNTED = "counted"
    IGNORED = "ignored"
    """A writer that did not know the history has sent it; the transaction answers for its offset all the same."""
    PAST = "past"
    """An earlier transaction answers for it."""
    FOREIGN = "foreign"
    """It is no step of this partition; the transaction answers for its offset. `OpenTransaction.foreign` has the reason."""
    BEYOND = "beyond"
    """Messages before it are missing: read again from `next_offset`."""


class OpenTransaction:
    """Messages of one partition, in order, that no transaction answers for yet. Losing it does no harm: the log has them."""

    def __init__(self, chain_id: ChainId, end: ChainEnd, opened_at_s: float, replaced: Replacements | None = None) -> None:
        self.chain_id = chain_id
        self._log = StepLog("rows", chain_id.partition, chain_id.epoch)
        self._replaced = replaced or Replacements()
        self.foreign = ""
        """Why the last foreign message is none of ours."""
        self.end = end
        self.opened_at_s = opened_at_s
        self.last_offset = end.last_offset
        self.accepted = end.accepted
        self.digest = end.digest
        self.stream_time_ms = end.stream_time_ms
        self.held_bytes = 0
        self.emitting_since_s: float | None = None
        self.streams: dict[str, list[bytes]] = {}
        self.stream_times_ms: dict[str, list[int]] = {}
        """Flow -> the stream time of each of its streams' steps."""
        self.ledger: list[LedgerEntry] = []
        self.replays: list[Replay] = []
        self.dead_letters: list[DeadLetter] = []
        self._take_passed_over(opened_at_s)

    @property
    def next_offset(self) -> int:
        """The offset that must come next."""
        return self.last_offset + 1

    def take(self, offset: int, message: bytes | None, now_s: float) -> Reception:
        """Take one message from the log; `now_s` is a monotonic clock.

        Raises:
            NewerFormat: a newer ETL wrote it.
            DigestMismatch: the chain's last step has another content in the log (rule S5).
            ChainGap: its number is beyond the next: messages that count are missing, although no offset is (rule E2).
        """
        message = self._replaced.at(offset, message)
        if offset < self.next_offset:
            self._compare(offset, message)
            return Reception.PAST
        if offset > self.next_offset:
            return Reception.BEYOND
        message = message or b""
        try:
            step = decode_step(message, self._log)
        except StepMessageInvalid as exc:
            self.last_offset, self.foreign = offset, str(exc)
            return Reception.FOREIGN
        verdict = self.accepted.judge(step.number, step.predecessor)
        if verdict is StepVerdict.GAP:
            raise ChainGap(
                f"offset {offset} holds step {step.number}, behind step {self.accepted.number} nothing counts; "
                "`instream repair-log` looks for a damaged step between them"
            )
        if verdict is StepVerdict.ACCEPT:
            refuse_unknown_rows(step.rows)
        elif verdict is not StepVerdict.IGNORE:
            assert_never(verdict)
        self.last_offset = offset
        self.held_bytes += len(message)
        if verdict is StepVerdict.IGNORE:
            return Reception.IGNORED
        self._accept(step, message, offset, now_s)
        return Reception.COUNTED

    def _take_passed_over(self, now_s: float) -> None:
        """Take the replacements of damaged steps that the chain has passed over as foreign messages.

        The chain answers for their offsets, and no transaction has their rows.
        """
        for offset, message in self._replaced.between(self.accepted.offset, self.last_offset):
            step = decode_step(message, self._log)
            if self.accepted.judge(step.number, step.predecessor) is StepVerdict.ACCEPT:
                refuse_unknown_rows(step.rows)
                self.held_bytes += len(message)
                self._accept(step, message, offset, now_s)

    def _accept(self, step: StepMessage, message: bytes, offset: int, now_s: float) -> None:
        self.accepted = self.accepted.advance(offset)
        self.digest = digest_of(message).hex()
        self.stream_time_ms = step.stream_time_ms
        self._collect(step, now_s)

    @property
    def content(self) -> "Content":
        """What becomes the files."""
        return Content(self.streams, self.ledger, self.replays, self.dead_letters)

    def due(self, now_s: float, rules: CommitRules) -> bool:
        """Whether to commit now (rules S1, S5). A transaction answers for one message of the log at least."""
        if self.last_offset == self.end.last_offset:
            return False
        if self.held_bytes >= rules.bytes:
            return True
        if self.emitting_since_s is not None:
            return now_s - self.emitting_since_s >= rules.interval_s
        return self.stream_time_ms > self.end.stream_time_ms and now_s - self.opened_at_s >= rules.idle_s

    def _compare(self, offset: int, message: bytes | None) -> None:
        if offset != self.end.accepted.offset or self.end.digest in {"", digest_of(message or b"").hex()}:
            return
        if not self._replaced.ends_run(offset):
            raise DigestMismatch(
                f"offset {offset} is not the step that transaction {self.end.number} was made from; if the message is "
                "damaged, `instream repair-log` replaces it"
            )

    def _collect(self, step: StepMessage, now_s: float) -> None:
        if step.emits and self.emitting_since_s is None:
            self.emitting_since_s = now_s
        for flow, stream in step.rows.items():
            self.streams.setdefault(flow, []).append(stream)
            self.stream_times_ms.setdefault(flow, []).append(step.stream_time_ms)
        self.ledger += step.ledger
        self.replays += step.replays
        self.dead_letters += step.dead_letters


class Encoded(NamedTuple):
    """The file of one output; an output without rows has an empty body."""

    output: str
    rows: int
    body: bytes
    sha256: str
    received: tuple[tuple[int, int], ...] = ()
    """(second since the epoch, rows received in it)."""
    received_ms: tuple[Moments, ...] = ()
    """For each step, when its rows were received."""


class Content(NamedTuple):
    """All that becomes the files of a transaction."""

    streams: Mapping[str, Sequence[bytes]]
    """Flow -> its rows in each step, Arrow IPC streams."""
    ledger: Sequence[LedgerEntry] = ()
    replays: Sequence[Replay] = ()
    dead_letters: Sequence[DeadLetter] = ()


def encode_outputs(content: Content, txn: str, encode: EncodeStreams = encode_streams) -> list[Encoded]:
    """The files of transaction `txn`, one for each of `OUTPUTS`, in that order. Large files take seconds of CPU.

    The bytes do not depend on `encode`, which writes the files of flows.

    Raises:
        FormatInvalid: rows are not what their flow has.
    """
    frames: dict[str, pl.DataFrame] = {}
    if content.ledger:
        frames[LEDGER.name] = ledger_frame(content.ledger, txn)
    if content.replays:
        frames[REPLAYS.name] = replays_frame(content.replays, txn)
    if content.dead_letters:
        frames[DEAD_LETTERS.name] = dead_letters_frame(content.dead_letters, txn)
    files = {name: encode(name, parts, txn) for name, parts in content.streams.items() if parts}
    files |= {name: FlowFile(frame.height, encode_output(name, frame), ()) for name, frame in frames.items()}
    return [_encoded(flow.name, files.get(flow.name)) for flow in OUTPUTS]


def _encoded(output: str, file: FlowFile | None) -> Encoded:
    if file is None or not file.rows:
        return Encoded(output, 0, b"", _SHA256_OF_NOTHING)
    seconds = received_seconds(np.concatenate(file.received_ms)) if file.received_ms else ()
    return Encoded(output, file.rows, file.body, hashlib.sha256(file.body).hexdigest(), seconds, file.received_ms)


def record_of(open_: OpenTransaction, txn: str, files: Sequence[Encoded], committed_at_ms: int) -> TransactionRecord:
    """The commit record that makes `open_`'s messages transaction `txn`, the next of its chain."""
    return TransactionRecord(
        txn_id=txn, epoch=open_.chain_id.epoch, partition=open_.chain_id.partition, number=open_.end.number + 1,
        first_offset=open_.end.next_offset, last_offset=open_.last_offset, step_number=open_.accepted.number,
        step_offset=open_.accepted.offset, step_digest=open_.digest, stream_time_ms=open_.stream_time_ms,
        committed_at_ms=committed_at_ms, outputs=[_object_of(file, txn, committed_at_ms) for file in files],
        ready_key=object_keys.ready_key(txn, committed_at_ms),
    )  # fmt: skip


def _object_of(file: Encoded, txn: str, committed_at_ms: int) -> OutputObject:
    if not file.rows:
        return OutputObject(output=file.output, rows=0)
    return OutputObject(
        output=file.output, rows=file.rows, bytes=len(file.body), sha256=file.sha256,
        staged_key=object_keys.staged_key(txn, file.output),
        data_key=object_keys.data_key(file.output, txn, committed_at_ms),
        manifest_key=object_keys.manifest_key(file.output, txn, committed_at_ms),
        version=UNSET if (version := BY_NAME[file.output].version) == 1 else version,
        received=list(file.received) if file.received else UNSET,
    )  # fmt: skip
