"""The sink's transaction chain: its end, the holder of a number, and everything that follows from a record.

Each partition of `rows` has a chain of commit records. Their numbers have no gap, and each record answers for the offsets
behind its predecessor's (rules S1 to S5). This file decides; `agents.sink.chain_store` carries the effects out, and
`agents.sink.partition` runs the loop.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from app.core.formats import object_keys
from app.core.formats.step_history import Accepted
from app.core.formats.transaction_record import OutputObject, TransactionRecord, read_record, ready_of, refuse_unloadable
from app.errors import ChainBroken, ChainGap, TopicRecreated

SWEEP_AGE_MS: Final = 86_400_000
"""The sweep leaves younger staged objects alone: their transaction may still be committed."""
_NUMBER: Final = re.compile(rf"(\d{{{object_keys.NUMBER_DIGITS}}})\.json")


class ChainId(NamedTuple):
    """A partition of an epoch: one chain."""

    epoch: int
    partition: int

    def __str__(self) -> str:
        return f"partition {self.partition} of epoch {self.epoch}"


class LogBounds(NamedTuple):
    """The offsets that a partition of `rows` holds."""

    earliest: int
    """Offset of the oldest message that is kept."""
    end: int
    """The offset that the next message will get."""


class ChainEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a chain; the defaults are the position before the first transaction."""

    number: int = 0
    last_offset: int = -1
    accepted: Accepted = Accepted()
    digest: str = ""
    stream_time_ms: int = 0

    @property
    def next_offset(self) -> int:
        """The first offset that no transaction answers for."""
        return self.last_offset + 1

    @property
    def read_from(self) -> int:
        """Read from here: from the last counted message, if its digest is known and to be compared; else `next_offset`."""
        return self.accepted.offset if self.digest else self.next_offset

    def check(self, log: LogBounds) -> None:
        """Compare the chain's end with the log (rule S5).

        Raises:
            TopicRecreated: the chain answers for offsets that the log never gave.
            ChainGap: the log has lost offsets that the chain does not answer for.
        """
        if self.next_offset > log.end:
            raise TopicRecreated(f"the chain ends at offset {self.last_offset}, the log at {log.end - 1}: raise the epoch")
        if self.next_offset < log.earliest:
            raise ChainGap(
                f"offsets {self.next_offset} to {log.earliest - 1} are gone from the log and no transaction has them; "
                "`instream sink accept-gap` goes on without them"
            )


def chain_end_after(record: TransactionRecord | None) -> ChainEnd:
    """The position behind `record`; the chain's beginning for None."""
    if record is None:
        return ChainEnd()
    return ChainEnd(
        number=record.number, last_offset=record.last_offset, accepted=Accepted(record.step_number, record.step_offset),
        digest=record.step_digest, stream_time_ms=record.stream_time_ms,
    )  # fmt: skip


class Holder(Enum):
    """The writer whose record was found under a number that is taken (rule S4)."""

    OURS = "ours"
    """An earlier attempt of ours succeeded and its answer was lost."""
    FOREIGN = "foreign"
    """Another writer: our transaction is void, and the messages are read again behind the other one's end."""


def judge_holder(ours: TransactionRecord, found: TransactionRecord) -> Holder:
    """Whether the record found under our number is the one that we put there."""
    return Holder.OURS if found.txn_id == ours.txn_id else Holder.FOREIGN


def encode_record(record: TransactionRecord) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(record)


def decode_record(body: bytes, chain_id: ChainId, number: int) -> TransactionRecord:
    """The record in `body`, which was read under `number` of the chain; enough to finish its transaction.

    Raises:
        ChainBroken: it is no record, or of another number or chain.
        NewerFormat: it is a record of a newer version.
    """
    record = read_record(body, _named(chain_id, number), ChainBroken)
    if (record.epoch, record.partition, record.number) != (*chain_id, number):
        raise ChainBroken(f"{_named(chain_id, number)} says it is {record.txn_id}")
    return record


