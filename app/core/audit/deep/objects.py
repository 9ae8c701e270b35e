"""The objects of a committed transaction against its record: ready.json, manifests, data files, delivery_log."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.audit.deep.rows import TransactionOutput
from app.core.audit.deep.witnesses import record_is_wrong
from app.core.audit.differences import Difference, DifferenceKind
from app.core.delivery.statements import LOADED, QUARANTINED
from app.core.formats.transaction_record import Ready, TransactionRecord, ready_of
from app.core.sink.chain import effects_of

_ready_decoder: Final = msgspec.json.Decoder(Ready)
_STATUSES: Final = frozenset({LOADED, QUARANTINED})


class StoredObjects(NamedTuple):
    """What S3 has of a transaction. None: the object is missing."""

    ready: bytes | None
    manifests: Mapping[str, bytes | None]
    """Output -> its manifest, for every output with rows."""
    digests: Mapping[str, str | None]
    """Output -> sha256 of its data file, for every output with rows."""


def about(record: TransactionRecord, output: str, key: str | None = None) -> TransactionOutput:
    """An output of a record, as differences name it; `output` may be empty."""
    named = key if key is not None else (record.output(output).data_key if output else None)
    return TransactionOutput(output, record.txn_id, named, record.partition, record.number)


def judge_objects(
    record: TransactionRecord, found: StoredObjects, log: Sequence[DeliveryLogRow], bucket: str
) -> tuple[list[Difference], TransactionRecord]:
    """The differences of a finished transaction's objects from its record.

    Returns: the differences; and the record, or what it must have been if it was changed.
    """
    differences = []
    ready = _read_ready(found.ready)
    if ready is not None and ready != ready_of(record) and record_is_wrong(record, ready, found.digests, log):
        detail = f"it does not say what {record.ready_key} says, and the files are those of the latter"
        differences.append(about(record, "").difference(DifferenceKind.RECORD_CHANGED, detail))
        record = msgspec.structs.replace(
            record, stream_time_ms=ready.stream_time_ms, committed_at_ms=ready.committed_at_ms, outputs=ready.outputs
        )
    elif found.ready is None:
        what = about(record, "", record.ready_key)
        differences.append(what.difference(DifferenceKind.READY_LOST, f"{record.ready_key} is missing"))
    elif ready != ready_of(record):
        what = about(record, "", record.ready_key)
        differences.append(what.difference(DifferenceKind.READY_CHANGED, f"{record.ready_key} differs from the record"))
    effects = effects_of(record, bucket)
    expected = {put.key: put.body for put in effects.manifests}
    for out in record.outputs:
        if out.data_key is None or out.manifest_key is None:
            continue
        what, manifest = about(record, out.output, out.manifest_key), found.manifests.get(out.output)
        if manifest is None:
            differences.append(what.difference(DifferenceKind.MANIFEST_LOST, f"{out.manifest_key} is missing"))
        elif _json(manifest) != _json(expected[out.manifest_key]):
            detail = f"{out.manifest_key} differs from the record"
            differences.append(what.difference(DifferenceKind.MANIFEST_CHANGED, detail))
        what, digest = about(record, out.output), found.digests.get(out.output)
        if digest is None:
            differences.append(what.difference(DifferenceKind.FILE_LOST, f"{out.data_key} is missing"))
        elif digest != out.sha256:
            detail = f"{out.data_key} has sha256 {digest}, the record says {out.sha256}"
            differences.append(what.difference(DifferenceKind.FILE_CHANGED, detail))
    return differences, record


def judge_log(record: TransactionRecord, entries: Sequence[DeliveryLogRow], *, is_passed: bool) -> list[Difference]:
    """The differences of delivery_log from a record.

    Args:
        record: the transaction.
        entries: the rows of delivery_log under its number.
        is_passed: whether delivery must have decided: it decided about a higher number, or its rows are loaded.
    """
    what = about(record, "")._replace(key="")
    if not entries:
        detail = "no row in delivery_log, and delivery has passed the transaction"
        return [what.difference(DifferenceKind.LOG_LOST, detail)] if is_passed else []
    faults = []
    if len(entries) > 1:
        faults.append(f"{len(entries)} rows in delivery_log")
    for entry in entries:
        expected = {
            "txn_id": record.txn_id, "rows": sum(out.rows for out in record.outputs),
            "stream_time_ms": record.stream_time_ms or -1,
        }  # fmt: skip
        faults += [
            f"{name} is {getattr(entry, name)} and should be {value}"
            for name, value in expected.items() if getattr(entry, name) != value
        ]  # fmt: skip
        if entry.status not in _STATUSES:
            faults.append(f"status {entry.status!r} is none of delivery's")
    return [what.difference(DifferenceKind.LOG_CHANGED, "; ".join(dict.fromkeys(faults)))] if faults else []


def _read_ready(body: bytes | None) -> Ready | None:
    try:
        return None if body is None else _ready_decoder.decode(body)
    except (msgspec.DecodeError, ValueError):
        return None


def _json(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        return None
