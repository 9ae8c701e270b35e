"""The batches of an hour, that of the time in their ids (rule A4)."""

from agents.audit.registry_items import readable
from app.adapters.ports import ObjectStore, Registry
from app.adapters.warehouse_port import LoadedLedger
from app.core.audit.certificate import HOUR_MS
from app.core.formats.batch import batch_time_ms, first_id
from app.core.formats.object_keys import hour_path, raw_place, raw_prefix


async def batches_of_hour(store: ObjectStore, ledger: LoadedLedger, hour_ms: int) -> list[str]:
    """The ids of an hour's batches with a raw file or a ledger row, in their order.

    A registered batch that has neither is open: `open_hours` names its hour.

    Raises:
        ServiceUnavailable: S3 or the warehouse does not answer.
    """
    first, end = first_id(hour_ms), first_id(hour_ms + HOUR_MS)
    found = set(await ledger.batches_between(first, end))
    async for info in store.list(raw_prefix(hour_path(hour_ms))):
        place = raw_place(info.key)
        if place is not None and first <= place.batch_id < end:
            found.add(place.batch_id)
    return sorted(found)


async def open_hours(registry: Registry, before_ms: int, unreadable: list[str]) -> dict[int, list[str]]:
    """Hour -> its open batches, of all hours that begin before a moment; hours without any are absent.

    Args:
        registry: the batches.
        before_ms: the moment.
        unreadable: gets the registry items that are no batch, with their reasons.

    Raises:
        ServiceUnavailable: the registry does not answer.
        NewerFormat: a newer version registered one of the batches.
    """
    found: dict[int, list[str]] = {}
    async for item in readable(registry.open_batches(before_ms + 2 * HOUR_MS), unreadable):  # received_at may be later
        hour_ms = batch_time_ms(item.batch_id) // HOUR_MS * HOUR_MS
        if hour_ms < before_ms:
            found.setdefault(hour_ms, []).append(item.batch_id)
    return found
