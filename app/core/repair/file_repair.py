"""What is said of a data file that a repair made again with other bytes than its commit record names (rule R6).

A record is never changed. A file repair lies apart, and names the digest and the length that the file has now, and why.
Every reader that compares a file with its record takes the repaired record in place of it. A file that has the recorded
digest needs no repair, whatever a file repair says.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from app.core.formats.decoding import Count, Moment, read_versioned
from app.core.formats.transaction_record import OutputObject, TransactionRecord

FILE_REPAIR_VERSION: Final = 1


class FileRepair(msgspec.Struct, frozen=True, kw_only=True):
    """One data file, as it is now."""

    version: int = FILE_REPAIR_VERSION
    txn_id: str
    output: str
    recorded_sha256: str
    """The digest in the commit record, of the file that is lost."""
    sha256: str
    bytes: Count
    rows: Count
    """As many as the record names."""
    columns_version: Count
    """Version of the flow's columns."""
    made_at_ms: Moment
    source: str
    """Where the rows come from, and why the bytes are others, in words."""


_decoder: Final = msgspec.json.Decoder(FileRepair)


def encode_file_repair(made: FileRepair) -> bytes:
    """The file repair as JSON."""
    return msgspec.json.encode(made)


def read_file_repair(body: bytes, what: str) -> FileRepair:
    """The file repair in `body`; errors begin with `what`.

    Raises:
        NewerFormat: it is one of a newer version.
        FormatInvalid: it is none.
    """
    return read_versioned(_decoder, body, what, FILE_REPAIR_VERSION)


def repaired(
    record: TransactionRecord, repairs: Iterable[FileRepair], digests: Mapping[str, str | None]
) -> TransactionRecord:  # fmt: skip
    """The record with what is said of its files that were made again.

    Args:
        record: a commit record.
        repairs: of its files; one of another transaction, or of other rows, is passed over.
        digests: output -> sha256 of the file that is there; None if it is missing.

    Returns: `record` itself if nothing of it was made again, or if every such file has the recorded digest after all.
    """
    said = {made.output: made for made in repairs if made.txn_id == record.txn_id}
    outputs = [_repaired(out, said.get(out.output), digests.get(out.output)) for out in record.outputs]
    return record if outputs == record.outputs else msgspec.structs.replace(record, outputs=outputs)


def _repaired(out: OutputObject, made: FileRepair | None, digest: str | None) -> OutputObject:
    if made is None or digest == out.sha256 or (made.recorded_sha256, made.rows) != (out.sha256, out.rows):
        return out
    version = made.columns_version
    return msgspec.structs.replace(
        out, sha256=made.sha256, bytes=made.bytes, version=msgspec.UNSET if version == 1 else version
    )
