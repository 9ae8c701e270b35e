"""The warehouse's rows in memory, as checks of the books read them."""

from collections import Counter
from collections.abc import Sequence

import polars as pl

from app.adapters.loaded_rows import ID_COLUMNS
from app.adapters.warehouse_port import LoadedSpan, moment_ms
from app.core.audit.deep.batches import BatchLedgerRow
from app.core.audit.deep.log_entry import DeliveryLogRow
from app.core.formats.flow_files import frame_schema
from app.core.formats.flows import LEDGER, REJECTED
from app.errors import ConfigurationError
from app.testing.memory.hooks import Hooked
from app.testing.memory.warehouse import MemoryWarehouse


class MemoryLoadedRows(Hooked):
    """`LoadedRows` over the committed rows of a MemoryWarehouse."""

    def __init__(self, warehouse: MemoryWarehouse) -> None:
        self._warehouse = warehouse

    async def log(self, epoch: int, partition: int, first: int, last: int) -> list[DeliveryLogRow]:
        """The rows of delivery_log with first <= number <= last, by number."""
        await self._enter("log")
        found = [
            DeliveryLogRow(row.txn_id, row.number, row.status, row.rows, moment_ms(row.stream_time))
            for row in self._warehouse.log
            if (row.epoch, row.partition) == (epoch, partition) and first <= row.number <= last
        ]
        await self._leave("log")
        return sorted(found, key=lambda entry: entry.number)

    async def rows(self, output: str, txn_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these transactions, as a frame with the output's columns."""
        await self._enter("rows", output)
        frame = self._frame(output, "txn_id", txn_ids)
        await self._leave("rows", output)
        return frame

    async def transactions(
        self, output: str, after: str, limit: int, span: LoadedSpan | None = None
    ) -> list[tuple[str, int]]:
        """The transactions of a table whose id sorts behind `after`, each with its number of rows."""
        await self._enter("transactions", output)
        rows = [
            row for row in self._warehouse.rows(output)
            if row["txn_id"] > after and (span is None or span.since_ms <= row.get("loaded_at", 0) < span.until_ms)
        ]  # fmt: skip
        await self._leave("transactions", output)
        return sorted(Counter(row["txn_id"] for row in rows).items())[:limit]

    async def ledger(self, batch_ids: Sequence[str]) -> dict[str, list[BatchLedgerRow]]:
        """The ledger rows of each batch."""
        await self._enter("ledger")
        found: dict[str, list[BatchLedgerRow]] = {}
        for row in self._warehouse.rows(LEDGER.name):
            if row["batch_id"] in batch_ids:
                entry = BatchLedgerRow(row["txn_id"], row["outcome"], row["lines"], row["line_set"])
                found.setdefault(row["batch_id"], []).append(entry)
        await self._leave("ledger")
        return found

    async def of_batches(self, output: str, batch_ids: Sequence[str]) -> pl.DataFrame:
        """The rows of these batches, as a frame with the output's columns."""
        await self._enter("of_batches", output)
        frame = self._frame(output, "batch_id", batch_ids)
        await self._leave("of_batches", output)
        return frame

    async def with_ids(self, output: str, column: str, ids: Sequence[str]) -> pl.DataFrame:
        """The rows whose column has one of these values."""
        if column not in ID_COLUMNS:
            raise ConfigurationError(f"{column!r} is no column of ids")
        await self._enter("with_ids", output)
        frame = self._frame(output, column, ids)
        await self._leave("with_ids", output)
        return frame

    async def payloads(self, text: str) -> pl.DataFrame:
        """The rows of flow `rejected` whose payload has a text."""
        await self._enter("payloads", REJECTED.name)
        frame = self._frame(REJECTED.name, "payload", [
            row["payload"] for row in self._warehouse.rows(REJECTED.name) if text in (row["payload"] or "")
        ])  # fmt: skip
        await self._leave("payloads", REJECTED.name)
        return frame

    def _frame(self, output: str, name: str, ids: Sequence[str]) -> pl.DataFrame:
        wanted, schema = set(ids), frame_schema(output)
        rows = [row for row in self._warehouse.rows(output) if row[name] in wanted]
        return pl.DataFrame([[row.get(column) for column in schema] for row in rows], schema=schema, orient="row")
