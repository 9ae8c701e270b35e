"""Takes lines out of a batch's raw file: tombstones in their places, and the registry names the new file (rule R7)."""

import asyncio
import hashlib
from functools import partial

from pyroaring import BitMap

from agents.audit.deep.ports import DeepPorts
from agents.delivery.load import Mending, WarehouseLoad
from app.adapters.warehouse_port import WarehouseSession
from app.core.erase.raw import erased_raw
from app.core.formats.batch import batch_time_ms
from app.core.formats.object_keys import raw_key
from app.errors import ObjectMissing, RepairRefused
from app.settings import Settings


class RawErasing:
    """Erases lines from raw files of the settings' epoch."""

    def __init__(self, ports: DeepPorts, load: WarehouseLoad, settings: Settings) -> None:
        self._ports = ports
        self._load = load
        self._partitions = settings.partitions

    async def erase(self, batch_id: str, lines: BitMap) -> None:
        """Put tombstones in the places of `lines`; a batch whose raw file has expired has nothing to erase.

        Effects, in order, under delivery's lock, so that two erasures do not undo each other; what a crash right after each
        leaves:
          1 the registry names the new file   the old file: the deep audit calls it changed, no repair makes one that fits,
                                              and no replay sends it; the next run goes on at 2
          2 PUT the raw file                  nothing

        Raises:
            RepairRefused: the file is not the registered one.
            LoadStopped: the warehouse gives no lock.
            FormatInvalid: the registry's item or the file cannot be read.
        """
        await self._load.mend(partial(self._under_the_lock, batch_id, lines))

    async def _under_the_lock(self, batch_id: str, lines: BitMap, _: WarehouseSession) -> Mending | None:
        item = await self._ports.registry.get(batch_id)
        key = raw_key(batch_id, batch_time_ms(batch_id)) if item is None else item.raw_key
        try:
            raw = await self._ports.store.get(key)
        except ObjectMissing:
            return None
        if item is None:
            raise RepairRefused(f"{key} has no registry item: see `instream repair`")
        made, amended = await asyncio.to_thread(erased_raw, raw, item, lines, self._partitions)
        is_registered = hashlib.sha256(raw).hexdigest() == item.sha256
        if amended.sha256 == item.sha256:
            if not is_registered:  # an erasure died behind 1
                await self._ports.store.put(key, made)
            return None
        if not is_registered:
            raise RepairRefused(f"{key} is not the registered file: see `instream repair`")
        if not await self._ports.registry.amend(amended, item.sha256):  # 1
            raise RepairRefused(f"the registry item of batch {batch_id} has changed meanwhile: run it again")
        await self._ports.store.put(key, made)  # 2
        return None
