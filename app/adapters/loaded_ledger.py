"""The audit's questions to the warehouse: ledger, replay reports, and the progress of delivery (rules A1, A2)."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from app.adapters.warehouse_login import Login
from app.adapters.warehouse_port import Delivered, Delivery, Quarantined, moment_ms
from app.adapters.warehouse_questions import Questions
from app.core.audit.reconcile import LedgerLines

IDS_PER_QUERY: Final = 500

_PROGRESS: Final = """
    SELECT "partition", max("number"), max(stream_time) FROM analytics.delivery_log
    WHERE epoch = %s AND status IN ('loaded', 'quarantined') GROUP BY "partition"
"""
_QUARANTINED: Final = """
    SELECT txn_id, "partition", "number" FROM analytics.delivery_log WHERE epoch = %s AND status = 'quarantined'
"""
_ENTRIES: Final = "SELECT batch_id, outcome, lines, line_set FROM analytics.ledger WHERE batch_id IN ({})"
_BETWEEN: Final = "SELECT DISTINCT batch_id FROM analytics.ledger WHERE batch_id >= %s AND batch_id < %s ORDER BY 1"
"""Ids are compared as bytes by Redshift; the collation of another database may differ, but ids are hexadecimal digits."""
_REPLAYS: Final = "SELECT batch_id, block FROM analytics.replays WHERE attempt >= 1 AND batch_id IN ({})"
_DEAD_LETTERS: Final = "SELECT batch_id, block, reason FROM analytics.dead_letters WHERE batch_id IN ({})"


class WarehouseLedger:
    """The real one: plain queries with their values in the text, each a transaction of its own."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._questions = Questions(url, login)

    async def delivery(self, epoch: int) -> Delivery:
        """The progress of delivery.

        Progress is read first: a transaction that is quarantined in between is in the second answer.
        """
        reached = await self._questions.rows(_PROGRESS, [epoch])
        quarantined = [Quarantined(*row) for row in await self._questions.rows(_QUARANTINED, [epoch])]
        return Delivery({part: Delivered(number, moment_ms(moment)) for part, number, moment in reached}, quarantined)

    async def entries(self, batch_ids: Sequence[str]) -> dict[str, list[LedgerLines]]:
        """The ledger rows of each batch."""
        found: dict[str, list[LedgerLines]] = {}
        for batch_id, outcome, lines, line_set in await self._of_batches(_ENTRIES, batch_ids):
            found.setdefault(batch_id, []).append(LedgerLines(outcome, lines, line_set))
        return found

    async def batches_between(self, first_id: str, end_id: str) -> list[str]:
        """The batches with ledger rows and first_id <= batch id < end_id, in the order of their ids."""
        return [batch_id for (batch_id,) in await self._questions.rows(_BETWEEN, [first_id, end_id])]

    async def replayed_blocks(self, batch_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Blocks of each batch with a loaded report of a replay."""
        found: dict[str, set[int]] = {}
        for batch_id, block in await self._of_batches(_REPLAYS, batch_ids):
            found.setdefault(batch_id, set()).add(block)
        return {batch_id: frozenset(blocks) for batch_id, blocks in found.items()}

    async def dead_letters(self, batch_ids: Sequence[str]) -> dict[str, dict[int, str]]:
        """For each batch, the blocks of which a copy could not be read."""
        found: dict[str, dict[int, str]] = {}
        for batch_id, block, reason in await self._of_batches(_DEAD_LETTERS, batch_ids):
            found.setdefault(batch_id, {})[block] = reason
        return found

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        await self._questions.close()

    async def _of_batches(self, query: LiteralString, batch_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(batch_ids), IDS_PER_QUERY):
            some = batch_ids[start : start + IDS_PER_QUERY]
            rows += await self._questions.rows(query.format(", ".join(["%s"] * len(some))), some)
        return rows
