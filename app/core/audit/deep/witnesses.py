"""Record or ready.json: if they contradict each other, files, keys and delivery_log say which was changed (rule A3)."""

from collections.abc import Mapping, Sequence

from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.formats import object_keys
from app.core.formats.transaction_record import Ready, TransactionRecord


def record_is_wrong(
    record: TransactionRecord, ready: Ready, digests: Mapping[str, str | None], log: Sequence[DeliveryLogRow]
) -> bool:
    """Whether more of the witnesses stand with ready.json than with the record.

    Args:
        record: the commit record.
        ready: the ready.json of the same number.
        digests: output -> sha256 of its data file, where there is one.
        log: the rows of delivery_log under the number.
    """
    if ready.txn_id != record.txn_id:
        return False
    return _votes(ready, digests, log) > _votes(record, digests, log)


def _votes(claim: TransactionRecord | Ready, digests: Mapping[str, str | None], log: Sequence[DeliveryLogRow]) -> int:
    """The number of facts that a claim has right."""
    right = sum(
        digests.get(out.output) == out.sha256 and out.data_key == _key(claim, out.output)
        for out in claim.outputs if out.rows
    )  # fmt: skip
    rows, time_ms = sum(out.rows for out in claim.outputs), claim.stream_time_ms or -1
    return right + sum((entry.rows == rows) + (entry.stream_time_ms == time_ms) for entry in log)


def _key(claim: TransactionRecord | Ready, output: str) -> str:
    return object_keys.data_key(output, claim.txn_id, claim.committed_at_ms)
