"""Mends of a batch: its raw file, its registry item (rule R3)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from agents.audit.deep.ports import DeepPorts
from agents.audit.erase.stored import erased_lines
from app.adapters.ports import LogScan
from app.core.erase.raw import erased_raw
from app.core.formats.batch import batch_time_ms
from app.core.formats.block import BlockHeader, decode_header, frame_of, is_control, open_frame
from app.core.formats.object_keys import is_txn_id, raw_key
from app.core.formats.registry_item import RegistryItem
from app.core.repair.raw_file import item_of, raw_of
from app.errors import EnvelopeInvalid, FormatInvalid, FrameInvalid, NewerFormat, ObjectMissing, RepairRefused
from app.settings import Settings
from app.topics import topics_of

SCANNED: Final = 500
"""Messages that are read rather than passed over: each half costs as much as some hundred of them."""
BEFORE_MS: Final = 10 * 60_000
"""A batch's blocks are looked for from so long before the time of its id: clocks of brokers differ."""


OF_RAW: Final = ("epoch", "line_count", "byte_count", "sha256", "raw_key", "blocks", "received_at_ms")
"""What a registry item has from its raw file; the rest is what the audit did about the batch."""


class BatchMends:
    """Mends batches of the settings' epoch."""

    def __init__(self, ports: DeepPorts, settings: Settings) -> None:
        self._ports = ports
        self._settings = settings
        self._blocks = topics_of(settings).blocks.name

    async def restore_raw(self, batch_id: str) -> None:
        """Put a raw file together again from the batch's blocks in topic `blocks`.

        Raises:
            RepairRefused: the topic does not have all blocks any more, or they give another file than was registered.
        """
        item, key = await self._item(batch_id), raw_key(batch_id, batch_time_ms(batch_id))
        if item is not None and await self._is_whole(item):
            return
        raw = await self._without_erased(batch_id, item, raw_of(await self._blocks_of(batch_id, item)))
        if item is not None and hashlib.sha256(raw).hexdigest() != item.sha256:
            raise RepairRefused(f"the blocks in topic {self._blocks} give another file than the registry names")
        await self._ports.store.put(key if item is None else item.raw_key, raw)

    async def register(self, batch_id: str) -> None:
        """Make a registry item again from the batch's raw file.

        State, attempts and history of an item that can be read stay as they are.

        Raises:
            RepairRefused: the raw file is missing or damaged, or its epoch is not the settings' one.
        """
        try:
            raw = await self._ports.store.get(raw_key(batch_id, batch_time_ms(batch_id)))
        except ObjectMissing as exc:
            raise RepairRefused(f"batch {batch_id} has no raw file") from exc
        epoch = await self._epoch_of(batch_id)
        if epoch != self._settings.epoch:
            raise RepairRefused(f"batch {batch_id} is of epoch {epoch}: set INSTREAM_EPOCH and INSTREAM_PARTITIONS to it")
        made = await asyncio.to_thread(item_of, raw, batch_id, epoch, self._settings.partitions)
        try:
            found = await self._ports.registry.get(batch_id)
        except FormatInvalid:
            await self._ports.registry.restore(made)
            return
        if found is None:
            await self._ports.registry.register(made)
            return
        kept = msgspec.structs.replace(found, **{name: getattr(made, name) for name in OF_RAW})
        if kept != found:
            await self._ports.registry.restore(kept)

    # --- inside

    async def _without_erased(self, batch_id: str, item: RegistryItem | None, raw: bytes) -> bytes:
        """The raw file without the lines that were erased since its blocks were sent (rule R7)."""
        lines = (await erased_lines(self._ports.store)).get(batch_id)
        if not lines:
            return raw
        epoch, partitions = self._settings.epoch, self._settings.partitions
        blocks = item if item is not None else item_of(raw, batch_id, epoch, partitions)
        return erased_raw(raw, blocks, lines, partitions)[0]

    async def _item(self, batch_id: str) -> RegistryItem | None:
        try:
            return await self._ports.registry.get(batch_id)
        except (FormatInvalid, NewerFormat):
            return None

    async def _is_whole(self, item: RegistryItem) -> bool:
        try:
            raw = await self._ports.store.get(item.raw_key)
        except ObjectMissing:
            return False
        return hashlib.sha256(raw).hexdigest() == item.sha256

    async def _epoch_of(self, batch_id: str) -> int:
        """The epoch of a batch: of its item if that can be read, else of the transactions that have its lines."""
        if (item := await self._item(batch_id)) is not None:
            return item.epoch
        entries = (await self._ports.rows.ledger([batch_id])).get(batch_id, [])
        epochs = {int(entry.txn_id.partition("-")[0]) for entry in entries if is_txn_id(entry.txn_id)}
        return epochs.pop() if len(epochs) == 1 else self._settings.epoch

    async def _blocks_of(self, batch_id: str, item: RegistryItem | None) -> dict[int, bytes]:
        """Block number -> envelope, of the blocks that topic `blocks` still has."""
        if self._ports.logs is None:
            raise RepairRefused("Kafka does not answer, and topic blocks is the source")
        wanted = None if item is None else {place.partition for place in item.blocks}
        found: dict[int, bytes] = {}
        for partition in range(self._settings.partitions) if wanted is None else sorted(wanted):
            count = None if item is None else sum(place.partition == partition for place in item.blocks)
            here = 0
            async for header, envelope in self._of_batch(self._ports.logs, partition, batch_id):
                if header.block not in found:
                    found[header.block] = envelope
                    here += 1
                if here == count:
                    break
        return found

    async def _of_batch(self, logs: LogScan, partition: int, batch_id: str) -> AsyncIterator[tuple[BlockHeader, bytes]]:
        """The batch's blocks on a partition of the topic, from its time on; a copy that nobody can read is passed over."""
        first, end = await logs.bounds(self._blocks, partition)
        start = await _offset_at(logs, self._blocks, partition, (first, end), batch_time_ms(batch_id) - BEFORE_MS)
        async for message in logs.scan(self._blocks, partition, start, end):
            if is_control(message.value):
                continue
            try:
                header = decode_header(message.value)
                if header.batch_id != batch_id or header.partition != partition:
                    continue
                open_frame(frame_of(message.value))
            except (EnvelopeInvalid, FrameInvalid, NewerFormat):
                continue
            yield header, message.value


async def _offset_at(logs: LogScan, topic: str, partition: int, bounds: tuple[int, int], moment_ms: int) -> int:
    """An offset before which the broker appended nothing at a moment or later, at most `SCANNED` before the first such one.

    By halves: append times never go back (rule T4).
    """
    low, high = bounds
    while high - low > SCANNED:
        middle = (low + high) // 2
        at_ms = moment_ms
        async for message in logs.scan(topic, partition, middle, middle + 1):
            at_ms = message.timestamp_ms
        low, high = (middle + 1, high) if at_ms < moment_ms else (low, middle)
    return low
