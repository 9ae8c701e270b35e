"""The blocks of lines that are decided again, out of raw files."""

from pyroaring import BitMap

from app.adapters.ports import ObjectStore, Registry
from app.core.formats.batch import cut_again
from app.core.formats.registry_item import RegistryItem
from app.errors import ObjectMissing, RepairRefused


async def registered(registry: Registry, batch_id: str) -> RegistryItem:
    """The registry item of a batch.

    Raises:
        RepairRefused: there is none.
    """
    item = await registry.get(batch_id)
    if item is None:
        raise RepairRefused(f"batch {batch_id} is not in the registry")
    return item


async def blocks_with(store: ObjectStore, item: RegistryItem, partition: int, lines: BitMap) -> list[bytes]:
    """The envelopes of a batch's blocks on a partition that have any of these lines.

    Raises:
        RepairRefused: the raw file is missing.
        FormatInvalid: it is not the registered one.
    """
    try:
        envelopes = cut_again(await store.get(item.raw_key), item, 0)
    except ObjectMissing as exc:
        raise RepairRefused(f"{item.raw_key} is missing") from exc
    return [
        envelope for place, envelope in zip(item.blocks, envelopes, strict=True)
        if place.partition == partition
        and lines.intersection_cardinality(BitMap(range(place.first_line, place.first_line + place.lines)))
    ]  # fmt: skip
