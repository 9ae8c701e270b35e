"""The commit record of a sink transaction, and the objects that follow from it.

The record decides: once it is in S3, everything else about the transaction (moves, manifests, ready.json) is derived from it
alone, byte for byte the same for every writer at every time (rules S1-S3).

Versions (rule E10): record and ready.json name their version; from version 2 on, each output names the version of its flow's
columns. Both are written once, so a reader ignores a field that it does not know; a field that must not be ignored comes
with a new version. A reader that loads rows waits for an output that it does not know, or for columns newer than its own, if
they have rows. Finishing a transaction needs no more than keys and digests, so any sink finishes it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from app.core.formats.decoding import Count, Integer, Moment, read_versioned, refuse_newer, refuse_unknown
from app.core.formats.flows import BY_NAME
from app.errors import FormatInvalid, InstreamError

RECORD_VERSION: Final = 1
READY_VERSION: Final = 1


class OutputObject(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a transaction. An output without rows is an explicit zero: it has no keys."""

    output: str
    rows: Count
    bytes: Count = 0
    sha256: str = ""
    """Hexadecimal, of the file as stored."""
    staged_key: str | None = None
    data_key: str | None = None
    manifest_key: str | None = None
    version: Count | msgspec.UnsetType = msgspec.UNSET
    """Version of the flow's columns; unset for 1."""
    received: list[tuple[Count, Count]] | msgspec.UnsetType = msgspec.UNSET
    """(second since the epoch, rows received in it), for metrics alone; unset in older records."""

    @property
    def columns_version(self) -> int:
        """The file has the flow's columns up to this version."""
        return 1 if self.version is msgspec.UNSET else self.version

    @property
    def is_whole(self) -> bool:
        """Whether it has all its keys, or none because it has no rows."""
        keys = (self.staged_key, self.data_key, self.manifest_key)
        return all(keys) if self.rows else not any(keys)


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The full description of a transaction."""

    version: int = RECORD_VERSION
    txn_id: str
    epoch: Count
    partition: Count
    number: Count
    """1 for a partition's first transaction, then without a gap."""
    first_offset: Integer
    """First offset on `rows` that this transaction covers: the predecessor's last_offset + 1."""
    last_offset: Integer
    """Last offset on `rows` that it covers; first_offset - 1 if it covers none."""
    step_number: Count
    """Number of the last step that counted up to last_offset (rule E2); 0 before the first."""
    step_offset: Integer
    """Offset of that step's message; -1 before the first."""
    step_digest: str
    """Hexadecimal digest of that step's message; empty before the first (rule S5)."""
    stream_time_ms: Moment
    committed_at_ms: Moment
    """The committing sink's clock: decides dt and hour of every key."""
    outputs: list[OutputObject]
    """All of `app.core.formats.flows.OUTPUTS`, in that order."""
    ready_key: str
    accepted_gap: str | None = None
    """If this record bridges a gap: the person who accepted it, and the reason (rule S5)."""
    erasures: list[str] | msgspec.UnsetType = msgspec.UNSET
    """The erasures that took lines out of the files (rule R7): rows, bytes and sha256 are those of the files behind them."""

    def output(self, name: str) -> OutputObject:
        """One of its outputs; one that it does not list has no rows."""
        return next((out for out in self.outputs if out.output == name), OutputObject(output=name, rows=0))


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """`ready.json`: the part of a transaction that delivery needs; the topic `manifests` carries the same bytes."""

    version: int = READY_VERSION
    txn_id: str
    epoch: Count
    partition: Count
    number: Count
    stream_time_ms: Moment
    committed_at_ms: Moment
    outputs: list[OutputObject]


def ready_of(record: TransactionRecord) -> Ready:
    """The content of a transaction's ready.json."""
    return Ready(
        txn_id=record.txn_id, epoch=record.epoch, partition=record.partition, number=record.number,
        stream_time_ms=record.stream_time_ms, committed_at_ms=record.committed_at_ms, outputs=record.outputs,
    )  # fmt: skip


_record_decoder: Final = msgspec.json.Decoder(TransactionRecord)
_ready_decoder: Final = msgspec.json.Decoder(Ready)


def read_record(body: bytes, what: str, error: type[InstreamError] = FormatInvalid) -> TransactionRecord:
    """The record in `body`.

    Args:
        body: any bytes.
        what: a name of the record; errors begin with it.
        error: the error if they are no record.

    Raises:
        NewerFormat: it is one of a newer version.
        FormatInvalid: it is none; this or whatever else `error` is.
    """
    record = read_versioned(_record_decoder, body, what, RECORD_VERSION, error)
    _verify(record.outputs, what, error)
    return record


def refuse_unloadable(outputs: Iterable[OutputObject], what: str) -> None:
    """See that this reader knows every output that has rows, and the columns of its file (rule E10).

    Raises:
        NewerFormat: it does not: their rows could not be loaded.
    """
    for out in outputs:
        if out.rows:
            refuse_unknown(f"{what} with output", [out.output], BY_NAME)
            refuse_newer(f"{what} with columns of {out.output}", out.columns_version, BY_NAME[out.output].version)


def read_ready(body: bytes | None) -> Ready:
    """The transaction in a ready.json, or in a message on topic `manifests`.

    Raises:
        NewerFormat: it is one of a newer version, or holds what this reader does not know.
        FormatInvalid: it is none.
    """
    ready = read_versioned(_ready_decoder, body, "ready.json", READY_VERSION)
    _verify(ready.outputs, "ready.json", FormatInvalid)
    refuse_unloadable(ready.outputs, "ready.json")
    return ready


def _verify(outputs: Iterable[OutputObject], what: str, error: type[InstreamError]) -> None:
    """Check that every output is listed once, and has its keys."""
    names: set[str] = set()
    for out in outputs:
        if out.output in names or not out.is_whole:
            raise error(f"{what} has output {out.output} twice, or rows without keys, or keys without rows")
        names.add(out.output)
