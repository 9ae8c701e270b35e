"""The content of the warehouse in memory, as a value."""

from collections.abc import Iterable

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


def with_released(log: tuple[LogRow, ...], released: dict[str, str]) -> tuple[LogRow, ...]:
    """`log` with the transactions (txn_id -> load_id) that were quarantined and are loaded now."""
    if not released:
        return log
    return tuple(
        row._replace(status=LOADED, load_id=released[row.txn_id])
        if row.txn_id in released and row.status == QUARANTINED else row
        for row in log
    )  # fmt: skip
