"""The commit record of a sink transaction, and the objects that follow from it.

The record decides: once it is in S3, everything else about the transaction (moves, manifests, ready.json) is derived from
it alone, byte for byte the same whoever does it and whenever (rules S1-S3).
"""

from typing import Final

import msgspec

RECORD_VERSION: Final = 1


class OutputObject(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a transaction. An output without rows is an explicit zero: it has no keys."""

    output: str
    rows: int
    bytes: int = 0
    sha256: str = ""
    """Hexadecimal, of the file as stored."""
    staged_key: str | None = None
    data_key: str | None = None
    manifest_key: str | None = None


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction is, in full."""

    version: int = RECORD_VERSION
    txn_id: str
    epoch: int
    partition: int
    number: int
    """1 for a partition's first transaction, then without a gap."""
    first_offset: int
    """First offset on `rows` that this transaction answers for: the predecessor's last_offset + 1."""
    last_offset: int
    """Last offset on `rows` that it answers for; first_offset - 1 where it answers for none."""
    step_number: int
    """Number of the last step that counted up to last_offset (rule E2); 0 before the first."""
    step_offset: int
    """Offset of that step's message; -1 before the first."""
    step_digest: str
    """Hexadecimal digest of that step's message; empty before the first (rule S5)."""
    stream_time_ms: int
    committed_at_ms: int
    """The committing sink's clock: decides dt and hour of every key."""
    outputs: list[OutputObject]
    """All of `app.core.formats.flows.OUTPUTS`, in that order."""
    ready_key: str
    accepted_gap: str | None = None
    """Who accepted which gap and why, where this record bridges one (rule S5)."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`ready.json`: what delivery needs of a transaction; the topic `manifests` carries the same bytes."""

    txn_id: str
    epoch: int
    partition: int
    number: int
    stream_time_ms: int
    committed_at_ms: int
    outputs: list[OutputObject]


def ready_of(record: TransactionRecord) -> Ready:
    """The content of a transaction's ready.json."""
    return Ready(
        txn_id=record.txn_id, epoch=record.epoch, partition=record.partition, number=record.number,
        stream_time_ms=record.stream_time_ms, committed_at_ms=record.committed_at_ms, outputs=record.outputs,
    )  # fmt: skip
