"""The registry of batches in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from app.core.formats.registry_item import Attempt, BatchState, ItemReader, RegistryItem, decode_item, move
from app.errors import IllegalMove
from app.testing.memory.hooks import Hooked


class MemoryRegistry(Hooked):
    """Batches in a dict, in the order of their registration."""

    def __init__(self) -> None:
        self._items: dict[str, RegistryItem] = {}
        self.stored: list[Mapping[str, Any]] = []
        """Further items, by their attributes: another version, or a foreign program, put them into the table."""

    def forget(self, batch_id: str) -> None:
        """Lose an item, as no caller of the port can."""
        self._items.pop(batch_id)

    async def register(self, item: RegistryItem) -> None:
        """Add a batch in state open; registering it again changes nothing."""
        await self._enter("register", item.batch_id)
        self._items.setdefault(item.batch_id, item)
        await self._leave("register", item.batch_id)

    async def restore(self, item: RegistryItem) -> None:
        """Put a batch in the place of whatever its id has."""
        await self._enter("restore", item.batch_id)
        self._items[item.batch_id] = item
        self.stored = [other for other in self.stored if other.get("batch_id") != {"S": item.batch_id}]
        await self._leave("restore", item.batch_id)

    async def get(self, batch_id: str) -> RegistryItem | None:
        """The batch, or None."""
        await self._enter("get", batch_id)
        item = self._items.get(batch_id)
        foreign = next((stored for stored in self.stored if stored.get("batch_id") == {"S": batch_id}), None)
        await self._leave("get", batch_id)
        return decode_item(foreign) if item is None and foreign is not None else item

    async def open_batches(self, received_before_ms: int) -> AsyncIterator[RegistryItem]:
        """Open batches received before the bound, oldest first; their state is that of the first read."""
        await self._enter("open_batches")
        reader = ItemReader()
        items = self._all(reader)
        waiting = [i for i in items if i.state is BatchState.OPEN and i.received_at_ms < received_before_ms]
        for item in sorted(waiting, key=lambda item: (item.epoch, item.received_at_ms)):
            yield item
        await self._leave("open_batches")
        reader.finish()

    async def all_batches(self) -> AsyncIterator[RegistryItem]:
        """Every batch."""
        await self._enter("all_batches")
        reader = ItemReader()
        items = self._all(reader)
        for item in items:
            yield item
        await self._leave("all_batches")
        reader.finish()

    async def complete(self, batch_id: str, at_ms: int = 0) -> BatchState:
        """Move open -> complete at a moment; the state found before.

        Raises:
            IllegalMove: no such batch is registered.
        """
        await self._enter("complete", batch_id)
        item = self._registered(batch_id)
        if item.state is BatchState.OPEN:
            moved = move(item.state, BatchState.COMPLETE)
            self._items[batch_id] = msgspec.structs.replace(item, state=moved, completed_at_ms=at_ms)
        await self._leave("complete", batch_id)
        return item.state

    async def record_attempt(self, batch_id: str, history: Sequence[Attempt], next_at_ms: int) -> None:
        """Note the last attempt of `history`; an older number changes nothing.

        Raises:
            IllegalMove: no such batch is registered.
        """
        await self._enter("record_attempt", batch_id)
        item = self._registered(batch_id)
        if (attempt := history[-1].number) > item.attempts:
            self._items[batch_id] = msgspec.structs.replace(
                item, attempts=attempt, next_attempt_at_ms=next_at_ms, history=list(history)
            )
        await self._leave("record_attempt", batch_id)

    def _all(self, reader: ItemReader) -> list[RegistryItem]:
        """Every readable item; the reader keeps the errors of the others."""
        found = map(reader.read, self.stored)
        return [*self._items.values(), *(item for item in found if item is not None)]

    def _registered(self, batch_id: str) -> RegistryItem:
        if batch_id not in self._items:
            raise IllegalMove(f"batch {batch_id} is not registered")
        return self._items[batch_id]
