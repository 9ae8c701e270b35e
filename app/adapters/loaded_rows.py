"""The warehouse's rows as they lie there (port `LoadedRows`): for the deep audit, `prove` and repairs."""

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import LoadedSpan, moment_ms, moment_of
from app.adapters.warehouse_questions import Questions
from app.core.audit.deep.batches import BatchLedgerRow
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.delivery.statements import table
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import BY_NAME, REJECTED, ColumnKind
from app.errors import ConfigurationError

IDS_PER_QUERY: Final = 500
ID_COLUMNS: Final = frozenset({"visitor_id", "page_view_id"})


class WarehouseRows:
    """The real one."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._questions = Questions(url, login)

    async def log(self, epoch: int, partition: int, first: int, last: int) -> list[DeliveryLogRow]:
        """The rows of delivery_log with first <= number <= last, by number."""
        found = await self._questions.rows(
            f'SELECT txn_id, "number", status, "rows", stream_time FROM {table("delivery_log")} WHERE epoch = %s '
            'AND "partition" = %s AND "number" BETWEEN %s AND %s ORDER BY "number"', [epoch, partition, first, last],
        )  # fmt: skip
        return [DeliveryLogRow(txn, number, status, rows, moment_ms(moment)) for txn, number, status, rows, moment in found]

    async def rows(self, output: str, txn_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these transactions, as a frame with the output's columns."""
        return await self._frame_of(output, "txn_id", txn_ids)

    async def transactions(
        self, output: str, after: str, limit: int, span: LoadedSpan | None = None
    ) -> list[tuple[str, int]]:
        """The transactions of a table whose id sorts behind `after`, each with its number of rows."""
        loaded, values = "", list[Any]()
        if span is not None:
            loaded, values = " AND loaded_at >= %s AND loaded_at < %s", [moment_of(span.since_ms), moment_of(span.until_ms)]
        query = f"SELECT txn_id, COUNT(*) FROM {table(output)} WHERE txn_id > %s{loaded} GROUP BY txn_id ORDER BY 1 LIMIT %s"
        return [(txn, count) for txn, count in await self._questions.rows(query, [after, *values, limit])]

    async def ledger(self, batch_ids: Sequence[str]) -> dict[str, list[BatchLedgerRow]]:
        """The ledger rows of each batch."""
        found: dict[str, list[BatchLedgerRow]] = {}
        query = f"SELECT batch_id, txn_id, outcome, lines, line_set FROM {table('ledger')} WHERE batch_id IN"
        for batch_id, *entry in await self._of(query, batch_ids):
            found.setdefault(batch_id, []).append(BatchLedgerRow(*entry))
        return found

    async def of_batches(self, output: str, batch_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these batches, as a frame with the output's columns."""
        return await self._frame_of(output, "batch_id", batch_ids)

    async def with_ids(self, output: str, column: str, ids: Sequence[str]) -> pl.DataFrame:
        """The rows whose column has one of these values."""
        if column not in ID_COLUMNS:
            raise ConfigurationError(f"{column!r} is no column of ids")
        return await self._frame_of(output, column, ids)

    async def payloads(self, text: str) -> pl.DataFrame:
        """The rows of flow `rejected` whose payload has a text."""
        columns = ", ".join(f'"{column}"' for column in REJECTED.names)
        query = f"SELECT {columns} FROM {table(REJECTED.name)} WHERE STRPOS(payload, %s) > 0"
        return _frame(REJECTED.name, await self._questions.rows(query, [text]))

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        await self._questions.close()

    async def _frame_of(self, output: str, name: str, ids: Sequence[str]) -> pl.DataFrame:
        columns = ", ".join(f'"{column}"' for column in BY_NAME[output].names)
        return _frame(output, await self._of(f"SELECT {columns} FROM {table(output)} WHERE {name} IN", ids))

    async def _of(self, query: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows of a query that ends in `IN`, for all ids."""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(ids), IDS_PER_QUERY):
            some = ids[start : start + IDS_PER_QUERY]
            rows += await self._questions.rows(f"{query} ({', '.join(['%s'] * len(some))})", some)
        return rows


def _frame(output: str, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """The rows with timestamps as milliseconds, as in the frames of files."""
    schema = frame_schema(output)
    times = [column.name for column in BY_NAME[output].columns if column.kind is ColumnKind.TIMESTAMP]
    read = {name: pl.Datetime("us") if name in times else kind for name, kind in schema.items()}
    frame = pl.DataFrame(rows, schema=read, orient="row")
    return frame.with_columns(pl.col(name).dt.timestamp("ms") for name in times)
