"""The warehouse's ports: the session through which delivery and release load, and the audit's view.

Each has a real adapter (`warehouse.py`, `loaded_ledger.py`) and a twin in memory. A session is never in autocommit: its
first call opens a transaction. Its snapshot begins with the first call that reads or writes. `lock` does neither, so a read
after `lock` sees everything that was committed before the lock was given (rule D1).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

import msgspec
import polars as pl

from app.core.audit.deep.batches import BatchLedgerRow
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.audit.reconcile import LedgerLines
from app.core.audit.trace.facts import LoadedOutcome, RowFacts
from app.core.delivery.schema_found import FoundTables
from app.core.delivery.statements import LogRow
from app.core.formats.flows import Flow

STATEMENT_TIMEOUT_S: Final = 120
"""If a statement other than COPY takes longer, it waits for another session's lock, or the server hangs."""
COPY_TIMEOUT_S: Final = 1800
QUERY_TIMEOUT_S: Final = 120
"""Longest wait of the audit's questions."""


class LoadError(NamedTuple):
    """The entry of the warehouse's load-error table for a file that a COPY refused."""

    filename: str
    line: int
    column: str
    """Empty if the fault is not in one column."""
    code: int
    reason: str
    value: str
    """Empty where the warehouse does not tell it."""


class LedgerRow(NamedTuple):
    """A ledger row as release reads it."""

    batch_id: str
    txn_id: str
    line_set: str
    """The lines that the row covers: a bitmap in base64."""


class WarehouseSession(Protocol):
    """One connection and its transaction.

    Every call but `close` raises WarehouseError if the warehouse refused it or the connection is lost (then its sqlstate is
    None, and the warehouse has rolled back), and ServiceUnavailable if no answer came in time. After an error the
    transaction accepts only `rollback`.
    """

    @property
    def closed(self) -> bool:
        """Whether the connection is known to be closed."""

    async def lock(self) -> None:
        """Lock delivery_log against every other session until the transaction ends.

        Wait while another session has the lock.
        """

    async def columns(self) -> FoundTables:
        """The tables of schema `analytics` with their columns; tables that this user may not read are left out."""

    async def positions(self, epoch: int) -> dict[int, int]:
        """Partition -> its highest number in delivery_log, loaded or quarantined."""

    async def copy(self, flow: Flow, manifest_url: str) -> None:
        """Append the rows of the files that a manifest names to the table of `flow`: all of them or none."""

    async def copied(self) -> int:
        """The number of rows that the last `copy` appended."""

    async def load_error(self) -> LoadError | None:
        """The load error of the COPY that failed just now, after its rollback; None if the warehouse blames no file.

        Ask after every failed COPY: an error that nobody asked for would be taken for the next COPY's.
        """

    async def insert_log(self, rows: Sequence[LogRow]) -> None:
        """Add transactions to delivery_log."""

    async def log_status(self, txn_id: str) -> str | None:
        """The status of a transaction in delivery_log (`statements.LOADED`, `QUARANTINED`), or None if it is not there."""

    async def ledger_of(self, batch_ids: Sequence[str]) -> list[LedgerRow]:
        """The ledger's rows of these batches, in no order."""

    async def mark_released(self, txn_id: str, load_id: str) -> None:
        """Turn a quarantined transaction into one that `load_id` loaded."""

    async def count_rows(self, output: str, txn_id: str) -> int:
        """The number of rows that an output's table has of a transaction."""

    async def delete_rows(self, output: str, txn_id: str) -> None:
        """Delete the rows that an output's table has of a transaction."""

    async def log_rows(self, epoch: int, partition: int, number: int) -> list[LogRow]:
        """The rows that delivery_log has under a number, in no order."""

    async def delete_log(self, epoch: int, partition: int, number: int) -> None:
        """Delete the rows that delivery_log has under a number."""

    async def prune_log(self, epoch: int, below: Mapping[int, int], loaded_before: datetime) -> None:
        """Delete the rows of delivery_log of loaded transactions whose number is below that of their partition.

        Rows that were loaded at `loaded_before` (UTC without a zone) or later, and quarantined ones, stay.
        """

    async def commit(self) -> None:
        """Commit. After an error it keeps nothing, like `rollback`.

        Raises:
            OutcomeUnknown: COMMIT was not answered: the transaction is committed whole or not at all.
            WarehouseError: it was refused; nothing is committed.
        """

    async def rollback(self) -> None:
        """Undo everything that is not committed and give the lock back; no effect if nothing is open."""

    async def close(self) -> None:
        """Close the connection at once; the warehouse rolls back an open transaction."""


Connect = Callable[[], Awaitable[WarehouseSession]]
"""Opens a session. Raises ServiceUnavailable while the warehouse does not answer."""


# --- the audit's view


class Delivered(NamedTuple):
    """The progress of delivery on one partition: transactions up to `number` are loaded or quarantined."""

    number: int
    stream_time_ms: int


