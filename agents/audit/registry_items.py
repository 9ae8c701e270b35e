"""Batches of the registry; damaged items are set aside by name, so that one of them cannot stop work on the others."""

from collections.abc import AsyncIterator

import structlog

from app.core.formats.registry_item import RegistryItem
from app.errors import RegistryItemsInvalid

log = structlog.get_logger(__name__)


async def readable(listing: AsyncIterator[RegistryItem], unreadable: list[str]) -> AsyncIterator[RegistryItem]:
    """The batches of a listing.

    Args:
        listing: of the registry; it raises at its end if some items are no batch.
        unreadable: gets the id and the reason of each such item, which is also logged as an alarm.

    Raises:
        NewerFormat: a newer version registered one of the items; raised after all others.
    """
    try:
        async for item in listing:
            yield item
    except RegistryItemsInvalid as exc:
        unreadable += exc.items
        for reason in exc.items:
            log.error("registry item is no batch", reason=reason, alarm=True)