def decode_loadable(body: bytes, chain_id: ChainId, number: int) -> TransactionRecord:
    """The record in `body`, for a reader that loads its rows (rule E10).

    Raises:
        ChainBroken: as for `decode_record`.
        NewerFormat: it is a record of a newer version, or has rows that this version does not know.
    """
    record = decode_record(body, chain_id, number)
    refuse_unloadable(record.outputs, _named(chain_id, number))
    return record


def _named(chain_id: ChainId, number: int) -> str:
    return f"record {number} of {chain_id}"


def numbers_behind(chain_id: ChainId, after: int, found_keys: Iterable[str]) -> list[int]:
    """The numbers in a listing of the chain's records behind number `after`.

    Raises:
        ChainBroken: a key is no record's, or a number is missing.
    """
    prefix = object_keys.chain_prefix(*chain_id)
    numbers: list[int] = []
    for key in found_keys:
        match = _NUMBER.fullmatch(key.removeprefix(prefix))
        expected = after + len(numbers) + 1
        if match is None or int(match[1]) != expected:
            raise ChainBroken(f"{key} lies where record {expected} of {chain_id} must be")
        numbers.append(expected)
    return numbers


# --- what follows from a record (rules S1, S3)


class Move(NamedTuple):
    """A server-side copy from a staged object to its final key."""

    source: str
    target: str
    sha256: str


class Put(NamedTuple):
    """An object to store."""

    key: str
    body: bytes


class Effects(NamedTuple):
    """The effects of a committed record, group after group in this order; the order inside a group is free."""

    moves: list[Move]
    manifests: list[Put]
    ready: Put
    announcement: bytes
    deletes: list[str]


def effects_of(record: TransactionRecord, bucket: str) -> Effects:
    """The effects of a committed transaction; the same record always gives the same bytes (rules S1 to S3)."""
    moves, manifests, deletes = [], [], []
    for out in record.outputs:
        if out.staged_key is None or out.data_key is None or out.manifest_key is None:
            continue
        moves.append(Move(out.staged_key, out.data_key, out.sha256))
        manifests.append(Put(out.manifest_key, manifest_of(bucket, [out])))
        deletes.append(out.staged_key)
    ready = msgspec.json.encode(ready_of(record))
    return Effects(moves, manifests, Put(record.ready_key, ready), ready, deletes)


def manifest_of(bucket: str, outputs: Iterable[OutputObject]) -> bytes:
    """A COPY manifest of data files: every one mandatory, with its length.

    Source: Amazon Redshift, "Using a manifest to specify data files".
    """
    entries = [
        {"url": f"s3://{bucket}/{out.data_key}", "mandatory": True, "meta": {"content_length": out.bytes}}
        for out in outputs if out.data_key is not None
    ]  # fmt: skip
    return msgspec.json.encode({"entries": entries})


# --- what was staged and never committed (rule S4)


class StagedBy(NamedTuple):
    """The transaction that a staged object says it belongs to."""

    chain_id: ChainId
    number: int
    txn_id: str


def staged_by(key: str) -> StagedBy | None:
    """The transaction that the staged object under `key` belongs to; None for another object."""
    txn = key.removeprefix("jobdata/").partition("/")[0]
    if not object_keys.is_txn_id(txn) or not key.startswith(object_keys.staged_prefix(txn)):
        return None
    epoch, partition, number, _ = txn.split("-")
    return StagedBy(ChainId(int(epoch), int(partition)), int(number), txn)


class Leftover(Enum):
    """The verdict on old staged objects."""

    KEEP = "keep"
    """Their number is free: their transaction may still be committed."""
    DELETE = "delete"
    """Another transaction holds their number: theirs is never committed."""
    FINISH = "finish"
    """Their transaction holds the number: only the step that finishes it deletes them."""


def judge_leftover(staged: StagedBy, holder: TransactionRecord | None) -> Leftover:
    """The verdict on old staged objects, given the record that holds their number (rule S4)."""
    if holder is None:
        return Leftover.KEEP
    return Leftover.FINISH if holder.txn_id == staged.txn_id else Leftover.DELETE
