"""The warehouse as the audit sees it, in memory."""

from collections.abc import Sequence

from app.adapters.loaded_ledger import Delivered, Delivery, Quarantined
from app.adapters.memory.hooks import Hooked
from app.core.reconcile import Entry


class MemoryLoadedLedger(Hooked):
    """Filled by what stands in for delivery."""

    def __init__(self) -> None:
        self._partitions: dict[int, dict[int, Delivered]] = {}
        self._quarantined: dict[int, list[Quarantined]] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._replays: dict[str, set[int]] = {}
        self._dead_letters: dict[str, dict[int, str]] = {}

    def load(self, epoch: int, partition: int, number: int, stream_time_ms: int) -> None:
        """Let delivery be done with a transaction, as loaded."""
        self._partitions.setdefault(epoch, {})[partition] = Delivered(number, stream_time_ms)

    def quarantine(self, epoch: int, txn_id: str, partition: int, number: int, stream_time_ms: int) -> None:
        """Let delivery be done with a transaction, as quarantined."""
        self.load(epoch, partition, number, stream_time_ms)
        self._quarantined.setdefault(epoch, []).append(Quarantined(txn_id, partition, number))

    def add_entry(self, batch_id: str, entry: Entry) -> None:
        """Add a ledger row."""
        self._entries.setdefault(batch_id, []).append(entry)

    def add_replay(self, batch_id: str, block: int, attempt: int) -> None:
        """Add a report that a block was known."""
        if attempt >= 1:
            self._replays.setdefault(batch_id, set()).add(block)

    def add_dead_letter(self, batch_id: str, block: int, reason: str) -> None:
        """Add a report that a copy of a block could not be read."""
        self._dead_letters.setdefault(batch_id, {})[block] = reason

    async def delivery(self, epoch: int) -> Delivery:
        """How far delivery is with each partition of an epoch."""
        await self._enter("delivery")
        delivery = Delivery(dict(self._partitions.get(epoch, {})), list(self._quarantined.get(epoch, [])))
        await self._leave("delivery")
        return delivery

    async def entries(self, batch_ids: Sequence[str]) -> dict[str, list[Entry]]:
        """The ledger rows of each batch."""
        await self._enter("entries")
        found = {batch_id: list(self._entries[batch_id]) for batch_id in batch_ids if batch_id in self._entries}
        await self._leave("entries")
        return found

    async def replayed_blocks(self, batch_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Blocks of each batch with a report of a replay."""
        await self._enter("replayed_blocks")
        found = {batch_id: frozenset(self._replays[batch_id]) for batch_id in batch_ids if batch_id in self._replays}
        await self._leave("replayed_blocks")
        return found

    async def dead_letters(self, batch_ids: Sequence[str]) -> dict[str, dict[int, str]]:
        """Of each batch the blocks of which a copy could not be read."""
        await self._enter("dead_letters")
        found = {batch_id: dict(self._dead_letters[batch_id]) for batch_id in batch_ids if batch_id in self._dead_letters}
        await self._leave("dead_letters")
        return found
