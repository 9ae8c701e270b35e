"""Waits until the warehouse's ledger covers every registered batch (`instream wait`, the demo, the benchmarks)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from agents.audit.registry_items import readable
from agents.audit.stored_ledger import StoredLedger
from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_login import login_of
from app.adapters.warehouse_port import Delivery
from app.core.audit.reconcile import coverage
from app.core.formats.registry_item import RegistryItem
from app.errors import ServiceUnavailable
from app.settings import Settings

NAMED: Final = 5
"""The answer names at most so many batch ids of each kind."""
POLL_S: Final = 0.5


class Waited(msgspec.Struct, kw_only=True):
    """The result of the wait. Counts are batches."""

    registered: int
    covered: int = 0
    missing: int = 0
    """Batches without an entry for some line, and not held."""
    dead_lettered: int = 0
    """Missing batches of which the ETL set aside blocks that it could not read."""
    held: int = 0
    """Batches with lines in a quarantined transaction: only `instream delivery release` repairs that."""
    excess: int = 0
    """The ledger has more than the batch."""
    unreadable: int = 0
    """Items of the registry that are no batch."""
    took_s: float = 0.0
    named: dict[str, list[str]] = {}
    """`missing`, `dead_lettered`, `held`, `excess`, `unreadable` -> some batch ids. Those of `dead_lettered`, `excess` and
    `unreadable` have their reason."""

    @property
    def is_covered(self) -> bool:
        """Whether the ledger covers every batch exactly once."""
        return not (self.excess or self.missing or self.held or self.unreadable)


class Uncovered:
    """The registered batches whose ledger is not complete yet; each is looked at until it is, and never again."""

    def __init__(self, items: list[RegistryItem], unreadable: Sequence[str] = ()) -> None:
        """Wait for the batches of `items`; `unreadable` are the registry's items that are no batch."""
        self._unreadable = unreadable
        self._registered = len(items)
        self._open = {item.batch_id: item for item in items}
        self._held: set[str] = set()
        self._excess: dict[str, str] = {}
        self._dead_letters: dict[str, dict[int, str]] = {}

    async def look(self, warehouse: WarehouseLedger, stored: StoredLedger, delivery: Delivery) -> bool:
        """Compare what is open with the ledger. Returns: whether waiting longer can change anything.

        Raises:
            ServiceUnavailable: the warehouse, or S3 where transactions are quarantined, does not answer.
        """
        quarantined = list((await stored.of_quarantined(delivery)).values())
        self._dead_letters = await warehouse.dead_letters(list(self._open))
        entries = await warehouse.entries(list(self._open))
        self._held.clear()
        for batch_id, item in list(self._open.items()):
            found = coverage(item.line_count, entries.get(batch_id, []))
            if found.excess:
                self._excess[batch_id] = "; ".join(found.excess)
            elif any(found.missing & lines[batch_id] for lines in quarantined if batch_id in lines):
                self._held.add(batch_id)
                continue
            elif found.missing:
                continue
            del self._open[batch_id]
        return len(self._open) > len(self._held)

    def result(self, took_s: float) -> Waited:
        """The result so far."""
        missing = [batch_id for batch_id in self._open if batch_id not in self._held]
        unread = {batch_id: self._dead_letters[batch_id] for batch_id in missing if batch_id in self._dead_letters}
        named = {
            "missing": missing[:NAMED],
            "dead_lettered": [f"{batch_id}: {_words(blocks)}" for batch_id, blocks in unread.items()][:NAMED],
            "held": sorted(self._held)[:NAMED],
            "excess": [f"{batch_id}: {why}" for batch_id, why in self._excess.items()][:NAMED],
            "unreadable": list(self._unreadable[:NAMED]),
        }
        return Waited(
            registered=self._registered, covered=self._registered - len(self._open) - len(self._excess),
            missing=len(missing), dead_lettered=len(unread), held=len(self._held), excess=len(self._excess),
            unreadable=len(self._unreadable), took_s=round(took_s, 1),
            named={kind: ids for kind, ids in named.items() if ids},
        )  # fmt: skip


def _words(blocks: dict[int, str]) -> str:
    """The blocks that could not be read, with the reason of the first."""
    first, *more = sorted(blocks)
    return f"block {first}: {blocks[first]}" + (f" (and {len(more)} more)" if more else "")


async def await_coverage(
    settings: Settings, timeout_s: float, show: Callable[[int, int, str], None], *, while_it_moves: bool = False
) -> Waited:
    """Take the batches that the registry has now and wait until the ledger covers each exactly once.

    `show` gets the number of covered batches, the number of registered ones, and the obstacle, if there is one. With
    `while_it_moves` the time counts from the last look that found more covered batches than before. Returns early if only
    held batches are left, or if the ledger has more lines than a batch.

    Raises:
        ServiceUnavailable: the registry does not answer.
    """
    start = since = time.monotonic()
    most = 0
    registry, objects = DynamoRegistry(settings), S3ObjectStore(settings)
    warehouse, stored = WarehouseLedger(settings.warehouse_url, login_of(settings)), StoredLedger(objects, settings.epoch)
    try:
        unreadable: list[str] = []
        items = [item async for item in readable(registry.all_batches(), unreadable) if item.epoch == settings.epoch]
        uncovered = Uncovered(items, unreadable)
        while True:
            refusal = ""
            try:
                delivery = await warehouse.delivery(settings.epoch)
                is_open = await uncovered.look(warehouse, stored, delivery)
            except ServiceUnavailable as exc:
                is_open, refusal = True, str(exc)
            now = time.monotonic()
            result = uncovered.result(now - start)
            if while_it_moves and result.covered > most:
                most, since = result.covered, now
            if not is_open or now - since >= timeout_s:
                return result
            show(result.covered, result.registered, refusal)
            await asyncio.sleep(min(POLL_S, max(0.0, since + timeout_s - now)))
    finally:
        await warehouse.close()
        await registry.close()
        await objects.close()
