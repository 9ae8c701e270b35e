"""Reads the raw files of a span, cuts them into their blocks, and keeps the blocks on disk, a file a partition.

Memory has, of each batch, its id and its number of lines; of each block nothing.
"""

import asyncio
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import structlog
from pyroaring import BitMap

from app.adapters.ports import ObjectStore, Registry
from app.core.formats.batch import cut_again
from app.core.formats.block import decode_header, frame_of, open_frame
from app.core.formats.registry_item import RegistryItem
from app.core.rebuild.source_log import Copies, StoredBlock, copies_of, event_ids
from app.core.rebuild.span import BatchSpan
from app.errors import FormatInvalid, ObjectMissing

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Raw files that are read at once."""
_PLACE: Final = struct.Struct(">Q16sIQI")
"""Of a block: receipt, batch, number in the batch, place in the file, length."""
_RAW_ENDING: Final = ".ndjson.zst"

Progress = Callable[[int, int], None]
"""Told (done, total)."""
Told = Callable[[str], Progress]
"""Given the words behind the numbers, returns a stage's progress."""
Duplicates = Mapping[str, BitMap]
"""Batch -> the lines that the ledger calls duplicates."""


class EpochPartition(NamedTuple):
    """A partition of an epoch."""

    epoch: int
    number: int


class Batches(msgspec.Struct):
    """The batches of a span, margins included."""

    lines: dict[str, int] = {}
    """Batch -> its number of lines."""
    unregistered: list[str] = []
    """Keys of raw files without an item in the registry: their requests were never acknowledged."""
    damaged: list[str] = []
    """Keys of raw files that are not what was registered."""


class PlacedBlock(NamedTuple):
    """A block, and its place in the partition's file."""

    block: StoredBlock
    start: int
    length: int


class BlockFiles:
    """The blocks of a span on disk, by partition."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends: dict[EpochPartition, int] = {}
        self._latest_ms: dict[EpochPartition, int] = {}

    def partitions(self) -> list[EpochPartition]:
        """The partitions that have blocks."""
        return sorted(self._ends)

    def add(self, blocks: Sequence[bytes]) -> None:
        """Add the envelopes of a batch."""
        for envelope in blocks:
            header = decode_header(envelope)
            partition = EpochPartition(header.epoch, header.partition)
            start = self._ends.get(partition, 0)
            batch = uuid.UUID(header.batch_id).bytes
            with self._file(partition, "blocks").open("ab") as file:
                file.write(envelope)
            with self._file(partition, "places").open("ab") as file:
                file.write(_PLACE.pack(header.received_at_ms, batch, header.block, start, len(envelope)))
            self._ends[partition] = start + len(envelope)

    def places(self, partition: EpochPartition) -> list[PlacedBlock]:
        """The blocks of a partition, in no order."""
        packed = self._file(partition, "places").read_bytes()
        return [
            PlacedBlock(StoredBlock(received, str(uuid.UUID(bytes=batch)), block), start, length)
            for received, batch, block, start, length in _PLACE.iter_unpack(packed)
        ]

    def envelopes(self, partition: EpochPartition, places: Sequence[PlacedBlock]) -> Iterator[bytes]:
        """The envelopes at `places`, in their order."""
        with self._file(partition, "blocks").open("rb") as file:
            for place in places:
                file.seek(place.start)
                yield file.read(place.length)

    def copies(self, partition: EpochPartition, places: Sequence[PlacedBlock], duplicates: Duplicates) -> Copies:
        """The order that the partition's duplicates ask for; positions are those in `places`."""
        dropped: dict[str, list[int]] = {}
        with_copies = [n for n, place in enumerate(places) if place.block.batch_id in duplicates]
        for n, envelope in zip(with_copies, self.envelopes(partition, [places[n] for n in with_copies]), strict=True):
            for event_id, is_copy in _lines_of(envelope, duplicates):
                if is_copy and event_id is not None:
                    dropped.setdefault(event_id, []).append(n)
        if not dropped:
            return Copies({}, frozenset())
        counted: dict[str, int] = {}
        for n, envelope in enumerate(self.envelopes(partition, places)):
            for event_id, is_copy in _lines_of(envelope, duplicates):
                if not is_copy and event_id in dropped:
                    counted.setdefault(event_id, n)
        return copies_of(dropped, counted)

    def _file(self, partition: EpochPartition, kind: str) -> Path:
        return self._folder / f"{partition.epoch}-{partition.number}.{kind}"


def _lines_of(envelope: bytes, duplicates: Duplicates) -> Iterator[tuple[str | None, bool]]:
    """(event id, whether the ledger calls it a duplicate) of each line of a block."""
    header = decode_header(envelope)
    copies = duplicates.get(header.batch_id, BitMap())
    for line, event_id in enumerate(event_ids(open_frame(frame_of(envelope))), header.first_line):
        yield event_id, line in copies


async def gather(
    store: ObjectStore, registry: Registry, wide: BatchSpan, files: BlockFiles, progress: Progress = lambda *_: None
) -> Batches:
    """Cut every raw file of `wide` into blocks, and put them into `files`.

    A raw file that is not the registered one is named and left out.

    Raises:
        ServiceUnavailable: S3 or the registry does not answer.
        NewerFormat: a newer version registered a batch.
    """
    batches = Batches()
    hours = list(wide.hours())
    for done, hour in enumerate(hours):
        async for some in _chunks(store, hour, wide):
            cut = await asyncio.gather(*(_cut(store, registry, batch_id, key, batches) for batch_id, key in some))
            for item, blocks in filter(None, cut):
                batches.lines[item.batch_id] = item.line_count
                await asyncio.to_thread(files.add, blocks)
        progress(done + 1, len(hours))
    return batches


async def _chunks(store: ObjectStore, hour: str, wide: BatchSpan) -> AsyncIterator[list[tuple[str, str]]]:
    """(batch, key) of the raw files of an hour that lie in the span, some at a time."""
    some: list[tuple[str, str]] = []
    async for info in store.list(f"raw/{hour}/"):
        batch_id = info.key.rpartition("/")[2].removesuffix(_RAW_ENDING)
        if _is_id(batch_id) and wide.has(batch_id):
            some.append((batch_id, info.key))
        if len(some) == AT_ONCE:
            yield some
            some = []
    yield some


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


async def _cut(
    store: ObjectStore, registry: Registry, batch_id: str, key: str, batches: Batches
) -> tuple[RegistryItem, list[bytes]] | None:
    item = await registry.get(batch_id)
    if item is None:
        batches.unregistered.append(key)
        return None
    try:
        raw = await store.get(key)
        return item, await asyncio.to_thread(cut_again, raw, item, 0)
    except (FormatInvalid, ObjectMissing) as exc:
        log.error("raw file is not what was registered", batch_id=batch_id, raw_key=key, error=str(exc))
        batches.damaged.append(key)
        return None
