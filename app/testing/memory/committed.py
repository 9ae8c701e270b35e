"""The content of the warehouse in memory, as a value."""

from collections.abc import Collection, Iterable

import msgspec

from app.core.delivery.statements import LOADED, QUARANTINED, LogRow
from app.testing.memory.copied_files import CopiedRow


class Committed(msgspec.Struct, frozen=True):
    """Everything that is committed at a moment; a later moment is another value, so that a snapshot is just a reference."""

    tables: dict[str, tuple[CopiedRow, ...]]
    log: tuple[LogRow, ...] = ()

    def with_rows(self, table: str, rows: Iterable[CopiedRow]) -> "Committed":
        """This and more rows of a table."""
        return msgspec.structs.replace(self, tables=self.tables | {table: (*self.tables[table], *rows)})

    def without(self, deleted: Collection[tuple[str, str]]) -> "Committed":
        """This without the rows of some tables' transactions (table, txn_id)."""
        if not deleted:
            return self
        tables = {
            table: tuple(row for row in rows if (table, row["txn_id"]) not in deleted) for table, rows in self.tables.items()
        }
        return msgspec.structs.replace(self, tables=tables)


def without_numbers(log: tuple[LogRow, ...], numbers: Collection[tuple[int, int, int]]) -> tuple[LogRow, ...]:
    """`log` without the rows of some transactions (epoch, partition, number)."""
    return tuple(row for row in log if (row.epoch, row.partition, row.number) not in numbers) if numbers else log


def with_released(log: tuple[LogRow, ...], released: dict[str, str]) -> tuple[LogRow, ...]:
    """`log` with the transactions (txn_id -> load_id) that were quarantined and are loaded now."""
    if not released:
        return log
    return tuple(
        row._replace(status=LOADED, load_id=released[row.txn_id])
        if row.txn_id in released and row.status == QUARANTINED else row
        for row in log
    )  # fmt: skip