class Quarantined(NamedTuple):
    """A transaction that the warehouse refused (rule D2)."""

    txn_id: str
    partition: int
    number: int


class Delivery(msgspec.Struct, frozen=True):
    """The progress of delivery."""

    partitions: dict[int, Delivered]
    quarantined: list[Quarantined]

    def number(self, partition: int) -> int:
        """The partition's last transaction that delivery has loaded or quarantined; 0 before the first."""
        return self.partitions[partition].number if partition in self.partitions else 0


class LoadedLedger(Protocol):
    """The warehouse as the audit sees it. Every call raises ServiceUnavailable while it does not answer."""

    async def delivery(self, epoch: int) -> Delivery:
        """The progress of delivery on each partition of an epoch."""

    async def entries(self, batch_ids: Sequence[str]) -> dict[str, list[LedgerLines]]:
        """The ledger rows of each batch; a batch without any is not in the answer."""

    async def batches_between(self, first_id: str, end_id: str) -> list[str]:
        """The batches with ledger rows and first_id <= batch id < end_id, in the order of their ids."""

    async def replayed_blocks(self, batch_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Blocks of each batch that the ETL reported as known when a replay of the audit came."""

    async def dead_letters(self, batch_ids: Sequence[str]) -> dict[str, dict[int, str]]:
        """For each batch, the blocks of which a copy could not be read, with the reason; other copies may have been read."""


# --- the view of `instream trace`


class TimeRange(NamedTuple):
    """Milliseconds since the epoch, both included."""

    first_ms: int
    last_ms: int


class LoadedFates(Protocol):
    """The warehouse as a trace sees it. Every call raises ServiceUnavailable while it does not answer.

    `received_ms` bounds the time of receipt of the wanted rows, so that the warehouse need not read whole tables.
    """

    async def outcomes(self, batch_id: str) -> list[LoadedOutcome]:
        """The ledger's rows of a batch, in no order."""

    async def rows_of(self, flow: str, batch_id: str, lines: Sequence[int], received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of a flow that some lines of a batch became, in no order."""

    async def firsts_of(self, page_view_id: str, engagement_id: str, received_ms: TimeRange | None) -> list[RowFacts]:
        """The rows of page views that a second event of their page view joined."""

    async def refusal(self, txn_id: str) -> str | None:
        """The reason why delivery has set a transaction aside; None if its log has no such transaction."""


# --- the view of the deep audit, proofs and repairs


class LoadedSpan(NamedTuple):
    """A span of `loaded_at`: since <= loaded_at < until."""

    since_ms: int
    until_ms: int


class LoadedRows(Protocol):
    """The warehouse's rows as they lie there, for the deep audit, `prove` and repairs.

    Every call raises ServiceUnavailable while the warehouse does not answer. Tables are those of `app.core.formats.flows`.
    """

    async def log(self, epoch: int, partition: int, first: int, last: int) -> list[DeliveryLogRow]:
        """The rows of delivery_log with first <= number <= last, by number."""

    async def rows(self, output: str, txn_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these transactions.

        Returns: DataFrame[n rows] with exactly the columns and types of `app.core.formats.flow_files.frame_schema`.
        """

    async def transactions(
        self, output: str, after: str, limit: int, span: LoadedSpan | None = None
    ) -> list[tuple[str, int]]:
        """The first `limit` transactions of a table whose id sorts behind `after`, each with its number of rows.

        `span` leaves out the rows that were loaded outside of it.
        """

    async def ledger(self, batch_ids: Sequence[str]) -> dict[str, list[BatchLedgerRow]]:
        """The ledger rows of each batch; a batch without any is not in the answer."""

    async def of_batches(self, output: str, batch_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these batches, as `rows` gives them."""

    async def with_ids(self, output: str, column: str, ids: Sequence[str]) -> pl.DataFrame:
        """The rows whose `column` (`visitor_id` or `page_view_id`) has one of these values, as `rows` gives them."""

    async def payloads(self, text: str) -> pl.DataFrame:
        """The rows of flow `rejected` whose payload has `text` somewhere, as `rows` gives them."""


class KnownEvents(Protocol):
    """The events that the warehouse has, by their ids. Every call raises ServiceUnavailable while it does not answer."""

    async def counted(self, event_ids: Sequence[str]) -> list[tuple[str, str | None]]:
        """(event id, page view id) of each event of these ids that counted, whatever became of it.

        The page view id is None where a row has none.
        """

    async def first_events(self, page_view_ids: Sequence[str]) -> list[tuple[str, str, int]]:
        """(page view id, event id, received_at in ms) of each first event of these page views that is a row."""


def moment_ms(moment: datetime | None) -> int:
    """Milliseconds since the epoch of a warehouse timestamp (UTC, without zone); NULL is before everything."""
    return -1 if moment is None else round(moment.replace(tzinfo=UTC).timestamp() * 1000)


def moment_of(time_ms: int) -> datetime:
    """The warehouse timestamp (UTC, without zone) of milliseconds since the epoch."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).replace(tzinfo=None)
