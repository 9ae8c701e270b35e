"""Reads lines of raw files: one block of a file where the registry knows the batch, else the whole file."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from app.adapters.ports import ObjectStore, Registry
from app.core.audit.trace.facts import RawLine, block_of, fields_of
from app.core.formats.batch import batch_time_ms
from app.core.formats.block import open_frame
from app.core.formats.object_keys import raw_key
from app.core.formats.raw_file import frames_in, lines_in
from app.core.formats.registry_item import RegistryItem
from app.errors import FormatInvalid, FrameInvalid, NewerFormat, ObjectMissing

AT_ONCE: Final = 16
"""Batches read side by side."""


class RawRead(NamedTuple):
    """Some lines of one raw file."""

    lines: list[RawLine]
    fault: str = ""
    """The reason why lines are missing; empty if all are there."""


class RawLines:
    """Reads lines of batches."""

    def __init__(self, store: ObjectStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._reads = asyncio.Semaphore(AT_ONCE)

    async def read(self, batch_id: str, numbers: Iterable[int]) -> RawRead:
        """The lines of these numbers, in order; without those that the file does not have.

        Raises:
            ServiceUnavailable: S3 or the registry does not answer.
        """
        async with self._reads:
            return await self._lines(batch_id, sorted(set(numbers)))

    async def _lines(self, batch_id: str, wanted: Sequence[int]) -> RawRead:
        item = await self._item(batch_id)
        key = raw_key(batch_id, batch_time_ms(batch_id)) if item is None else item.raw_key
        try:
            texts = await self._by_block(item, wanted) if item is not None else await self._by_file(key, wanted)
        except ObjectMissing:
            return RawRead([], f"raw file {key} is missing")
        except FormatInvalid as exc:
            return RawRead([], f"raw file {key} is damaged: {exc}")
        return RawRead([RawLine(batch_id, n, key, item, text, fields_of(text)) for n, text in sorted(texts.items())])

    async def _item(self, batch_id: str) -> RegistryItem | None:
        try:
            return await self._registry.get(batch_id)
        except (FormatInvalid, NewerFormat):
            return None

    async def _by_block(self, item: RegistryItem, wanted: Sequence[int]) -> Mapping[int, bytes]:
        blocks: dict[int, list[int]] = {}
        for line in wanted:
            if (number := block_of(item, line)) is not None:
                blocks.setdefault(number, []).append(line)
        found: dict[int, bytes] = {}
        for number, lines in blocks.items():
            place = item.blocks[number]
            text = open_frame(await self._store.get_range(item.raw_key, place.byte_start, place.byte_len))
            texts = lines_in(text)
            if len(texts) != place.lines:
                raise FrameInvalid(f"block {number} has {len(texts)} lines, the registry says {place.lines}")
            found |= {line: texts[line - place.first_line] for line in lines}
        return found

    async def _by_file(self, key: str, wanted: Sequence[int]) -> Mapping[int, bytes]:
        texts = await asyncio.to_thread(_all_lines, await self._store.get(key))
        return {line: texts[line] for line in wanted if line < len(texts)}


def _all_lines(raw: bytes) -> list[bytes]:
    return [line for frame in frames_in(raw) for line in lines_in(frame.text)]
