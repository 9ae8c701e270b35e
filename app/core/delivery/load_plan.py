"""The next load of delivery, and the meaning of a failure (rules D1, D2).

A load takes ready transactions from where each partition's decided ones end, without a gap. What follows from a failure is
decided here too: whether to try later, whose fault it is, and whether that is proof enough to set a transaction aside.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Final

import msgspec

from app.core.backoff import Backoff
from app.core.delivery.statements import LOADED, QUARANTINED, LogRow
from app.core.formats.flows import OUTPUTS, Flow
from app.core.formats.object_keys import load_manifest_key
from app.core.formats.tables import DETAIL_BYTES
from app.core.formats.transaction_record import Ready

MAX_TRANSACTIONS: Final = 256
MAX_BYTES: Final = 512 * 1024 * 1024
DEFERRAL_BACKOFF: Final = Backoff(first_s=1.0, longest_s=30.0)
"""After deferrals in a row, of whatever reason."""


class LoadLimits(msgspec.Struct, frozen=True):
    """The limits of one load; a single transaction is always taken."""

    transactions: int = MAX_TRANSACTIONS
    bytes: int = MAX_BYTES


def plan_load(positions: Mapping[int, int], ready: Iterable[Ready], limits: LoadLimits = LoadLimits()) -> tuple[Ready, ...]:  # noqa: B008
    """The transactions of the next load: of each partition those behind its position, gapless, as many as the limits let.

    Args:
        positions: partition -> highest number in delivery_log; a partition without one stands at 0.
        ready: transactions whose files are in place, in any order.
        limits: how much one load takes.

    Returns: in the order (number, partition), so that a load that is cut short leaves no partition behind.

    Guarantees: a transaction at or below its position is never planned, nor one behind a missing one.
    """
    next_number = {partition: position + 1 for partition, position in positions.items()}
    planned: list[Ready] = []
    size = 0
    full = False
    for txn in sorted(ready, key=lambda t: (t.number, t.partition)):
        if txn.number != next_number.get(txn.partition, 1) or full:
            continue
        more = sum(output.bytes for output in txn.outputs)
        full = bool(planned) and (len(planned) >= limits.transactions or size + more > limits.bytes)
        if full:
            continue
        planned.append(txn)
        size += more
        next_number[txn.partition] = txn.number + 1
    return tuple(planned)


class OutputLoad(msgspec.Struct, frozen=True):
    """One COPY of a load."""

    flow: Flow
    manifest_key: str
    manifest: bytes
    rows: int
    """The number of rows by the transactions' records; COPY must count as many."""


class _ManifestMeta(msgspec.Struct, frozen=True):
    content_length: int


class _ManifestEntry(msgspec.Struct, frozen=True):
    url: str
    mandatory: bool
    meta: _ManifestMeta


def output_loads(transactions: Sequence[Ready], load_id: str, bucket: str) -> list[OutputLoad]:
    """The COPYs of a load in the catalogue's order, each with its merged manifest; outputs without rows have none.

    Files whose columns are of another version need a COPY of their own (rule E10): it lists the columns that they have.
    """
    loads = []
    for flow in OUTPUTS:
        objects = [o for txn in transactions for o in txn.outputs if o.output == flow.name and o.rows > 0]
        for version in sorted({o.columns_version for o in objects}):
            some = [o for o in objects if o.columns_version == version]
            entries = [_ManifestEntry(f"s3://{bucket}/{o.data_key}", True, _ManifestMeta(o.bytes)) for o in some]
            manifest = msgspec.json.encode({"entries": entries})
            key = load_manifest_key(load_id, flow.name, version)
            loads.append(OutputLoad(flow.at(version), key, manifest, sum(o.rows for o in some)))
    return loads


def rows_of(txn: Ready) -> int:
    """Rows of all outputs of a transaction."""
    return sum(output.rows for output in txn.outputs)


def log_row(txn: Ready, load_id: str, failure: "Failure | None" = None) -> LogRow:
    """The entry of delivery_log for a transaction that is loaded, or set aside because of `failure`."""
    time = datetime.fromtimestamp(txn.stream_time_ms / 1000, UTC).replace(tzinfo=None) if txn.stream_time_ms else None
    detail = None if failure is None else failure.detail.encode()[:DETAIL_BYTES].decode(errors="ignore")
    status = LOADED if failure is None else QUARANTINED
    return LogRow(
        txn.txn_id, txn.epoch, txn.partition, txn.number, status, load_id, rows_of(txn), time, detail
    )  # fmt: skip


# --- failures


class FailureClass(Enum):
    """The meaning of a failed load."""

    DEFER = "defer"
    """The warehouse cannot load now: try later, for ever."""
    DATA = "data"
    """The warehouse names a file and its fault."""
    UNCLEAR = "unclear"
    """It may be a file or S3: only by trying transactions apart can one tell."""
    UNKNOWN = "unknown"
    """COMMIT was sent and not answered: look under the lock."""


BLAMES_A_FILE: Final = frozenset({FailureClass.DATA, FailureClass.UNCLEAR})
"""The classes that start the search for the transaction."""


class Failure(msgspec.Struct, frozen=True):
    """The reason why a load, or the attempt at one, failed."""

    kind: FailureClass
    reason: str
    """A word for logs and metrics."""
    detail: str
    output: str = ""
    """The output whose COPY failed."""
    file: str = ""
    """The URL of the file that the warehouse named; empty if it named none."""


_DEFER_STATES: Final = {
    "53": "resources", "55": "lock", "57": "cancelled", "08": "connection", "40": "conflict", "58": "system", "28": "access",
    "42": "schema", "3D": "schema", "3F": "schema", "25": "transaction", "0A": "unsupported",
}  # fmt: skip
"""SQLSTATE class -> the reason to try later. A missing table or right is no fault of a file: an operator repairs it."""
_INTERNAL: Final = "XX"
MISSING: Final = frozenset({"42703", "42P01", "3F000"})
"""The SQLSTATEs of a column, table or schema that is not there."""


def classify(sqlstate: str | None, message: str, *, named_file: str = "", output: str = "") -> Failure:
    """The meaning of a database error.

    Args:
        sqlstate: the error's five characters; None where the connection itself failed.
        message: the error's primary message.
        named_file: the file that the warehouse's load-error table names for this load; empty if it names none.
        output: the output whose COPY ran, if one did.
    """
    detail = f"{sqlstate or 'connection'}: {message}"
    if named_file:
        return Failure(FailureClass.DATA, "data", detail, output, named_file)
    if sqlstate is None:
        return Failure(FailureClass.DEFER, "connection", detail, output)
    if is_serialization(sqlstate, message):
        return Failure(FailureClass.DEFER, "conflict", detail, output)
    if sqlstate[:2] == _INTERNAL and output:
        return Failure(FailureClass.UNCLEAR, "internal", detail, output)
    return Failure(FailureClass.DEFER, _DEFER_STATES.get(sqlstate[:2], "other"), detail, output)


def lacks(what: str) -> Failure:
    """The failure of every load into a warehouse that lacks a table or column: no transaction is to blame."""
    return Failure(FailureClass.DEFER, "schema", what)


def is_serialization(sqlstate: str, message: str) -> bool:
    """Whether an error is Redshift's 1023: the whole transaction must run again.

    The one place that reads a message: Redshift reports 1023 under the SQLSTATE of every internal error, and the number
    stands only in the text.
    """
    return sqlstate[:2] == _INTERNAL and message.split(maxsplit=1)[:1] == ["1023"]
